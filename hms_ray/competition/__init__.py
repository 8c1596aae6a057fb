"""The competition's files: read, checked, written; label rows to training rows.

May import ``config`` and rooms below; no torch. Folds and packs are in ``dataset``; the
submission file is in ``predict``.
"""
