"""From the ``blend`` command to an ensemble: members, alignment, settings, result files.

May import ``ladder``, ``predict``, ``study`` and rooms below. The mathematics of combining
is in ``ensemble``, which takes arrays; tables are drawn in ``report``.
"""
