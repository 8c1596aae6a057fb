"""A lower rate for signals, batched."""

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
"""The anti-aliasing filter of ``scipy.signal.resample_poly``: its length and window."""
_BLOCK: Final = 32
"""Results a matrix product makes at least of one frame; their inputs overlap."""


def resample(signals: Tensor, first: int, rate_hz: int, n_out: int) -> Tensor:
    """Signals at a lower rate, without what it cannot hold.

    Args:
        signals: float32 (..., n) at 200 Hz.
        first: sample at which the first result stands.
        rate_hz: 10 to 200.
        n_out: results; the last one stands within the signals.

    Returns:
        float32 (..., n_out): as ``scipy.signal.resample_poly``, but beyond their
        ends signals go on as their point reflection.
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
    """Samples ``start`` to ``stop`` of signals (N, n); point-reflected where there are none."""
    n = signals.shape[-1]
    parts = [signals[:, max(0, start) : min(n, stop)]]
    if start < 0:
        parts.insert(0, 2 * signals[:, :1] - signals[:, 1 : 1 - start].flip(-1))
    if stop > n:
        parts.append(2 * signals[:, -1:] - signals[:, 2 * n - 1 - stop : n - 1].flip(-1))
    return torch.cat(parts, -1)


@lru_cache(maxsize=16)
def _weights(up: int, down: int, together: int, device: str) -> Tensor:
    """Inputs of a frame -> its results, float32 (width, up x together).

    Result p stands p x down / up samples after the frame's sample ``reach``.
    """
    half = _HALF_LENGTH * max(up, down)
    # Late, since it takes most of a second and other recipes do without it.
    from scipy.signal import firwin

    taps = firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", _KAISER_BETA)) * up
    reach = math.ceil(half / up)
    inputs = np.arange(down * together + 2 * reach) - reach
    distance = np.arange(up * together) * down - inputs[:, None] * up
    weights = np.where(np.abs(distance) <= half, taps[np.clip(distance + half, 0, 2 * half)], 0.0)
    return torch.from_numpy(weights.astype(np.float32)).to(device)
