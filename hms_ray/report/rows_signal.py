"""An EEG as clinicians read it: bipolar channels, filtered, cut and reduced to a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, iirnotch, sosfiltfilt, tf2sos

from hms_ray.competition.schema import EEG_RATE_HZ, ELECTRODES
from hms_ray.config.electrodes import CHAINS, MIDLINE
from hms_ray.errors import DataError
from hms_ray.signal.montage import columns_of

Array = NDArray[np.float64]
Signals = NDArray[np.float32]

GROUPS: Final = (
    ("left temporal", CHAINS["LL"]),
    ("right temporal", CHAINS["RL"]),
    ("left parasagittal", CHAINS["LP"]),
    ("right parasagittal", CHAINS["RP"]),
    ("midline", MIDLINE),
)
"""The double banana: group -> its (anode, cathode) pairs from front to back."""
PAIRS: Final = tuple(pair for _, pairs in GROUPS for pair in pairs)
EKG: Final = "EKG"
CHANNELS: Final = (*(f"{anode}-{cathode}" for anode, cathode in PAIRS), EKG)
"""Names of the channels, in the order in which they are drawn."""

HIGH_PASS_HZ: Final = (0.0, 0.3, 0.5, 1.0, 5.0)
LOW_PASS_HZ: Final = (0.0, 15.0, 30.0, 40.0, 70.0)
NOTCH_HZ: Final = (0.0, 50.0, 60.0)
"""Selectable filters; 0 is off."""
_ORDER: Final = 2
"""Of the Butterworth filters in one direction; both directions make it 4, without delay."""
_NOTCH_QUALITY: Final = 30.0
"""Centre frequency by bandwidth: 2 Hz wide at 60 Hz."""
PAD_S: Final = 10
"""Filtered beside a cut, so that the ends of the filters lie outside of it."""


@dataclass(frozen=True)
class Filters:
    """Filters of a shown EEG, in Hz; 0 is off.

    Raises:
        DataError: if a value is not among the selectable ones.
    """

    high_pass_hz: float = 0.5
    low_pass_hz: float = 70.0
    notch_hz: float = 60.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("high-pass", self.high_pass_hz, HIGH_PASS_HZ),
            ("low-pass", self.low_pass_hz, LOW_PASS_HZ),
            ("notch", self.notch_hz, NOTCH_HZ),
        ):
            if value not in known:
                raise DataError(
                    f"the {name} filter must be one of {', '.join(f'{one:g}' for one in known)} Hz",
                    got=f"{value:g}",
                    fix="Use 0 to switch it off.",
                )

    def apply(self, signals: Array) -> Array:
        """Filters finite signals (channels, n) forwards and backwards, without delay."""
        for sections in self._sections():
            # SciPy's own padding, shortened for very short recordings.
            pad = min(3 * (2 * len(sections) + 1), signals.shape[-1] - 1)
            signals = sosfiltfilt(sections, signals, axis=-1, padlen=pad)
        return signals

    def _sections(self) -> list[Array]:
        rate, found = EEG_RATE_HZ, []
        if self.high_pass_hz:
            found.append(butter(_ORDER, self.high_pass_hz, "highpass", fs=rate, output="sos"))
        if self.low_pass_hz:
            found.append(butter(_ORDER, self.low_pass_hz, "lowpass", fs=rate, output="sos"))
        if self.notch_hz:
            found.append(tf2sos(*iirnotch(self.notch_hz, _NOTCH_QUALITY, fs=rate)))
        return found


def bipolar_channels(eeg: Signals) -> Array:
    """``CHANNELS`` of an EEG.

    Args:
        eeg: (n, 20) microvolts, columns in ``ELECTRODES`` order.

    Returns:
        float64 (channels, n), microvolts; NaN where an electrode of the pair has no signal.
    """
    anodes, cathodes = columns_of(PAIRS)
    values = np.asarray(eeg, np.float64).T
    return np.concatenate([values[anodes] - values[cathodes], values[[ELECTRODES.index(EKG)]]])


def cut_eeg(eeg: Signals, first: int, n: int, filters: Filters) -> Array:
    """Channels of a part of a recording, filtered.

    Filters see up to ``PAD_S`` more on each side. Gaps are interpolated for them and are NaN
    again afterwards. Without a high-pass filter the median of each channel is subtracted,
    since an offset would move it out of its place.

    Args:
        eeg: (samples, 20) microvolts, the whole recording; NaN is missing.
        first: first sample of the part.
        n: number of samples.
        filters: to apply.

    Returns:
        float64 (channels, n), microvolts, NaN where a signal is missing.

    Raises:
        DataError: if the part is not inside the recording.
    """
    if first < 0 or n <= 0 or first + n > len(eeg):
        seconds = len(eeg) / EEG_RATE_HZ
        raise DataError(
            "a window must lie inside its recording",
            got=f"{first / EEG_RATE_HZ:g} to {(first + n) / EEG_RATE_HZ:g} s of {seconds:g} s",
            fix="Name the folder that the study was made from: --data DIR",
        )
    begin = max(0, first - PAD_S * EEG_RATE_HZ)
    signals = bipolar_channels(eeg[begin : first + n + PAD_S * EEG_RATE_HZ])
    missing = ~np.isfinite(signals)
    inside = slice(first - begin, first - begin + n)
    part = filters.apply(_bridged(signals, missing))[:, inside]
    if not filters.high_pass_hz:
        part = part - np.median(part, axis=1, keepdims=True)
    return np.where(missing[:, inside], np.nan, part)


def _bridged(signals: Array, missing: NDArray[np.bool_]) -> Array:
    """Signals with their gaps interpolated linearly; 0 for a signal without any value."""
    filled = np.where(missing, 0.0, signals)
    place = np.arange(signals.shape[1])
    for channel in np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1)):
        gap = missing[channel]
        filled[channel, gap] = np.interp(place[gap], place[~gap], signals[channel, ~gap])
    return filled


@dataclass(frozen=True, eq=False)
class Reduced:
    """Signals reduced to what a screen can show.

    Attributes:
        values: float32 (channels, points), microvolts, NaN in gaps.
        per_point: samples per point: 1 if nothing was reduced, else half of a bin, whose
            smallest and largest value follow each other in their order in time.
        gaps: [channel, first sample, sample after the last one] of missing signal, to the
            width of a bin.
    """

    values: Signals
    per_point: float
    gaps: list[list[int]]


def reduce_signals(signals: Array, width: int) -> Reduced:
    """Smallest and largest value of each bin of samples, so that no spike is lost.

    Args:
        signals: (channels, n), NaN in gaps.
        width: pixels of the screen; there are at most about as many bins.
    """
    n_channels, n = signals.shape
    size = max(1, n // max(1, width))
    if size <= 2:  # a bin would hold no more than its smallest and largest value
        return Reduced(signals.astype(np.float32), 1.0, _gaps(np.isnan(signals), 1, n))
    n_bins = -(-n // size)
    padded = np.concatenate([signals, np.repeat(signals[:, -1:], n_bins * size - n, axis=1)], 1)
    bins = padded.reshape(n_channels, n_bins, size)
    missing = np.isnan(bins)
    low = np.where(missing, np.inf, bins)
    high = np.where(missing, -np.inf, bins)
    ends = np.stack([low.min(-1), high.max(-1)], -1)
    falls = high.argmax(-1) < low.argmin(-1)
    ends[falls] = ends[falls][:, ::-1]
    ends[missing.all(-1)] = np.nan
    values = ends.reshape(n_channels, 2 * n_bins).astype(np.float32)
    return Reduced(values, size / 2, _gaps(missing.any(-1), size, n))


def _gaps(missing: NDArray[np.bool_], size: int, n: int) -> list[list[int]]:
    edges = np.diff(np.pad(missing, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    found = []
    for channel in range(len(missing)):
        starts, ends = np.flatnonzero(edges[channel] == 1), np.flatnonzero(edges[channel] == -1)
        found += [
            [channel, int(start) * size, min(int(end) * size, n)]
            for start, end in zip(starts, ends, strict=True)
        ]
    return found
