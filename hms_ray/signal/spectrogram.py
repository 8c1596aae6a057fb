"""Spectrograms by the recipe of the competition's own files.

The recipe was recovered from real pairs of EEG and spectrogram files; the median absolute
residual of the natural log is about 0.005.

For each chain of the montage and each of its four differences: zero-phase Butterworth
high-pass (order 4, 0.5 Hz), windows of 800 samples every 400, three unit-energy DPSS tapers
(NW = 2), bins 3-102 of a 1,024-point Fourier transform, squared magnitude / sampling rate
(not doubled), mean over tapers and pairs, rounded to 0.01.
Multitaper estimate: Thomson, Proc. IEEE 70 (1982), 1055.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import (
    EEG_RATE_HZ,
    N_FREQUENCIES,
    PANELS,
    SPECTROGRAM_STEP_S,
)
from hms_ray.errors import DataError
from hms_ray.signal.montage import PAIRS_PER_CHAIN, bipolar, check_eeg

WINDOW_SAMPLES: Final = 4 * EEG_RATE_HZ
STEP_SAMPLES: Final = SPECTROGRAM_STEP_S * EEG_RATE_HZ
EEG_START_IN_SPECTROGRAM_S: Final = 275
"""Start of the EEG window (50 s) in the label's spectrogram window (600 s).

