"""The mathematics of combining models: arrays in, weights, duality gaps and estimates out.

May import ``evaluate`` and rooms below; knows no files, models or studies, and no torch.
Inputs of the ``blend`` command are read in ``blend``; the metric is in ``evaluate``.
"""
