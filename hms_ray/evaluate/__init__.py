"""The metric, out-of-fold tables, intervals by patient, calibration, scores of ladder steps.

May import ``competition``, ``config`` and rooms below; no torch. The metric's torch twin is
in ``train.losses``; whatever combines models is in ``ensemble``.
"""
