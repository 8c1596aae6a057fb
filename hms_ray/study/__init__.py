"""A study's folder: identity, trials, leaderboard. Reading one needs neither Ray nor Optuna.

May import ``experiment``, ``display`` and rooms below. Running a study is in ``sweep``, its lock
in ``storage.locks``; the
results of folds, shared by all studies, are in ``storage.fold_store``.
"""
