"""From the ``blend`` command to an ensemble, and what ``submit`` and ``export`` do with it.

Members, alignment, settings and result files of a fit; exports and their wheels.

May import ``ladder``, ``predict``, ``study`` and rooms below. The mathematics of combining
is in ``ensemble``, which takes arrays; tables are drawn in ``display``.
"""
