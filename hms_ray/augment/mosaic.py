"""Mosaics: four images of a batch, each compressed in time, joined along time.

Published in the series of experiments that the recipes follow: in images of 300 columns, the
means of every four columns of four images give 4 x 75 columns. The target is the mean of the
four, and the weight in the loss is 1 for any number of votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.positions import Band, Positions, positions_in, view_spans
from hms_ray.config.augmentation import MosaicConfig
from hms_ray.errors import ConfigError
from hms_ray.signal.on_device import on_device

N_MEMBERS: Final = 4


@dataclass(frozen=True)
class MosaicPlan:
    """The members of each mosaic of a batch.

    Attributes:
        members: (n, 4) positions in the batch, from left to right, repeats allowed; a mosaic
            need not contain the row that it replaces.
        spans: columns of each view; mosaics are made per view.
    """

    members: Positions
    spans: tuple[Band, ...]

    def part(self, own: Positions) -> tuple[Positions, MosaicPlan]:
        """The plan for some of the batch's mosaics.

        Args:
            own: positions of the mosaics to make.

        Returns:
            Positions of all images needed, and the plan in terms of positions in that list.
        """
        members = self.members[own]
        needed = np.unique(members)
        return needed, replace(self, members=positions_in(members, needed))

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
        n_rows: of the global batch.
        width: of the images.
        widths: of the views in an image, before it was resized.
        config: probability and epochs.
        epoch: of the stage, from 0.
        generator: source of all draws; members are drawn with replacement.

    Returns:
        The plan, or None if the batch gets no mosaics.

    Raises:
        ConfigError: if a view has fewer than four columns.
    """
    spans = mosaic_spans(width, widths)
    if not config.applies_in(epoch):
        return None
    if generator.random() >= config.probability:
        return None
    return MosaicPlan(generator.integers(n_rows, size=(n_rows, N_MEMBERS)), spans)


def mosaic_spans(width: int, widths: Sequence[int]) -> tuple[Band, ...]:
    """``view_spans`` of images that are wide enough for mosaics.

    Raises:
        ConfigError: if a view has fewer than four columns.
    """
    spans = view_spans(width, widths)
    narrowest = min(stop - first for first, stop in spans)
    if narrowest < N_MEMBERS:
        raise ConfigError(
            f"a mosaic needs at least {N_MEMBERS} columns in each view",
            got=narrowest,
            fix="Use wider images or remove training.augment.mosaic.",
        )
    return spans


def apply_mosaic(images: Tensor, plan: MosaicPlan) -> Tensor:
    """Makes mosaics of images.

    A view of w columns is divided into four parts, as evenly as possible and wider ones
    first. Part k shows the whole view of member k; each of its columns is the mean, by area,
    of the columns that it covers (four columns if 4 divides w).

    Args:
        images: (N, C, H, W).
        plan: in terms of positions in ``images``.

    Returns:
        (n, C, H, W), a new tensor.
    """
    members = on_device(plan.members, images.device)
    parts = []
    for first, stop in plan.spans:
        span = images[..., first:stop]
        part_widths = [len(part) for part in np.array_split(np.arange(stop - first), N_MEMBERS)]
        compressed = {width: _compress(span, width) for width in set(part_widths)}
        parts += [
            compressed[width].index_select(0, members[:, member])
            for member, width in enumerate(part_widths)
        ]
    return torch.cat(parts, dim=3)


def _compress(span: Tensor, width: int) -> Tensor:
    """(N, C, H, w) with ``width`` columns, each the mean of w / width columns."""
    block, left_over = divmod(span.shape[3], width)
    if left_over:
        return span @ on_device(_area_shares(span.shape[3], width), span.device, span.dtype)
    # Adding strided slices is two to four times as fast on a CPU as avg_pool2d or a mean over
    # the last axis (measured, 32 x 400 x 300).
    total = span[..., ::block].clone()
    for first in range(1, block):
        total += span[..., first::block]
    total /= block
    return total


def _area_shares(width: int, n_columns: int) -> NDArray[np.float64]:
    """(width, n_columns) share of each new column that lies on each old one.

    In units of 1 / (width * n_columns) of the view, old column i starts at i * n_columns and
    new column j at j * width, both integers. The shares of a new column sum to 1.
    """
    old = np.arange(width)[:, None] * n_columns
    new = np.arange(n_columns)[None, :] * width
    overlap = np.minimum(old + n_columns, new + width) - np.maximum(old, new)
    shares: NDArray[np.float64] = np.maximum(overlap, 0) / width
    return shares
