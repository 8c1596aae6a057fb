"""Training of one fold: model, batches, losses, stages, scoring.

Input is packed arrays, output a ``FoldResult``; files of the competition are never read here.
May import ``augment``, ``transforms``, ``pack`` and rooms below. ``experiment`` decides what
a fold consists of and stores its result.
"""
