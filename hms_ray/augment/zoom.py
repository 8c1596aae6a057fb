"""Time zoom: more or fewer seconds in the same number of positions."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.config.augmentation import TimeZoomConfig

Spans = NDArray[np.float64]


def plan_zooms(n_rows: int, config: TimeZoomConfig | None, generator: np.random.Generator) -> Spans:
    """Draws time zooms.

    Args:
        n_rows: of the global batch.
        config: probability and largest change; None: no zoom.
        generator: source of all draws; their number does not depend on the outcome.

    Returns:
        (n_rows,) seconds shown as shares of those of the window, 1 for rows without a zoom.
    """
    if config is None:
        return np.ones(n_rows)
    chances = generator.random(n_rows)
    spans = generator.uniform(1 - config.largest, 1 + config.largest, n_rows)
    return np.where(chances < config.probability, spans, 1.0)


def zoom_(windows: Tensor, spans: Spans) -> None:
    """Zooms the time axis of some windows around their middle, in place.

    Args:
        windows: (B, P, F, T).
        spans: (B,) shares of the window that are shown. Below 1, the middle positions are
            stretched; above 1, the window is compressed and NaN surround it. Both have as many
            positions as a whole number at each end allows, linear between positions.
    """
    n = windows.shape[3]
    for row in np.flatnonzero(spans != 1).tolist():
        window, span = windows[row], float(spans[row])
        if span < 1:
            cut = round(n * (1 - span) / 2)
            window.copy_(_resampled(window[..., cut : n - cut], n))
        else:
            cut = round(n * (1 - 1 / span) / 2)
            smaller = _resampled(window, n - 2 * cut)
            window.fill_(float("nan"))
            window[..., cut : n - cut] = smaller


def _resampled(window: Tensor, n: int) -> Tensor:
    return F.interpolate(window, size=n, mode="linear", align_corners=False)
