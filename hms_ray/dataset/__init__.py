"""A competition folder prepared for training: rows, folds, packs.

May import ``pack``, ``competition`` and rooms below. The files of the competition are read and
checked in ``competition``; packs are written and read in ``pack``.
"""
