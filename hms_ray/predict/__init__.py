"""Fold models applied to new recordings, and the checked submission file.

May import ``study``, ``experiment``, ``train`` and rooms below; only ``models`` imports
torch. Applying a fitted blend is in ``blend.apply``.
"""
