"""Parts of windows made "not recorded": stretches of an axis, and chains.

Masks are those of Park et al.: "SpecAugment", Interspeech 2019: a width drawn evenly up
to the largest one, then a start drawn evenly among those that fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.augment.places import Places
from hms_ray.competition.schema import PANELS
from hms_ray.config.augmentation import MaskConfig
from hms_ray.errors import ConfigError
from hms_ray.signal.montage import CHAINS

Shares = NDArray[np.float64]

NONE: Final = -1
"""In place of a chain's number: no chain."""

_CHAIN_OF: Final[dict[str, int]] = {
    name: number
    for number, panel in enumerate(PANELS)
    for name in (panel, *("-".join(pair) for pair in CHAINS[panel]))
}
"""Name of a panel -> number of its chain, in ``PANELS`` order."""


def plan_masks(n_rows: int, config: MaskConfig | None, generator: np.random.Generator) -> Shares:
    """Draws masks of one axis.

    Args:
        n_rows: of the whole global batch.
        config: probability, largest width and number; no masks where absent.
        generator: source of all draws; takes as many whatever is drawn.

    Returns:
        (n_rows, n_masks, 2) starts and stops as shares of the axis, from 0 to 1; both
        are 0 where a row is not masked.
    """
    if config is None:
        return np.zeros((n_rows, 0, 2))
    chances = generator.random(n_rows)
    widths = config.largest * generator.random((n_rows, config.n_masks))
    starts = (1 - widths) * generator.random((n_rows, config.n_masks))
    stretches: Shares = np.stack([starts, starts + widths], axis=2)
    return np.where((chances < config.probability)[:, None, None], stretches, 0.0)


def masked_points(stretches: Shares, n_points: int) -> NDArray[np.bool_]:
    """The points of an axis that stretches cover.

    Only points that lie wholly within a stretch are covered. So masks that are together
    narrower than the axis leave something of it, however few points it has, and an axis
    of one point, such as the frequency of signals, is never masked.

    Args:
        stretches: (n, m, 2) as ``plan_masks`` gives them.
        n_points: length of the axis.

    Returns:
        (n, n_points), True where masked.
    """
    edges = stretches * n_points
    first, stop = np.ceil(edges[..., :1]), np.floor(edges[..., 1:])
    points = np.arange(n_points)
    covered: NDArray[np.bool_] = np.any((points >= first) & (points < stop), axis=1)
    return covered


def plan_drops(n_rows: int, probability: float, generator: np.random.Generator) -> Places:
    """Draws which chain each row loses.

    Args:
        n_rows: of the whole global batch.
        probability: of a row to lose one.
        generator: source of all draws; takes as many whatever is drawn.

    Returns:
        (n_rows,) numbers of chains in ``PANELS`` order, drawn evenly, or ``NONE``.
    """
    chances = generator.random(n_rows)
    return np.where(chances < probability, generator.integers(len(PANELS), size=n_rows), NONE)


def chain_numbers(panels: Sequence[str], source: str) -> Places:
    """To which chain each panel belongs.

    Args:
        panels: names of a pack's panels: chains (``LL``) or bipolar pairs (``Fp1-F7``).
        source: of the pack, for the error.

    Returns:
        (P,) numbers in ``PANELS`` order; ``len(PANELS)`` for those of the midline.

    Raises:
        ConfigError: where a chain has no panel: a row could lose all that it has.
    """
    numbers = [_CHAIN_OF.get(panel, len(PANELS)) for panel in panels]
    if not set(range(len(PANELS))) <= set(numbers):
        raise ConfigError(
            "to drop a channel needs panels of every chain",
            got=" ".join(panels),
            where=f"the pack of {source}",
            fix="Switch training.augment.channel_drop off.",
        )
    return np.array(numbers, dtype=np.int64)
