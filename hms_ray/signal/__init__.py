"""EEG windows to spectrograms and raw signals, batched in torch.

May import ``competition``, ``config`` and rooms below. ``transforms`` normalises the results
and makes images of them; ``pack`` stores them.
"""
