"""Narrower bands: raw signals are filtered, frequencies of spectrograms outside get the floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.config.eeg_recipes import EEG_RATE_HZ
from hms_ray.config.inputs import EegConfig, RawConfig, SourceConfig
from hms_ray.config.pair_recipes import PairsRecipe
from hms_ray.signal.on_device import on_device
from hms_ray.signal.recipes import FILTER_ORDER

_EXTENSION_S: Final = 2.0
"""Signals are extended by this at both ends: the slowest lower edge rings about that long."""
_CPU_SIGNALS: Final = 32
"""Signals filtered at once on a CPU: twice as fast as 145 (measured, 10,000 samples)."""

Bands = NDArray[np.float64]


@dataclass(frozen=True)
class Frequencies:
    """What a narrower band needs to know of the downsampled windows of a source.

    Attributes:
        rate_hz: sampling rate of raw signals; 0 for spectrograms.
        hz: (F,) frequencies of a spectrogram's rows; of mel bands, their middles.
        floor: value of power 0 in a spectrogram.
    """

    rate_hz: float
    hz: NDArray[np.float64]
    floor: float


def frequencies_of(config: SourceConfig) -> Frequencies | None:
    """The frequencies of a source; None for means over chains, which have no single pairs."""
    if isinstance(config, EegConfig):
        return None
    if isinstance(config, RawConfig):
        return Frequencies(config.rate_hz / config.downsample[1], np.zeros(0), 0.0)
    hz = rows_hz(config)
    # Other blocks are refused when packs are opened.
    block = config.downsample[0]
    blocks = hz[: len(hz) // block * block].reshape(-1, block)
    return Frequencies(0.0, blocks.mean(axis=1), config.floor)


def rows_hz(recipe: PairsRecipe) -> NDArray[np.float64]:
    """(F,) frequencies of the rows of a recipe's spectrograms, Hz."""
    if recipe.kind == "mel":
        return np.array(recipe.mel_corners_hz[1:-1])
    return np.arange(*recipe.bins) * EEG_RATE_HZ / recipe.transform_points


def narrow_(
    windows: Tensor, chosen: NDArray[np.bool_], bands_hz: Bands, frequencies: Frequencies
) -> None:
    """Narrows the band of some panels, in place.

    Args:
        windows: (B, P, F, T) contiguous; missing values (NaN) stay missing.
        chosen: (B, P) bool, panels to change.
        bands_hz: (B, 2) lower and upper edge of each row, Hz; 0 is no lower edge.
        frequencies: of the windows.
    """
    if not chosen.any():
        return
    flat = windows.view(-1, windows.shape[3])
    if frequencies.rate_hz:
        rows, panels = np.nonzero(chosen)
        lines, edges = rows * windows.shape[1] + panels, bands_hz[rows]
        signals, places = _lines(flat, lines)
        edges_hz = on_device(edges, windows.device, windows.dtype)
        at_once = len(signals) if signals.is_cuda else _CPU_SIGNALS
        parts = zip(torch.split(signals, at_once), torch.split(edges_hz, at_once), strict=True)
        changed = torch.cat([band_limited(*part, frequencies.rate_hz) for part in parts])
    else:
        low, high = bands_hz[:, :1], bands_hz[:, 1:]
        outside = (frequencies.hz < low) | (frequencies.hz > high)
        lines = np.flatnonzero(chosen[:, :, None] & outside[:, None, :])
        values, places = _lines(flat, lines)
        # A product keeps NaN.
        changed = values.mul_(0).add_(frequencies.floor)
    flat.index_copy_(0, places, changed)


def _lines(flat: Tensor, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Some rows of (N, T), and their numbers on its device."""
    places = on_device(numbers, flat.device)
    return flat.index_select(0, places), places


def band_limited(signals: Tensor, edges_hz: Tensor, rate_hz: float) -> Tensor:
    """Zero-phase Butterworth band-pass of signals with a band each, by Fourier transforms.

    The gain is that of ``scipy.signal.sosfiltfilt`` with a high-pass and a low-pass
    ``scipy.signal.butter`` of order n = ``FILTER_ORDER``: 1 / (1 + (w / w_high)^2n) times
    1 / (1 + (w_low / w)^2n) with w = tan(pi f / rate); one half at an edge. Signals are extended
    by their odd reflection, as SciPy does.

    Args:
        signals: (N, T) floating point; missing values (NaN) count as 0 and stay missing.
        edges_hz: (N, 2) lower and upper edges, Hz; 0 is no lower edge, and an upper edge above
            half of the rate has no effect.
        rate_hz: sampling rate.

    Returns:
        (N, T), a new tensor.
    """
    n = signals.shape[1]
    pad = min(n - 1, round(_EXTENSION_S * rate_hz))
    values = signals.nan_to_num(nan=0.0)
    before = 2 * values[:, :1] - values[:, 1 : pad + 1].flip(-1)
    after = 2 * values[:, -1:] - values[:, -pad - 1 : -1].flip(-1)
    extended = torch.cat([before, values, after], dim=1)
    spectrum = torch.fft.rfft(extended)
    share = torch.arange(spectrum.shape[1], device=signals.device) / extended.shape[1]
    warped = torch.tan(torch.pi * share.double()).to(signals.dtype)
    bent = torch.tan(torch.pi / rate_hz * edges_hz)
    bent = torch.where(2 * edges_hz < rate_hz, bent, torch.inf)
    low, high = bent[:, :1], bent[:, 1:]
    # Of a lower edge of 0, the ratio at 0 Hz would be 0 / 0.
    ratio = torch.where(low > 0, low / warped, 0.0)
    gain = 1 / ((1 + _power(warped / high)) * (1 + _power(ratio)))
    filtered = torch.fft.irfft(spectrum.mul_(gain), extended.shape[1])
    kept = filtered[:, pad : pad + n]
    return torch.where(signals.isnan(), signals, kept)


def _power(x: Tensor) -> Tensor:
    """X to twice the filter's order, by products: ten times as fast as a power of floats."""
    result = squared = x * x
    for _ in range(FILTER_ORDER - 1):
        result = result * squared
    return result
