"""The augmentation of one batch: drawn for the global batch, applied to a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.blocks import Blocks, hide_blocks, plan_blocks
from hms_ray.augment.cutmix import CutMixPlan, apply_cutmix, plan_cutmix
from hms_ray.augment.draws import Generators
from hms_ray.augment.mixup import (
    MixupPlan,
    SignalMixupPlan,
    apply_mixup,
    plan_mixup,
    plan_signal_mixup,
)
from hms_ray.augment.mosaic import MosaicPlan, apply_mosaic, plan_mosaic
from hms_ray.augment.positions import Positions
from hms_ray.augment.windows import WindowPlan, plan_windows
from hms_ray.config.augmentation import AugmentConfig

Values = NDArray[np.float64]


@dataclass(frozen=True)
class AugmentationPlan:
    """The augmentations of a batch; None for those that are not applied.

    Attributes:
        signals: of raw signals, first of all.
        windows: of windows, before normalisation.
        blocks: (B, n, 2, 2) blocks of images that are hidden, before everything below.
        cutmix: of images.
        mosaic: of images; excludes CutMix and mixup.
        mixup: of images, after CutMix.
    """

    signals: SignalMixupPlan | None = None
    windows: WindowPlan | None = None
    blocks: Blocks | None = None
    cutmix: CutMixPlan | None = None
    mosaic: MosaicPlan | None = None
    mixup: MixupPlan | None = None

    def part(self, own: Positions) -> tuple[Positions, AugmentationPlan]:
        """The plan for some of the batch's rows.

        Args:
            own: positions of the images to make.

        Returns:
            Positions of all rows whose windows are needed, and the plan in terms of
            positions in that list. ``own`` come first, except in a batch of mosaics.
        """
        made, cutmix, mosaic, mixup = own, self.cutmix, self.mosaic, self.mixup
        if mosaic is not None:
            made, mosaic = mosaic.part(own)
        if mixup is not None:
            made, mixup = mixup.part(own)
        if cutmix is not None:
            # Mixup is after CutMix, so partners are cut too.
            made, cutmix = cutmix.part(made)
        windows = None if self.windows is None else self.windows.of(made)
        blocks = None if self.blocks is None else self.blocks[made]
        signals = None
        if self.signals is not None:
            made, signals = self.signals.part(made)
        return made, AugmentationPlan(signals, windows, blocks, cutmix, mosaic, mixup)

    def targets(self, targets: Values) -> Values:
        """(B, 6) targets of the batch's images from those of its rows."""
        for mixing in (self.signals, self.mosaic or self.mixup):
            targets = targets if mixing is None else mixing.mixed(targets)
        return targets

    def weights(self, weights: Values) -> Values:
        """(B,) weights in the loss of the batch's images from those of its rows.

        A mosaic has the weight 1 with any loss (published); a mixup image, or a row of mixed
        signals, has the mixture of its two weights.
        """
        if self.mosaic is not None:
            return np.ones_like(weights)
        for mixing in (self.signals, self.mixup):
            weights = weights if mixing is None else mixing.mixed(weights)
        return weights


def draw_plan(
    config: AugmentConfig,
    targets: Values,
    image: tuple[tuple[int, int], Sequence[int]],
    epoch: int,
    generators: Generators,
) -> AugmentationPlan:
    """Draws the augmentations of a batch.

    Args:
        config: augmentations and their probabilities.
        targets: (B, 6) shares of votes of the global batch.
        image: (height, width) of the images, and widths of their views before the images
            were resized.
        epoch: of the stage, from 0.
        generators: one for each of ``AUGMENTATIONS``.

    Raises:
        ConfigError: if a view is too narrow for the configured mosaics.
    """
    n_rows, (size, widths) = len(targets), image
    signals = blocks = None
    if config.signal_mixup is not None:
        signals = plan_signal_mixup(n_rows, config.signal_mixup, generators["signal_mixup"])
        targets = signals.mixed(targets)
    windows = plan_windows(n_rows, config, generators)
    if config.block_drop is not None:
        blocks = plan_blocks(n_rows, config.block_drop, generators["block_drop"])
    cutmix = mosaic = mixup = None
    if config.cutmix is not None:
        cutmix = plan_cutmix(targets, size, widths, config.cutmix, generators["cutmix"])
    if config.mixup is not None:
        mixup = plan_mixup(n_rows, config.mixup, generators["mixup"])
    if config.mosaic is not None:
        mosaic = plan_mosaic(n_rows, size[1], widths, config.mosaic, epoch, generators["mosaic"])
    if mosaic is not None:
        return AugmentationPlan(signals, windows, blocks, mosaic=mosaic)
    return AugmentationPlan(signals, windows, blocks, cutmix=cutmix, mixup=mixup)


def augment_images(images: Tensor, plan: AugmentationPlan, n_rows: int) -> Tensor:
    """Applies a plan to images.

    Args:
        images: (N, C, H, W) with joined views.
        plan: in terms of positions in ``images``.
        n_rows: number of images to make.

    Returns:
        (n_rows, C, H, W); ``images`` itself if the plan is empty, otherwise a new tensor.
    """
    if plan.blocks is not None and plan.blocks.any():
        images = hide_blocks(images, plan.blocks)
    if plan.mosaic is not None:
        return apply_mosaic(images, plan.mosaic)
    if plan.cutmix is not None:
        n_cut = n_rows if plan.mixup is None else plan.mixup.n_images
        images = apply_cutmix(images, plan.cutmix, n_cut)
    if plan.mixup is not None:
        images = apply_mixup(images, plan.mixup)
    return images
