"""Resampling of signals to a lower rate, batched."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hms_ray.competition.schema import EEG_RATE_HZ

_HALF_LENGTH: Final = 10
_KAISER_BETA: Final = 5.0
"""Length and window of the anti-aliasing filter of ``scipy.signal.resample_poly``."""
_BLOCK: Final = 32
"""Minimum number of results per frame; the input frames overlap."""


def resample(signals: Tensor, first: int, rate_hz: int, n_out: int) -> Tensor:
    """Resamples signals to a lower rate, with an anti-aliasing filter.

    Args:
        signals: float32 (..., n) at 200 Hz.
        first: sample of the first result.
        rate_hz: new rate, 10 to 200.
        n_out: number of results; the last one must lie within the signals.

    Returns:
        float32 (..., n_out): the result of ``scipy.signal.resample_poly``, except that
        signals are extended by point reflection at both ends.
    """
    if rate_hz == EEG_RATE_HZ:
        return signals[..., first : first + n_out]
    divisor = math.gcd(rate_hz, EEG_RATE_HZ)
    up, down = rate_hz // divisor, EEG_RATE_HZ // divisor
    together = math.ceil(_BLOCK / up)
    weights = _weights(up, down, together, str(signals.device))
    width, n_frames = len(weights), math.ceil(n_out / (up * together))
    start = first - (width - down * together) // 2
    stop = start + (n_frames - 1) * down * together + width
    frames = _extended(signals.reshape(-1, signals.shape[-1]), start, stop)
    made = frames.unfold(-1, width, down * together) @ weights
    return made.reshape(*signals.shape[:-1], -1)[..., :n_out]


def _extended(signals: Tensor, start: int, stop: int) -> Tensor:
    """Samples ``start`` to ``stop`` of signals (N, n), point-reflected beyond the ends."""
    n = signals.shape[-1]
    parts = [signals[:, max(0, start) : min(n, stop)]]
    if start < 0:
        parts.insert(0, 2 * signals[:, :1] - signals[:, 1 : 1 - start].flip(-1))
    if stop > n:
        parts.append(2 * signals[:, -1:] - signals[:, 2 * n - 1 - stop : n - 1].flip(-1))
    return torch.cat(parts, -1)


@lru_cache(maxsize=16)
def _weights(up: int, down: int, together: int, device: str) -> Tensor:
    """The float32 (width, up x together) matrix from the samples of a frame to its results.

    Result p lies p x down / up samples after sample ``reach`` of the frame.
    """
    half = _HALF_LENGTH * max(up, down)
    # Imported late: it takes most of a second, and other recipes do not need it.
    from scipy.signal import firwin

    taps = firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", _KAISER_BETA)) * up
    reach = math.ceil(half / up)
    inputs = np.arange(down * together + 2 * reach) - reach
    distance = np.arange(up * together) * down - inputs[:, None] * up
    weights = np.where(np.abs(distance) <= half, taps[np.clip(distance + half, 0, 2 * half)], 0.0)
    return torch.from_numpy(weights.astype(np.float32)).to(device)
