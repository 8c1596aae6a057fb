"""Figures of recordings, simulated compared with real: log power, EEG amplitude, density.

Mean and deviation are computed like the published constants: per image of a training row (four
panels of 100 frequencies, 300 rows), then averaged over the rows. Their targets are those of the
full data, because the few real recordings are louder and steadier. All other targets are wide
bounds around four real EEGs, or the ranges measured on them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from hms_ray.competition.read import read_eeg, read_labels, read_spectrogram
from hms_ray.competition.rows import make_rows
from hms_ray.competition.schema import (
    EEG_RATE_HZ,
    ELECTRODES,
    FREQUENCIES_HZ,
    N_FREQUENCIES,
    PANELS,
    SPECTROGRAM_WINDOW_ROWS,
)
from hms_ray.config.electrodes import CHAINS
from hms_ray.signal.montage import bipolar
from hms_ray.simulate.folder import simulate_folder
from tests.benchmarks.simulator_labels import Line

LOG_FLOOR: Final = -4.0
LOG_CEILING: Final = 8.0
PERCENTILES: Final = (5, 25, 50, 75, 95, 99)
MIN_RATE: Final = 20.0
"""Patients per minute that two processes must write."""
EEG_HZ: Final = (1, 2, 4, 8, 12, 20, 40)
LOG_HZ: Final = (0.6, 1, 2, 4, 8, 12, 16, 19.9)
SLOPE_HZ: Final = (2.0, 20.0)
HERTZ: Final = np.array(FREQUENCIES_HZ)

Bounds = tuple[str, float, float]
"""``range`` with the smallest and largest value; ``near`` with a centre (NaN: the real value) and
the allowed distance; ``factor`` with NaN and the allowed ratio to the real value."""
NAN: Final = float("nan")
TARGETS: Final[dict[str, Bounds]] = {
    "log power of an image: mean": ("near", -0.083, 0.3),
    "log power of an image: deviation": ("near", 1.907, 0.2),
    "deviation of image means": ("range", 0.4, 1.1),
    "deviation over time at one frequency": ("near", NAN, 0.5),
    "deviation over frequency of the time mean": ("near", NAN, 0.35),
    "slope of log power, 2 to 20 Hz": ("near", NAN, 0.4),
    **{f"log power less the mean, {hz} Hz": ("near", NAN, 0.6) for hz in LOG_HZ},
    **{f"|bipolar| uV, {q}th percentile": ("factor", NAN, 2.5) for q in PERCENTILES},
    "|bipolar| uV, 50th percentile": ("range", 13, 26),
    "|bipolar| uV, 99th percentile": ("range", 42, 184),
    **{f"power density at {hz} Hz, uV^2/Hz": ("factor", NAN, 3.0) for hz in EEG_HZ},
    "slope of power density, 2 to 20 Hz": ("range", -1.8, -1.2),
    "correlation of adjacent electrodes": ("range", 0.6, 0.98),
    "log ratio of the sides' power, deviation": ("factor", NAN, 3.0),
    "60 Hz above its surroundings, EEGs' share": ("range", 0.3, 0.9),
}


def signal_lines(real: Path, simulated: Path) -> list[Line]:
    """All figures of two competition folders."""
    of_real, of_simulated = measure(real), measure(simulated)
    return [
        Line(name, value, of_simulated[name], *_limits(name, value))
        for name, value in of_real.items()
    ]


def _limits(name: str, real: float) -> tuple[float | None, float | None]:
    if name not in TARGETS:
        return None, None
    kind, first, second = TARGETS[name]
    if kind == "range":
        return first, second
    middle = real if np.isnan(first) else first
    if kind == "near":
        return middle - second, middle + second
    return middle / second, middle * second


def measure(folder: Path) -> dict[str, float]:
    """Name -> figure, over the spectrograms of all training rows and all EEGs of a folder."""
    return _spectrogram_figures(folder) | _eeg_figures(folder)


def images(folder: Path) -> Iterator[NDArray[np.float64]]:
    """The log power of each training row's and each test spectrogram, (300, 4, 100)."""
    for spectrogram, rows in make_rows(read_labels(folder)).groupby("spectrogram_id"):
        whole = read_spectrogram(folder / f"train_spectrograms/{spectrogram}.parquet")
        for start in rows["spectrogram_start"]:
            yield _log(whole[start : start + SPECTROGRAM_WINDOW_ROWS])
    for path in sorted((folder / "test_spectrograms").glob("*.parquet")):
        yield _log(read_spectrogram(path)[:SPECTROGRAM_WINDOW_ROWS])


def _log(power: NDArray[np.float32]) -> NDArray[np.float64]:
    clipped = np.clip(power.astype(np.float64), np.exp(LOG_FLOOR), np.exp(LOG_CEILING))
    result: NDArray[np.float64] = np.log(clipped).reshape(-1, len(PANELS), N_FREQUENCIES)
    return result


