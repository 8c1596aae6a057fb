"""Optuna without Ray: search distributions, proposals of trials, and the study journal.

May import ``study`` and rooms below it. The bridge to Ray Tune is
``sweep.tune_searcher``; the YAML form of a search space is ``config.space``.
"""
