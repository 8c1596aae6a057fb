"""Mel spectrograms of the widely copied recipe, without a full Fourier transform.

Equal to ``librosa.feature.melspectrogram`` (1,024-point transform, periodic Hann window,
zero-padded and centred, frames centred on multiples of the hop, zeros beyond the ends, 128
Slaney mels from 0 to 20 Hz) followed by ``librosa.power_to_db``. Only the coefficients that a
mel band uses are computed, as matrix products over frames of the window's length. With time
counted from a frame's centre the window is even, so cosines need only the even part of a
frame and sines only its odd part: half the products. The time shift changes phases, not
magnitudes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.competition.schema import EEG_RATE_HZ
from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.signal.montage import PAIRS_PER_CHAIN
from hms_ray.signal.recipes import (
    FIXED_FLOOR_DB,
    FIXED_SCALE_DB,
    MEL_AMIN,
    MEL_HIGHEST_HZ,
    MEL_N_FFT,
    MEL_TOP_DB,
    N_MELS,
)


def mel_images(
    signals: Tensor, recipe: EegRecipe, n_frames: int, largest: Tensor | None = None
) -> Tensor:
    """Mel spectrograms in dB, averaged over the four signals of each chain.

    Args:
        signals: float32 (B, 4 P, n), microvolts, four signals per panel.
        recipe: of kind ``mel`` or ``mel_fixed``.
        n_frames: T, at most 1 + n // hop.
        largest: float32 (B, 4 P, 1, 1), power at 0 dB for ``mel``. Default: the largest
            power of each signal.

    Returns:
        float32 (B, P, 128, T), lowest frequency first. ``mel``: -1 to 1, more if power
        exceeds ``largest``; ``mel_fixed``: at least -6.
    """
    batch, n_signals, _ = signals.shape
    power = mel_power(signals, recipe.frame_samples, recipe.frame_hop, n_frames)
    if recipe.kind == "mel":
        image = _below_maximum(power, largest_power(power) if largest is None else largest)
    else:
        image = _above_fixed(power, recipe)
    shape = (batch, n_signals // PAIRS_PER_CHAIN, PAIRS_PER_CHAIN, *image.shape[-2:])
    return image.view(shape).mean(2)


def largest_power(power: Tensor) -> Tensor:
    """The (..., 1, 1) largest power of (..., F, T)."""
    return power.amax((-1, -2), keepdim=True)


def _below_maximum(power: Tensor, largest: Tensor) -> Tensor:
    """(dB + 40) / 40, with dB relative to ``largest`` and clipped at -``MEL_TOP_DB``."""
    floor = (largest * 10 ** (-MEL_TOP_DB / 10)).clamp(min=MEL_AMIN)
    reference = largest.clamp(min=MEL_AMIN).log10_()
    image = torch.maximum(power, floor).log10_().sub_(reference)
    return image.mul_(10 / (MEL_TOP_DB / 2)).add_(1)


def _above_fixed(power: Tensor, recipe: EegRecipe) -> Tensor:
    """DB / 10, relative to the mel power of white noise of 1 microvolt squared per hertz."""
    # |X|^2 of such noise is rate x sum(window^2), 3/8 of the samples for Hann; a mel band of
    # unit area sums one bin per rate / n_fft hertz.
    unit = EEG_RATE_HZ * recipe.frame_samples * 3 / 8 * (MEL_N_FFT / EEG_RATE_HZ)
    floor = unit * 10 ** (FIXED_FLOOR_DB / 10)
    image = power.clamp(min=floor).log10_().sub_(math.log10(unit))
    return image.mul_(10 / FIXED_SCALE_DB)


def mel_power(signals: Tensor, window: int, hop: int, n_frames: int) -> Tensor:
    """Power in each mel band.

    Args:
        signals: float32 (B, N, n), microvolts.
        window: samples per frame.
        hop: samples between the centres of frames; the first centre is at sample 0.
        n_frames: T, at most 1 + n // hop.

    Returns:
        float32 (B, N, 128, T), microvolts squared, scaled as in librosa.
    """
    bank = _bank(window, str(signals.device))
    batch, n_signals, n = signals.shape
    before = bank.before
    after = max(0, (n_frames - 1) * hop - before + window - n)
    padded = F.pad(signals.reshape(-1, n), (before, after))
    frames = padded.unfold(-1, window, hop)[:, :n_frames]
    half = (window - 1) // 2
    later, earlier = frames[..., window - half :], frames[..., 1 : half + 1].flip(-1)
    even = frames.new_empty(len(frames), n_frames, half + 1)
    even[..., 0] = frames[..., window // 2]
    torch.add(later, earlier, out=even[..., 1:])
    real = torch.matmul(bank.cosines, even.transpose(1, 2)).square_()
    imaginary = torch.matmul(bank.sines, (later - earlier).transpose(1, 2)).square_()
    power = real.add_(imaginary)
    mels = power[:, bank.low_bin].mul_(bank.low_weight)
    mels.addcmul_(power[:, bank.high_bin], bank.high_weight)
    return mels.reshape(batch, n_signals, N_MELS, n_frames)


@dataclass(frozen=True)
class _Bank:
    """Constants for a window length, on a device.

    Attributes:
        before: samples of a frame before its centre.
        cosines: (bins, 1 + (window - 1) // 2), windowed; first the centre sample (0 if the
            centre lies between two samples), then the samples after it.
        sines: (bins, (window - 1) // 2), windowed, for the samples after the centre.
        low_bin: (128,) first of the at most two rows of bins that a mel band uses.
        high_bin: (128,) second of them.
        low_weight: (128, 1).
        high_weight: (128, 1).
    """

    before: int
    cosines: Tensor
    sines: Tensor
    low_bin: Tensor
    high_bin: Tensor
    low_weight: Tensor
    high_weight: Tensor


@lru_cache(maxsize=16)
def _bank(window: int, device: str) -> _Bank:
    weights = mel_weights()
    bins = np.flatnonzero(weights.any(axis=0))
    # Sample 0 of a periodic Hann window is 0 and has no mirror image.
    after = np.arange(window - (window - 1) // 2, window) - window / 2
    time = np.concatenate([[0.0], after])
    hann = 0.5 + 0.5 * np.cos(2 * np.pi * time / window)
    hann[0] = 1 - window % 2
    angle = 2 * np.pi * np.outer(bins, time) / MEL_N_FFT
    # Mel bands are narrower than bins, so a triangle covers one bin or two neighbours.
    low = np.array([np.flatnonzero(row)[0] for row in weights[:, bins]])
    high = np.minimum(low + 1, len(bins) - 1)
    mels = np.arange(N_MELS)
    low_weight = weights[mels, bins[low]]
    high_weight = np.where(high > low, weights[mels, bins[high]], 0.0)

    def constant(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    return _Bank(
        before=MEL_N_FFT // 2 - (MEL_N_FFT - window) // 2,
        cosines=constant(np.cos(angle) * hann),
        sines=constant((np.sin(angle) * hann)[:, 1:]),
        low_bin=torch.from_numpy(low).to(device),
        high_bin=torch.from_numpy(high).to(device),
        low_weight=constant(low_weight[:, None]),
        high_weight=constant(high_weight[:, None]),
    )


def mel_weights() -> NDArray[np.float64]:
    """Triangular weights of the mel bands over the bins of the transform.

    Slaney's mel scale (Auditory Toolbox, 1998) is linear below 1,000 Hz, so the corners of the
    triangles are equidistant; each triangle has unit area over frequency.

    Returns:
        float64 (128, 513), 1 / Hz.
    """
    corners = np.linspace(0.0, MEL_HIGHEST_HZ, N_MELS + 2)
    frequencies = np.arange(MEL_N_FFT // 2 + 1) * EEG_RATE_HZ / MEL_N_FFT
    width = corners[1]
    distance = np.abs(frequencies - corners[1:-1, None])
    triangles: NDArray[np.float64] = np.maximum(0.0, 1 - distance / width) / width
    return triangles
