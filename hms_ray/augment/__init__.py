"""Augmentations as pure functions: a plan is drawn first, then applied.

A plan refers to positions in the global batch, so that every rank draws the same plan and
applies its own part. Each augmentation has its own generator, so that switching one on does
not change the others.

Order: raw signals are mixed (``mixup``). On downsampled windows, before normalisation
(``windows``): hemispheres, front and back, and chains take each other's values, time and signs
are reversed, bands narrowed, time zoomed; then pairs and a chain are dropped, and stretches of
time and of frequency masked. Dropped and masked values become NaN ("not recorded"): statistics
ignore them, and normalisation makes them 0, the mean. Only mixing changes targets, because no
class depends on the side or the direction of time.

Order on images, after views are joined (``plan``): blocks are dropped, then either a mosaic, or
CutMix and then mixup. Batches of mosaics get neither: each image already combines four. CutMix
does not change targets; a mosaic has the mean of its four targets, a mixup image the mixture of
its two.

May import ``config`` and rooms below. ``train.batches`` draws plans; settings are in
``config.augmentation``.
"""
