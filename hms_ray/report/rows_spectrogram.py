"""Spectrograms of a row as images of bytes: the competition's own, and those of its EEG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import spectrogram

from hms_ray.competition.schema import (
    EEG_RATE_HZ,
    EEG_WINDOW_SAMPLES,
    FREQUENCIES_HZ,
    N_FREQUENCIES,
    PANELS,
    SPECTROGRAM_STEP_S,
    SPECTROGRAM_WINDOW_ROWS,
)
from hms_ray.errors import DataError
from hms_ray.signal.montage import bipolar

MISSING: Final = 255
"""Byte of a cell without a number."""
_BRIGHTEST: Final = 254
_CLIP_PERCENT: Final = (1.0, 99.0)
"""Percentiles of the finite values that become the darkest and the brightest byte."""
_FRAME_S: Final = 2
_HOP_S: Final = 0.25
_MAX_HZ: Final = 20
"""Of the EEG's spectrogram, as in the competition's."""


@dataclass(frozen=True, eq=False)
class PowerImages:
    """Power of the four chains on a logarithmic scale.

    Attributes:
        cells: uint8 (4, frequencies, times), lowest frequency first; ``MISSING`` is no number.
        decibels: power of the darkest and of the brightest byte, 10 log10 of the unit.
        start_s, end_s: times of the left and the right edge, in seconds of the recording.
        max_hz: highest frequency.
        unit: of the power.
    """

    cells: NDArray[np.uint8]
    decibels: tuple[float, float]
    start_s: float
    end_s: float
    max_hz: float
    unit: str


def kaggle_images(values: NDArray[np.float32], first: int) -> PowerImages:
    """The ten minutes of a row from its spectrogram file.

    Args:
        values: (rows, 400) power, one row per 2 s, see ``read_spectrogram``.
        first: first of the 300 rows.

    Raises:
        DataError: if they are not inside the recording.
    """
    end = first + SPECTROGRAM_WINDOW_ROWS
    if first < 0 or end > len(values):
        raise DataError(
            "a window must lie inside its recording",
            got=f"spectrogram rows {first} to {end} of {len(values)}",
            fix="Name the folder that the study was made from: --data DIR",
        )
    power = values[first:end].reshape(-1, len(PANELS), N_FREQUENCIES).transpose(1, 2, 0)
    cells, decibels = _bytes(power)
    return PowerImages(
        cells,
        decibels,
        first * SPECTROGRAM_STEP_S,
        end * SPECTROGRAM_STEP_S,
        FREQUENCIES_HZ[-1],
        "as in the file",
    )


def eeg_images(eeg: NDArray[np.float32], first: int) -> PowerImages:
    """Spectrograms of a row's 50 s of EEG: the mean power of each chain's four pairs.

    Hann windows of 2 s, every 0.25 s, up to 20 Hz, in microvolts squared per Hz. A window with
    a missing sample has no number.

    Args:
        eeg: (samples, 20) microvolts, the whole recording.
        first: first sample of the 50 s.

    Raises:
        DataError: if they are not inside the recording.
    """
    if first < 0 or first + EEG_WINDOW_SAMPLES > len(eeg):
        raise DataError(
            "a window must lie inside its recording",
            got=f"samples {first} to {first + EEG_WINDOW_SAMPLES} of {len(eeg)}",
            fix="Name the folder that the study was made from: --data DIR",
        )
    signals = bipolar(np.asarray(eeg[first : first + EEG_WINDOW_SAMPLES], np.float64))
    frame = _FRAME_S * EEG_RATE_HZ
    hop = int(_HOP_S * EEG_RATE_HZ)
    _, _, density = spectrogram(
        signals, EEG_RATE_HZ, "hann", frame, frame - hop, detrend="constant", scaling="density"
    )
    # Without 0 Hz, of which the detrended signal has nothing.
    power = density[:, :, 1 : _MAX_HZ * _FRAME_S + 1].mean(axis=1)
    cells, decibels = _bytes(power)
    begin = first / EEG_RATE_HZ
    half = _FRAME_S / 2
    return PowerImages(
        cells,
        decibels,
        begin + half,
        begin + EEG_WINDOW_SAMPLES / EEG_RATE_HZ - half,
        _MAX_HZ,
        "uV^2/Hz",
    )


def _bytes(power: NDArray[np.floating]) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    known = np.isfinite(power)
    positive = known & (power > 0)
    if not positive.any():
        return np.where(known, 0, MISSING).astype(np.uint8), (0.0, 1.0)
    level = 10 * np.log10(np.where(positive, power, power[positive].min()))
    low, high = np.percentile(level[positive], _CLIP_PERCENT)
    high = max(high, low + 1.0)
    cells = np.clip((level - low) / (high - low), 0, 1) * _BRIGHTEST
    return np.where(known, np.rint(cells), MISSING).astype(np.uint8), (float(low), float(high))
