"""From a competition folder to rows, folds and packs that are ready to train on.

May import ``pack``, ``competition`` and rooms below. Reading and checking the competition's
own files is in ``competition``; how a pack is written and read is in ``pack``.
"""
