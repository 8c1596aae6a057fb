"""Filling the gaps of signals."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from hms_ray.config.eeg_recipes import Gaps

MAX_UV: Final = 1e12
"""Larger absolute values are artefacts, and their power would overflow float32."""


def fill_gaps(signals: Tensor, policy: Gaps) -> Tensor:
    """Fills the gaps of signals.

    Args:
        signals: float32 (..., n), microvolts; NaN, infinite values and absolute values above
            ``MAX_UV`` are gaps.
        policy: ``mean`` of the signal's other samples; ``interpolate`` linearly between the
            neighbours of a gap, with the nearest value at the ends; ``zero``. A signal
            without any value becomes zeros.

    Returns:
        float32, same shape, finite; the input itself if it has no gap.
    """
    if not signals.numel():
        return signals
    # NaN stays NaN in both and fails the comparison.
    least, largest = torch.aminmax(signals)
    if bool((least >= -MAX_UV) & (largest <= MAX_UV)):
        return signals
    known = signals.abs() <= MAX_UV
    filled = torch.where(known, signals, 0.0)
    if policy == "zero":
        return filled
    if policy == "mean":
        count = known.sum(-1, keepdim=True).clamp(min=1)
        mean = filled.sum(-1, keepdim=True, dtype=torch.float64) / count
        return torch.where(known, signals, mean.to(signals.dtype))
    return _interpolate(filled, known)


def _interpolate(filled: Tensor, known: Tensor) -> Tensor:
    n = filled.shape[-1]
    place = torch.arange(n, device=filled.device).expand(filled.shape)
    before = torch.where(known, place, -1).cummax(-1).values
    after = torch.where(known, place, n).flip(-1).cummin(-1).values.flip(-1)
    # Before the first and after the last value, both neighbours are that value.
    left = torch.where(before < 0, after, before).clamp(max=n - 1)
    right = torch.where(after == n, before, after).clamp(min=0)
    share = (place - left) / (right - left).clamp(min=1)
    low, high = filled.gather(-1, left), filled.gather(-1, right)
    return torch.where(known, filled, torch.lerp(low, high, share.to(filled.dtype)))
