"""Shifts of magnified centres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hms_ray.config.augmentation import CentreShiftConfig


def plan_shifts(
    n_rows: int, config: CentreShiftConfig | None, generator: np.random.Generator
) -> NDArray[np.float64] | None:
    """Draws shifts of magnified centres.

    Args:
        n_rows: of the global batch.
        config: probability and largest shift; None: no shifts.
        generator: source of all draws; their number does not depend on the outcome.

    Returns:
        (n_rows,) seconds towards later times, 0 for rows that are not shifted; or None.
    """
    if config is None:
        return None
    chances = generator.random(n_rows)
    shifts_s = generator.uniform(-config.largest_s, config.largest_s, n_rows)
    return np.where(chances < config.probability, shifts_s, 0.0)