Both have the same centre: 600 / 2 = 275 + 50 / 2.
"""
FIRST_WINDOW_LEAD_S: Final = 1
"""Row 0 is centred at 1 s, so its window of 4 s starts 1 s before spectrogram time 0."""

N_FFT: Final = 1024
FIRST_BIN: Final = 3
TIME_BANDWIDTH: Final = 2.0
N_TAPERS: Final = 3
HIGHPASS_HZ: Final = 0.5
HIGHPASS_ORDER: Final = 4
DECIMALS: Final = 2

LOG_LOW: Final = -4.0
LOG_HIGH: Final = 8.0
"""Natural logs of the limits to which power is clipped, [e^-4, e^8] (published)."""


def competition_spectrogram(eeg: NDArray[np.floating]) -> NDArray[np.float32]:
    """The spectrogram of an EEG by the competition's recipe.

    Row j is computed from samples 400 j to 400 j + 800, so it is centred at 2 j + 2 seconds
    of ``eeg``. Row i of a spectrogram file is centred at 2 i + 1 seconds of the file's time:
    for a whole file, ``eeg`` must start one second before the file's time 0 and end one
    second after its end. Rows within about 5 s of either end of ``eeg`` have edge effects of
    the filter.

    Args:
        eeg: floating point (n_samples, 20), 200 Hz, microvolts, columns in ``ELECTRODES``
            order, at least 800 samples. NaN is interpolated before filtering; rows and
            panels whose window has NaN in one of their electrodes are NaN.

    Returns:
        float32 (n_samples // 400 - 1, 400), microvolts squared per hertz (one-sided, not
        doubled), at least 0, columns in ``SPECTROGRAM_COLUMNS`` order.

    Raises:
        DataError: if ``eeg`` has another shape or dtype, or is shorter than one window.
    """
    differences = bipolar(eeg)
    n_samples = differences.shape[-1]
    _require_a_window(n_samples)
    signals = differences.reshape(-1, n_samples).astype(np.float64)
    gaps = ~np.isfinite(signals)
    has_gaps = bool(gaps.any())
    if has_gaps:
        _interpolate(signals, gaps)
    # Imported late: it takes most of a second, and other recipes do not need it.
    from scipy.signal import sosfiltfilt

    filtered = sosfiltfilt(_highpass(), signals, axis=-1).astype(np.float32)
    power = _multitaper(filtered)
    if has_gaps:
        power[_frames(gaps).any(axis=-1)] = np.nan
    n_rows = power.shape[1]
    panels = power.reshape(len(PANELS), PAIRS_PER_CHAIN, n_rows, N_FREQUENCIES).mean(axis=1)
    rows = panels.transpose(1, 0, 2).reshape(n_rows, len(PANELS) * N_FREQUENCIES)
    rounded: NDArray[np.float32] = np.round(rows.astype(np.float64), DECIMALS).astype(np.float32)
    return rounded


def recording_spectrogram(eeg: NDArray[np.floating]) -> NDArray[np.float32]:
    """The rows of a spectrogram file for a whole recording.

    Row i is centred at 2 i + 1 seconds of ``eeg``, as in the competition's files. The first
    and the last window extend up to one second beyond the recording, which is mirrored.

    Args:
        eeg: floating point (n_samples, 20), see ``competition_spectrogram``.

    Returns:
        float32 (n_samples // 400, 400), see ``competition_spectrogram``.

    Raises:
        DataError: see ``competition_spectrogram``.
    """
    check_eeg(eeg)
    n_samples = eeg.shape[0]
    _require_a_window(n_samples)
    lead = FIRST_WINDOW_LEAD_S * EEG_RATE_HZ
    end = n_samples // STEP_SAMPLES * STEP_SAMPLES + lead
    padding = ((lead, max(0, end - n_samples)), (0, 0))
    return competition_spectrogram(np.pad(eeg, padding, mode="reflect"))


def _require_a_window(n_samples: int) -> None:
    if n_samples < WINDOW_SAMPLES:
        raise DataError(
            f"an EEG must have at least {WINDOW_SAMPLES} samples to make a spectrogram",
            got=n_samples,
        )


def _interpolate(signals: NDArray[np.float64], gaps: NDArray[np.bool_]) -> None:
    """Interpolates NaN linearly between its neighbours, in place."""
    for signal, gap in zip(signals, gaps, strict=True):
        if gap.all():
            signal[:] = 0.0
        elif gap.any():
            known = np.flatnonzero(~gap)
            signal[gap] = np.interp(np.flatnonzero(gap), known, signal[known])


def _frames(signals: NDArray[np.generic]) -> NDArray[np.generic]:
    """A view of shape (n_signals, n_rows, 800) over overlapping windows."""
    windows = np.lib.stride_tricks.sliding_window_view(signals, WINDOW_SAMPLES, axis=-1)
    return windows[:, ::STEP_SAMPLES]


@cache
def _highpass() -> NDArray[np.float64]:
    from scipy.signal import butter

    sections: NDArray[np.float64] = butter(
        HIGHPASS_ORDER, HIGHPASS_HZ, "highpass", fs=EEG_RATE_HZ, output="sos"
    )
    return sections


@cache
def _basis() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tapered cosines and sines for the even and the odd part of a window.

    With time counted from the window's centre, tapers 0 and 2 are even and taper 1 is odd, so
    each tapered cosine or sine needs only one part of the window: half the products of a full
    transform. The time shift changes phases, not magnitudes.

    Returns:
        Two arrays (400, 300), one row per sample of the window's second half; column k of
        both arrays gives real and imaginary part of one coefficient.
    """
    from scipy.signal.windows import dpss

    half = WINDOW_SAMPLES // 2
    time = np.arange(half) + 0.5
    bins = np.arange(FIRST_BIN, FIRST_BIN + N_FREQUENCIES)
    angle = 2 * np.pi * np.outer(time, bins) / N_FFT
    tapers = dpss(WINDOW_SAMPLES, TIME_BANDWIDTH, N_TAPERS)[:, half:]
    cosine, sine = np.cos(angle), np.sin(angle)
    even = np.hstack([t[:, None] * w for t, w in zip(tapers, (cosine, sine, cosine), strict=True)])
    odd = np.hstack([t[:, None] * w for t, w in zip(tapers, (sine, cosine, sine), strict=True)])
    scale = 1 / np.sqrt(EEG_RATE_HZ * N_TAPERS)
    return (even * scale).astype(np.float32), (odd * scale).astype(np.float32)


def _multitaper(signals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean power over tapers: (n_signals, n_samples) -> (n_signals, n_rows, 100)."""
    even_basis, odd_basis = _basis()
    frames = _frames(signals)
    half = WINDOW_SAMPLES // 2
    later, earlier = frames[..., half:], frames[..., half - 1 :: -1]
    power = np.empty((*frames.shape[:2], N_FREQUENCIES), np.float32)
    for signal in range(frames.shape[0]):  # one signal at a time stays in the cache
        even = (later[signal] + earlier[signal]) @ even_basis
        odd = (later[signal] - earlier[signal]) @ odd_basis
        squared = even * even + odd * odd
        power[signal] = squared.reshape(-1, N_TAPERS, N_FREQUENCIES).sum(axis=1)
    return power
