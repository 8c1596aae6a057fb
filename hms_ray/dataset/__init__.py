"""A competition folder prepared for training: rows, folds, packs (the ``pack`` command).

May import ``pack``, ``competition`` and rooms below. The files of the competition are read and
checked in ``competition``; the format of packs is in ``pack``.
"""
