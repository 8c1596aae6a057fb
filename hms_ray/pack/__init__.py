"""Packs: float16 arrays that are planned, built in shards, verified and memory-mapped.

May import ``signal``, ``competition`` and rooms below; only ``eeg`` computes with torch.
``dataset`` decides which packs an experiment needs.
"""
