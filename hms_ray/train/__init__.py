"""Training of one fold: model, batches, losses, stages, scoring. Arrays in, result out.

May import ``augment``, ``transforms``, ``pack`` and rooms below, but never reads files of the
competition. What a fold consists of is decided in ``experiment``.
"""
