"""Augmentations as pure functions: a plan is drawn first, then applied.

A plan speaks of places in the global batch, so that every rank of a group can draw
the same plan and apply its own part of it. Each augmentation draws from a generator
of its own, so that switching one on disturbs no other.

Order of work. On the downsampled windows, before they are normalised (``windows``): the
hemispheres are flipped, time is flipped, a chain is dropped, stretches of time and then
of frequency are masked. What is dropped or masked becomes NaN, "not recorded": it
enters no statistic and is 0, the mean, once normalised. Targets stay, since no class
names a side of the head or a direction of time.

On the images, after the views are joined (``plan``): a mosaic, or else first CutMix and
then mixup. A batch of mosaics is neither cut nor mixed: each of its images is four
already. CutMix leaves targets as they are; a mosaic has the mean of its four and mixup
the mixture of its two.

May import ``config`` and rooms below. Drawn per batch by ``train.batches``; settings are in
``config.augmentation``.
"""
