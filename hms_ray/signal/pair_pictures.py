"""Spectrograms of single electrode pairs: mel power and power density, on fixed scales.

``mel`` equals ``librosa.feature.melspectrogram`` (``htk=True, norm=None,
pad_mode="reflect"`` for torchaudio's defaults), ``stft`` equals ``scipy.signal.spectrogram``
with its own defaults. Only the bins in use are computed, as matrix products over frames of the
window's length. With time counted from a frame's middle the taper is even, so cosines need only
the even part of a frame and sines only its odd part: half the products. The time shift changes
phases, not power.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.competition.schema import EEG_RATE_HZ
from hms_ray.config.pair_recipes import PairsRecipe
from hms_ray.signal.recipes import TUKEY_SHARE

_LOG10: Final = float(np.log(10.0))
_CPU_VALUES: Final = 500_000
"""Values of frames and of their power that stay in a core's cache (measured)."""
_MELS_AT_ONCE: Final = 8
"""Neighbouring mel bands share few bins: products of this many skip most of the zeros."""


def pair_images(
    signals: Tensor, recipe: PairsRecipe, n_frames: int, out: Tensor | None = None
) -> Tensor:
    """Scaled spectrograms of signals.

    Args:
        signals: float32 (B, P, n), microvolts.
        recipe: frames, frequencies and scale.
        n_frames: T, from the recipe's first kept frame on.
        out: contiguous float32 (B, P, F, T) to write into.

    Returns:
        float32 (B, P, F, T), lowest frequency first; ``out`` if it is given.
    """
    batch, n_signals, n = signals.shape
    flat = signals.reshape(-1, n)
    bank = _bank(_unscaled(recipe), str(flat.device))
    shape = (batch, n_signals, recipe.n_frequencies, n_frames)
    made = flat.new_empty(shape) if out is None else out
    images = made.view(-1, *shape[2:])
    values_each = n_frames * (recipe.frame_samples // 2 + 2 * len(bank.cosines))
    at_once = len(flat) if flat.is_cuda else max(1, _CPU_VALUES // values_each)
    for start in range(0, len(flat), at_once):
        part = slice(start, start + at_once)
        scaled = flat[part] if recipe.scale_uv == 1 else flat[part] / recipe.scale_uv
        frames = _frames(scaled, recipe, n_frames)
        values = _scaled(_power(frames, bank), recipe)
        images[part] = values.view(-1, len(frames), n_frames).transpose(0, 1)
    return made


def _frames(flat: Tensor, recipe: PairsRecipe, n_frames: int) -> Tensor:
    """A view (N, T, window) of signals (N, n), which are extended for ``mel``."""
    n, window, hop = flat.shape[1], recipe.frame_samples, recipe.frame_hop
    if recipe.kind == "mel":
        # librosa centres a zero-padded frame of n_fft on multiples of the hop.
        points = recipe.transform_points
        before = points // 2 - (points - window) // 2
        needed = (recipe.skipped_frames + n_frames - 1) * hop - before + window
        mode = "reflect" if recipe.mels == "torchaudio" else "constant"
        flat = F.pad(flat, (before, max(0, needed - n)), mode)
    first = recipe.skipped_frames * hop
    return flat[:, first:].unfold(-1, window, hop)[:, :n_frames]


def _power(frames: Tensor, bank: _Bank) -> Tensor:
    """(F, N * T) of frames (N, T, window)."""
    n, n_frames, window = frames.shape
    half = (window - 1) // 2
    later, earlier = frames[..., window - half :], frames[..., 1 : half + 1].flip(-1)
    even = frames.new_empty(n, n_frames, half + 2)
    even[..., 0] = frames[..., 0]
    even[..., 1] = frames[..., window // 2]
    torch.add(later, earlier, out=even[..., 2:])
    odd = later - earlier
    power = torch.mm(bank.cosines, even.view(-1, half + 2).T).square_()
    imaginary = torch.mm(bank.sines, odd.view(-1, half).T)
    power.addcmul_(imaginary, imaginary)
    if not bank.mels:
        return power
    mels = power.new_empty(sum(len(part) for _, part in bank.mels), power.shape[1])
    for (bins, part), rows in zip(bank.mels, torch.split(mels, _MELS_AT_ONCE), strict=True):
        torch.mm(part, power[bins], out=rows)
    return mels


def _scaled(power: Tensor, recipe: PairsRecipe) -> Tensor:
    """Power on the recipe's scale, in place."""
    if recipe.reference_power != 1:
        power = power.div_(recipe.reference_power)
    if recipe.power_scale == "log1p":
        values = power.log1p_()
    else:
        values = power.clamp_(min=recipe.smallest_power).log_()
        if recipe.power_scale == "db":
            values = values.mul_(10 / _LOG10)
    if recipe.clip_values is not None:
        values = values.clamp_(*recipe.clip_values)
    if recipe.subtract:
        values = values.sub_(recipe.subtract)
    return values if recipe.divide == 1 else values.div_(recipe.divide)


@dataclass(frozen=True)
class _Bank:
    """Constants of a recipe, on a device.

    Attributes:
        cosines: (bins, 2 + (window - 1) // 2), tapered: the first sample of a frame, the middle
            one (unused if the middle lies between two samples), then those after the middle.
        sines: (bins, (window - 1) // 2), tapered, for the samples after the middle.
        mels: bins of some neighbouring mel bands and weights (m, bins), band by band; empty
            if bins are the result.
    """

    cosines: Tensor
    sines: Tensor
    mels: tuple[tuple[slice, Tensor], ...]


def _unscaled(recipe: PairsRecipe) -> PairsRecipe:
    """What decides the constants, so that other recipes share them."""
    names = ("kind", "window_samples", "n_fft", "frequencies_hz", "n_mels", "mels")
    return PairsRecipe.model_construct(**{name: getattr(recipe, name) for name in names})


@lru_cache(maxsize=16)
def _bank(recipe: PairsRecipe, device: str) -> _Bank:
    window, (first, stop) = recipe.frame_samples, recipe.bins
    bins = np.arange(first, stop)
    half = (window - 1) // 2
    samples = np.concatenate([[0, window // 2], np.arange(window - half, window)])
    angle = 2 * np.pi * np.outer(bins, samples - window / 2) / recipe.transform_points
    taper = _taper(recipe)
    cosines, sines = taper[samples] * np.cos(angle), (taper[samples] * np.sin(angle))[:, 2:]
    triangles = np.zeros((0, len(bins)))
    if recipe.kind == "stft":
        # One-sided: bins between 0 and half the rate stand for two.
        doubled = np.where((bins > 0) & (2 * bins < recipe.transform_points), 2.0, 1.0)
        scale = np.sqrt(doubled / (EEG_RATE_HZ * np.sum(taper**2)))[:, None]
        # Rows without a mean see frames without their mean; sines have none.
        whole = cosines[:, 2:].sum(1) * 2 + (cosines[:, 1] if window % 2 == 0 else 0)
        cosines -= whole[:, None] / window
        cosines, sines = cosines * scale, sines * scale
    else:
        triangles = _mel_triangles(recipe, bins)
    if window % 2:
        cosines[:, 1] = 0  # counted among the samples before and after the middle

    def constant(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    mels = []
    for start in range(0, len(triangles), _MELS_AT_ONCE):
        part = triangles[start : start + _MELS_AT_ONCE]
        used = np.flatnonzero(part.any(axis=0))
        span = slice(int(used[0]), int(used[-1]) + 1)
        mels.append((span, constant(np.ascontiguousarray(part[:, span]))))
    return _Bank(constant(cosines), constant(sines), tuple(mels))


def _taper(recipe: PairsRecipe) -> NDArray[np.float64]:
    """The periodic taper of a frame; sample 0 is 0 and has no mirror image."""
    window = recipe.frame_samples
    phase = np.arange(window) / window
    if recipe.kind == "mel":
        hann: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
        return hann
    edge = np.minimum(np.minimum(phase, 1 - phase) * 2 / TUKEY_SHARE, 1.0)
    tukey: NDArray[np.float64] = 0.5 - 0.5 * np.cos(np.pi * edge)
    return tukey


def _mel_triangles(recipe: PairsRecipe, bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Float64 (n_mels, bins) weights: of height 1, or of unit area over frequency."""
    corners = np.array(recipe.mel_corners_hz)[:, None]
    hertz = bins * EEG_RATE_HZ / recipe.transform_points
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    triangles: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    return triangles * 2 / (high - low) if recipe.mels == "librosa" else triangles
