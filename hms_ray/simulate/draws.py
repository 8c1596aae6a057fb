"""A fast draw from a few categories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pick(shares: Sequence[float], rng: np.random.Generator) -> int:
    """Draw a position with the given shares, which need not sum to 1.

    ``Generator.choice`` takes twenty times as long for so few positions.
    """
    left = rng.random() * sum(shares)
    for position, share in enumerate(shares):
        left -= share
        if left < 0:
            return position
    return max(position for position, share in enumerate(shares) if share > 0)