def _spectrogram_figures(folder: Path) -> dict[str, float]:
    moments, panels, over_time, profiles, squares = [], [], [], [], []
    for image in images(folder):
        moments.append((np.nanmean(image), np.nanstd(image)))
        panels.append((np.nanmean(image, axis=(0, 2)), np.nanstd(image, axis=(0, 2))))
        over_time.append(np.nanmean(np.nanstd(image, axis=0)))
        profiles.append(np.nanmean(image, axis=(0, 1)))
        squares.append(np.nanmean(image**2))
    means, deviations = np.array(moments).T
    profile = np.mean(profiles, axis=0)
    figures = {
        "training rows and test spectrograms": len(moments),
        "log power of an image: mean": means.mean(),
        "log power of an image: deviation": deviations.mean(),
        "log power of a panel: deviation": np.mean([deviation for _, deviation in panels]),
        "log power of all points: deviation": np.sqrt(np.mean(squares) - means.mean() ** 2),
        "deviation of image means": means.std(),
        "deviation over time at one frequency": np.mean(over_time),
        "deviation over frequency of the time mean": np.mean(np.std(profiles, axis=1)),
        "slope of log power, 2 to 20 Hz": _slope(HERTZ, np.exp(profile)),
    }
    for hz in LOG_HZ:
        nearest = np.abs(HERTZ - hz).argmin()
        figures[f"log power less the mean, {hz} Hz"] = profile[nearest] - profile.mean()
    return {name: float(value) for name, value in figures.items()}


def _slope(hertz: NDArray[np.float64], density: NDArray[np.float64]) -> float:
    """Exponent of the decrease, by least squares on both logarithms."""
    band = (hertz >= SLOPE_HZ[0]) & (hertz <= SLOPE_HZ[1])
    return float(np.polyfit(np.log(hertz[band]), np.log(density[band]), 1)[0])


def _eeg_figures(folder: Path) -> dict[str, float]:
    """Medians over EEGs of the figures of each EEG."""
    found = [
        figures
        for split in ("train", "test")
        for path in sorted((folder / f"{split}_eegs").glob("*.parquet"))
        if (figures := _of_eeg(read_eeg(path)))
    ]
    names = [name for name in found[0] if not name.startswith("_")]
    sides = np.std([figures["_sides"] for figures in found])
    hum = np.mean([figures["_hum"] > 2 for figures in found])
    return {
        "EEGs": float(len(found)),
        **{name: float(np.median([figures[name] for figures in found])) for name in names},
        "log ratio of the sides' power, deviation": float(sides),
        "60 Hz above its surroundings, EEGs' share": float(hum),
    }


def _of_eeg(eeg: NDArray[np.float32]) -> dict[str, float]:
    """Figures of one EEG without its gaps; empty if less than 20 s remain."""
    whole = eeg[~np.isnan(eeg).any(axis=1)]
    if len(whole) < 20 * EEG_RATE_HZ:
        return {}
    differences = bipolar(whole).reshape(16, -1)
    size = np.abs(differences - np.median(differences, axis=1, keepdims=True))
    hertz, by_pair = welch(differences, EEG_RATE_HZ, nperseg=2 * EEG_RATE_HZ, axis=-1)
    density = np.median(by_pair, axis=0)
    at = dict(zip(hertz.tolist(), density.tolist(), strict=True))
    left, right = (by_pair[rows][:, hertz > 0.5].sum(axis=1).mean() for rows in _sides())
    quantiles = (*PERCENTILES, 100)
    percentiles = zip(quantiles, np.percentile(size, quantiles), strict=True)
    return {
        **{f"|bipolar| uV, {q}th percentile": float(value) for q, value in percentiles},
        **{f"power density at {hz} Hz, uV^2/Hz": at[hz] for hz in EEG_HZ},
        "slope of power density, 2 to 20 Hz": _slope(hertz, density),
        "correlation of adjacent electrodes": _correlation(whole),
        "_sides": float(np.log(right / left)),
        "_hum": at[60] / np.sqrt(at[56] * at[64]),
    }


def _sides() -> tuple[list[int], list[int]]:
    """Rows of the sixteen differences on the left, and on the right."""
    rows = [panel for panel in PANELS for _ in CHAINS[panel]]
    left = [row for row, panel in enumerate(rows) if panel[0] == "L"]
    return left, [row for row in range(len(rows)) if row not in left]


def _correlation(eeg: NDArray[np.float32]) -> float:
    """Median correlation of the pairs of electrodes in the montage."""
    table = np.corrcoef(eeg.T)
    pairs = [
        table[ELECTRODES.index(a), ELECTRODES.index(c)]
        for chain in CHAINS.values()
        for a, c in chain
    ]
    return float(np.median(pairs))


def competition_folder(given: Path) -> Path:
    """The folder itself, or its subfolder ``competition`` if it exists."""
    return given / "competition" if (given / "competition").is_dir() else given


def simulated_lines(real: Path, n_patients: int, seed: int, processes: int) -> list[Line]:
    """Lines of a temporary simulated folder, and of the rate of simulation.

    The rate counts training patients only, although the time includes the test set.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        began = time.perf_counter()
        simulate_folder(folder, n_patients, seed, processes)
        seconds = time.perf_counter() - began
        lines = signal_lines(competition_folder(real), folder)
    return [*lines, rate_line(n_patients, seconds, processes)]


def rate_line(n_patients: int, seconds: float, processes: int) -> Line:
    """The rate; it has a limit only with two processes."""
    rate = 60 * n_patients / seconds
    return Line("patients per minute", MIN_RATE, rate, MIN_RATE if processes == 2 else None)
