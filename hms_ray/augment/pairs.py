"""Some electrode pairs of each row, the same in all sources that have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.augment.positions import Positions
from hms_ray.config.electrodes import ELECTRODES

_NUMBERS: Final = {
    frozenset(pair): number for number, pair in enumerate(combinations(ELECTRODES[:-1], 2))
}
"""All pairs of scalp electrodes, in any direction."""


@dataclass(frozen=True)
class PairChoice:
    """The pairs that are chosen in n rows.

    Attributes:
        counts: (n,) number of pairs, 0 for rows without.
        keys: (n, pairs) random numbers of all pairs of scalp electrodes; the lowest are chosen.
    """

    counts: Positions
    keys: NDArray[np.float64]

    def __getitem__(self, places: Positions) -> PairChoice:
        """The choice for the rows at some positions."""
        return PairChoice(self.counts[places], self.keys[places])

    def of(self, panels: Sequence[str]) -> NDArray[np.bool_]:
        """(n, P) whether each panel is chosen; never, if panels are chains."""
        numbers = [_NUMBERS.get(frozenset(panel.split("-"))) for panel in panels]
        if not self.counts.any() or None in numbers:
            return np.zeros((len(self.counts), len(panels)), dtype=np.bool_)
        ranks = self.keys[:, np.array(numbers)].argsort(axis=1).argsort(axis=1)
        chosen: NDArray[np.bool_] = ranks < self.counts[:, None]
        return chosen


def choose_pairs(
    n_rows: int, strength: tuple[float, int], generator: np.random.Generator
) -> PairChoice:
    """Draws pairs for each row.

    Args:
        n_rows: of the global batch.
        strength: probability that pairs of a row are chosen, and their largest number; numbers
            are uniform from 1.
        generator: source of all draws; their number does not depend on the outcome.
    """
    probability, largest = strength
    chances = generator.random(n_rows)
    counts = generator.integers(1, largest, size=n_rows, endpoint=True)
    keys = generator.random((n_rows, len(_NUMBERS)))
    return PairChoice(np.where(chances < probability, counts, 0), keys)


def no_pairs(n_rows: int) -> PairChoice:
    """No pair of any row."""
    return PairChoice(np.zeros(n_rows, dtype=np.int64), np.zeros((n_rows, len(_NUMBERS))))
