"""Windows to images, batched in torch: downsampling, normalisation, fitted statistics, views.

May import ``signal``, ``config`` and rooms below. ``signal`` makes spectrograms from EEG;
``augment`` changes windows and images at random.
"""
