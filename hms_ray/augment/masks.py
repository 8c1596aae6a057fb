"""Masks: stretches of time or frequency, and chains, become missing values.

Stretches follow Park et al.: "SpecAugment", Interspeech 2019: a width uniform up to a largest
one, then a start uniform among those that fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.augment.positions import Positions
from hms_ray.competition.schema import PANELS
from hms_ray.config.augmentation import MaskConfig
from hms_ray.config.panel_maps import chain_places

Shares = NDArray[np.float64]

NONE: Final = -1
"""Index for "no chain"."""


def plan_masks(n_rows: int, config: MaskConfig | None, generator: np.random.Generator) -> Shares:
    """Draws masks of one axis.

    Args:
        n_rows: of the global batch.
        config: probability, largest width and number of masks; None: no masks.
        generator: source of all draws; their number does not depend on the outcome.

    Returns:
        (n_rows, n_masks, 2) starts and stops as shares of the axis, 0 to 1; both are 0 for
        rows that are not masked.
    """
    if config is None:
        return np.zeros((n_rows, 0, 2))
    chances = generator.random(n_rows)
    widths = config.largest * generator.random((n_rows, config.n_masks))
    starts = (1 - widths) * generator.random((n_rows, config.n_masks))
    stretches: Shares = np.stack([starts, starts + widths], axis=2)
    return np.where((chances < config.probability)[:, None, None], stretches, 0.0)


def masked_points(stretches: Shares, n_points: int) -> NDArray[np.bool_]:
    """The points of an axis that lie entirely within a stretch.

    So masks narrower in sum than the axis leave at least a part of it, and an axis of one
    point, such as the frequency of signals, is never masked.

    Args:
        stretches: (n, m, 2) shares from ``plan_masks``.
        n_points: length of the axis.

    Returns:
        (n, n_points) bool, True for masked points.
    """
    covered: NDArray[np.bool_] = np.any(covering(stretches, n_points), axis=1)
    return covered


def covering(stretches: Shares, n_points: int) -> NDArray[np.bool_]:
    """(n, m, n_points) whether each point lies entirely within each stretch."""
    edges = stretches * n_points
    first, stop = np.ceil(edges[..., :1]), np.floor(edges[..., 1:])
    points = np.arange(n_points)
    covered: NDArray[np.bool_] = (points >= first) & (points < stop)
    return covered


def plan_drops(n_rows: int, probability: float, generator: np.random.Generator) -> Positions:
    """Draws the chain that each row loses.

    Args:
        n_rows: of the global batch.
        probability: that a row loses a chain.
        generator: source of all draws; their number does not depend on the outcome.

    Returns:
        (n_rows,) indices of chains in ``PANELS``, uniform, or ``NONE``.
    """
    chances = generator.random(n_rows)
    return np.where(chances < probability, generator.integers(len(PANELS), size=n_rows), NONE)


def chain_numbers(panels: Sequence[str]) -> Positions:
    """The chain of each panel.

    Args:
        panels: names of a pack's panels: chains (``LL``) or bipolar pairs (``Fp1-F7``).

    Returns:
        (P,) indices in ``PANELS``; ``len(PANELS)`` for panels of no chain.
    """
    places = chain_places(panels)
    return np.array([len(PANELS) if place is None else place.chain for place in places])
