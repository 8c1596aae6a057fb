"""What people look at: tables, plots, pages, TensorBoard files, drawn from plain data.

May import ``ensemble``, ``evaluate`` and rooms below. It reads no study or ladder folder:
``study``, ``ladder`` and ``blend`` read them and pass the data in.
"""
