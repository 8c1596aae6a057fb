"""Mosaics: four images of a batch, each squeezed in time, joined in time.

Published in the series of experiments that the recipes follow: on images of 300
columns, the mean of every four columns of four images gives 4 x 75 columns; the target
is the mean of the four, and the loss knows no votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.places import Band, Places, positions, view_spans
from hms_ray.config.augmentation import MosaicConfig
from hms_ray.errors import ConfigError

N_MEMBERS: Final = 4


@dataclass(frozen=True)
class MosaicPlan:
    """Of which images each image of a batch is made.

    Attributes:
        members: (n, 4) places in the batch, from left to right; the same place may
            come more than once, and a mosaic need not hold the row that it stands for.
        spans: columns of each view; a mosaic is made within each.
    """

    members: Places
    spans: tuple[Band, ...]

    def part(self, own: Places) -> tuple[Places, MosaicPlan]:
        """The plan of some of the batch's images.

        Args:
            own: places of the mosaics to be made.

        Returns:
            The places of all images needed, and the plan in terms of positions in them.
        """
        members = self.members[own]
        needed = np.unique(members)
        return needed, replace(self, members=positions(members, needed))

    def mixed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, ...) means over the members of (B, ...) values, such as targets."""
        means: NDArray[np.float64] = values[self.members].mean(axis=1)
        return means


def plan_mosaic(
    n_rows: int,
    width: int,
    widths: Sequence[int],
    config: MosaicConfig,
    epoch: int,
    generator: np.random.Generator,
) -> MosaicPlan | None:
    """Draws the mosaics of a batch.

    Args:
        n_rows: of the whole global batch.
        width: of the images.
        widths: of the views that stand side by side in an image, before it was resized.
        config: probability and epochs.
        epoch: of the stage, from 0.
        generator: source of all draws; members are drawn with replacement.

    Returns:
        The plan, or None for a batch without mosaics.

    Raises:
        ConfigError: where a view has fewer than four columns.
    """
    spans = mosaic_spans(width, widths)
    if config.epochs is not None and epoch >= config.epochs:
        return None
    if generator.random() >= config.probability:
        return None
    return MosaicPlan(generator.integers(n_rows, size=(n_rows, N_MEMBERS)), spans)


def mosaic_spans(width: int, widths: Sequence[int]) -> tuple[Band, ...]:
    """``view_spans`` of images that can be made mosaics of.

    Raises:
        ConfigError: where a view has fewer than four columns.
    """
    spans = view_spans(width, widths)
    narrowest = min(stop - first for first, stop in spans)
    if narrowest < N_MEMBERS:
        raise ConfigError(
            f"a mosaic needs at least {N_MEMBERS} columns of each view",
            got=narrowest,
            fix="Use wider images or no training.augment.mosaic.",
        )
    return spans


def apply_mosaic(images: Tensor, plan: MosaicPlan) -> Tensor:
    """Makes mosaics by a plan.

    A view of w columns is divided into four parts as evenly as whole columns allow,
    wider ones first. Part k holds the whole of member k's view, each column the mean of
    what of the view it covers, by area: of four columns where 4 divides w.

    Args:
        images: (N, 1, H, W).
        plan: in terms of positions in ``images``.

    Returns:
        (n, 1, H, W), a new tensor.
    """
    members = torch.from_numpy(plan.members).to(images.device)
    parts = []
    for first, stop in plan.spans:
        span = images[..., first:stop]
        part_widths = [len(part) for part in np.array_split(np.arange(stop - first), N_MEMBERS)]
        squeezed = {width: _squeezed(span, width) for width in set(part_widths)}
        parts += [
            squeezed[width].index_select(0, members[:, member])
            for member, width in enumerate(part_widths)
        ]
    return torch.cat(parts, dim=3)


def _squeezed(span: Tensor, width: int) -> Tensor:
    """(N, 1, H, w) with ``width`` columns, each the mean over w / width of its own."""
    block, left_over = divmod(span.shape[3], width)
    if left_over:
        shares = torch.from_numpy(_area_shares(span.shape[3], width))
        return span @ shares.to(span.device, span.dtype)
    # Adding strided slices: two to four times as fast on a CPU as avg_pool2d or a mean
    # over the last axis (measured, 32 x 400 x 300).
    total = span[..., ::block].clone()
    for first in range(1, block):
        total += span[..., first::block]
    total /= block
    return total


def _area_shares(width: int, n_columns: int) -> NDArray[np.float64]:
    """(width, n_columns): how much of each new column lies on each old one.

    In units of 1 / (width * n_columns) of the view, old column i reaches from
    i * n_columns and new column j from j * width: whole numbers. Each new column's
    shares sum to 1.
    """
    old = np.arange(width)[:, None] * n_columns
    new = np.arange(n_columns)[None, :] * width
    overlap = np.minimum(old + n_columns, new + width) - np.maximum(old, new)
    shares: NDArray[np.float64] = np.maximum(overlap, 0) / width
    return shares
