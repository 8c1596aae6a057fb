"""Blocks of images that are set to zero (coarse dropout)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.masks import covering
from hms_ray.config.augmentation import BlockDropConfig
from hms_ray.signal.on_device import on_device

Blocks = NDArray[np.float64]


def plan_blocks(n_rows: int, config: BlockDropConfig, generator: np.random.Generator) -> Blocks:
    """Draws blocks.

    Args:
        n_rows: of the global batch.
        config: probability, number and largest size.
        generator: source of all draws; their number does not depend on the outcome.

    Returns:
        (n_rows, n_blocks, 2, 2) starts and stops of rows and of columns, as shares of the image;
        all 0 for rows without blocks.
    """
    shape = (n_rows, config.n_blocks, 2)
    chances = generator.random(n_rows)
    sizes = config.largest * generator.random(shape)
    starts = (1 - sizes) * generator.random(shape)
    blocks = np.stack([starts, starts + sizes], axis=3)
    return np.where((chances < config.probability)[:, None, None, None], blocks, 0.0)


def hide_blocks(images: Tensor, blocks: Blocks) -> Tensor:
    """Sets blocks of images to zero, the value of what is not recorded.

    Args:
        images: (B, C, H, W).
        blocks: (B, n, 2, 2) shares from ``plan_blocks``; only pixels entirely within a block
            are hidden, in all channels.

    Returns:
        (B, C, H, W), a new tensor in the memory format of ``images``.
    """
    hidden = images.clone()
    height, width = images.shape[2:]
    if images.is_cuda:
        lines = covering(blocks[:, :, 0], height)[..., None]
        pixels = np.any(lines & covering(blocks[:, :, 1], width)[:, :, None, :], axis=1)
        return hidden.masked_fill_(on_device(pixels, images.device)[:, None], 0.0)
    edges = blocks * np.array([height, width])[:, None]
    first, stop = np.ceil(edges[..., 0]).astype(int), np.floor(edges[..., 1]).astype(int)
    for row, block in zip(*np.nonzero((stop > first).all(axis=2)), strict=True):
        (top, left), (below, right) = first[row, block], stop[row, block]
        hidden[row, :, top:below, left:right] = 0.0
    return hidden
