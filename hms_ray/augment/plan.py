"""All that is done to one batch: drawn for the whole, applied by parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.cutmix import CutMixPlan, apply_cutmix, plan_cutmix
from hms_ray.augment.draws import Generators
from hms_ray.augment.mixup import MixupPlan, apply_mixup, plan_mixup
from hms_ray.augment.mosaic import MosaicPlan, apply_mosaic, plan_mosaic
from hms_ray.augment.places import Places
from hms_ray.augment.windows import WindowPlan, plan_windows
from hms_ray.config.augmentation import AugmentConfig

Values = NDArray[np.float64]


@dataclass(frozen=True)
class AugmentationPlan:
    """What is done to a batch; None where nothing of a kind is.

    Attributes:
        windows: before they are normalised.
        cutmix: of the images.
        mosaic: of the images; where it is, there is no CutMix and no mixup.
        mixup: of the images, after CutMix.
    """

    windows: WindowPlan | None = None
    cutmix: CutMixPlan | None = None
    mosaic: MosaicPlan | None = None
    mixup: MixupPlan | None = None

    def part(self, own: Places) -> tuple[Places, AugmentationPlan]:
        """The plan of some of the batch's rows.

        Args:
            own: places of the rows to be made.

        Returns:
            The places of all rows whose windows are needed, and the plan in terms of
            positions in that list. ``own`` stand first in it, unless the batch becomes
            mosaics.
        """
        made, cutmix, mosaic, mixup = own, self.cutmix, self.mosaic, self.mixup
        if mosaic is not None:
            made, mosaic = mosaic.part(own)
        if mixup is not None:
            made, mixup = mixup.part(own)
        if cutmix is not None:
            # Partners are mixed in as they are themselves: cut.
            made, cutmix = cutmix.part(made)
        windows = None if self.windows is None else self.windows.of(made)
        return made, AugmentationPlan(windows, cutmix, mosaic, mixup)

    def targets(self, targets: Values) -> Values:
        """Targets of the batch's images from those of its rows, (B, 6) both."""
        mixing = self.mosaic or self.mixup
        return targets if mixing is None else mixing.mixed(targets)

    def weights(self, weights: Values) -> Values:
        """Weights of the batch's images in the loss from those of its rows, (B,) both.

        A mosaic counts once, whatever the loss (published); a mixture has the mixed
        weights of its two.
        """
        if self.mosaic is not None:
            return np.ones_like(weights)
        return weights if self.mixup is None else self.mixup.mixed(weights)


def draw_plan(
    config: AugmentConfig,
    targets: Values,
    image: tuple[tuple[int, int], Sequence[int]],
    epoch: int,
    generators: Generators,
) -> AugmentationPlan:
    """Draws all that is done to a batch.

    Args:
        config: what is asked for.
        targets: (B, 6) shares of the whole global batch.
        image: (height, width) of the images and the widths of their views, before the
            images were resized.
        epoch: of the stage, from 0.
        generators: one for each of ``AUGMENTATIONS``.

    Raises:
        ConfigError: where mosaics are asked for of views with fewer than four columns.
    """
    n_rows, (size, widths) = len(targets), image
    windows = plan_windows(n_rows, config, generators)
    cutmix = mosaic = mixup = None
    if config.cutmix is not None:
        cutmix = plan_cutmix(targets, size, widths, config.cutmix, generators["cutmix"])
    if config.mixup is not None:
        mixup = plan_mixup(n_rows, config.mixup, generators["mixup"])
    if config.mosaic is not None:
        mosaic = plan_mosaic(n_rows, size[1], widths, config.mosaic, epoch, generators["mosaic"])
    if mosaic is not None:
        return AugmentationPlan(windows, mosaic=mosaic)
    return AugmentationPlan(windows, cutmix=cutmix, mixup=mixup)


def augment_images(images: Tensor, plan: AugmentationPlan, n_rows: int) -> Tensor:
    """Does to images what a plan says.

    Args:
        images: (N, 1, H, W), views joined.
        plan: in terms of positions in ``images``.
        n_rows: images asked for.

    Returns:
        (n_rows, 1, H, W); ``images`` themselves where nothing is asked for, else a new
        tensor.
    """
    if plan.mosaic is not None:
        return apply_mosaic(images, plan.mosaic)
    if plan.cutmix is not None:
        n_cut = n_rows if plan.mixup is None else plan.mixup.n_images
        images = apply_cutmix(images, plan.cutmix, n_cut)
    if plan.mixup is not None:
        images = apply_mixup(images, plan.mixup)
    return images
