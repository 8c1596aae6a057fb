"""Fold models applied to new recordings, and the checked submission file.

May import ``study``, ``experiment``, ``train`` and rooms below; only ``models`` computes with
torch. Applying a fitted blend is ``blend.apply``.
"""
