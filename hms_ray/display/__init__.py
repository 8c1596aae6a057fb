"""What commands show: tables, plots, live progress, TensorBoard files, drawn from plain data.

May import ``ensemble``, ``evaluate`` and rooms below. It reads no study or ladder folder:
``study``, ``ladder`` and ``blend`` read them and pass the data in; pages for a browser are
in ``report``.
"""
