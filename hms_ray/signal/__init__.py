"""EEG windows to spectrograms and raw signals, batched in torch.

May import ``competition``, ``config`` and rooms below. Normalisation and views of the
resulting windows are in ``transforms``.
"""
