"""All folds of one experiment: cache keys, fold tasks, the fold runner without Ray (``--local``).

May import ``dataset``, ``train`` and rooms below. The fold runner on Ray is in
``distributed.worker_group``, the training loop of one fold in ``train.loop``.
"""
