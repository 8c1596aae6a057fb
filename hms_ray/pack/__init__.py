"""Packed float16 arrays: planned, made in shards, verified, memory-mapped.

May import ``signal``, ``competition`` and rooms below; ``eeg`` alone computes with torch.
Which packs an experiment needs is decided in ``dataset``.
"""
