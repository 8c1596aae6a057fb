"""One configuration over its folds: cache keys, fold tasks, the runner without Ray.

May import ``dataset``, ``train`` and rooms below. The runner on Ray is
``distributed.worker_group``; the training loop of one fold is ``train.loop``.
"""
