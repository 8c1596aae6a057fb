"""Windows to images, batched in torch: downsampling, normalisation, fitted statistics, views.

May import ``signal``, ``config`` and rooms below. Spectrograms are made from EEG in
``signal``; augmentation is in ``augment``.
"""
