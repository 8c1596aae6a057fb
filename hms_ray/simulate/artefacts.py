"""What a scalp recording holds besides the brain: eyes, muscle, electrodes, mains, heart."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import EEG_RATE_HZ
from hms_ray.simulate.head import N_SCALP, SCALP, field
from hms_ray.simulate.noise import CONTROL_HZ, coloured, frequencies, slow_curve, to_samples

_MAINS_HZ: Final = 60.0
_TEMPORAL: Final = tuple(SCALP.index(name) for name in ("F7", "F8", "T3", "T4"))
_GAP_SHARE: Final = 0.06
_HEART_LEAK: Final = 0.003


def add_artefacts(signal: NDArray[np.float32], awake: bool, rng: np.random.Generator) -> None:
    """Add blinks, muscle, electrode pops and mains to a scalp recording, in place.

    Args:
        signal: (19, n_samples) float32, microvolts, in ``SCALP`` order.
        awake: whether the patient blinks and tenses often.
        rng: source of randomness.
    """
    _add_blinks(signal, rate_hz=rng.uniform(0.05, 0.3) if awake else rng.uniform(0, 0.02), rng=rng)
    _add_muscle(signal, strength=rng.lognormal(np.log(3 if awake else 1), 0.5), rng=rng)
    _add_movements(signal, per_minute=rng.gamma(1.0, 0.4), rng=rng)
    _add_pops(signal, rng)
    _add_mains(signal, rng)


def heart(signal: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The EKG channel; a trace of it leaks into the scalp channels, in place.

    Returns:
        (n_samples,) float32, microvolts.
    """
    n_samples = signal.shape[1]
    rate = rng.uniform(0.9, 1.8) * np.exp(0.05 * slow_curve(rng, n_samples // 40 + 2, 5.0))
    phase = np.cumsum(to_samples(rate, n_samples), dtype=np.float64) / EEG_RATE_HZ
    cycle = np.linspace(0, 1, 256, endpoint=False)
    beat = np.exp(-(((cycle - 0.3) / 0.012) ** 2)) - 0.25 * np.exp(
        -(((cycle - 0.335) / 0.015) ** 2)
    )
    beat += 0.2 * np.exp(-(((cycle - 0.6) / 0.05) ** 2)) + 0.1 * np.exp(
        -(((cycle - 0.15) / 0.03) ** 2)
    )
    wave = (rng.uniform(300, 1200) * beat).astype(np.float32)[(phase % 1 * 256).astype(np.int64)]
    signal += (rng.uniform(0, 2, N_SCALP) * _HEART_LEAK).astype(np.float32)[:, None] * wave
    return wave + 5 * rng.standard_normal(n_samples, dtype=np.float32)


def draw_gaps(n_samples: int, rng: np.random.Generator) -> list[slice]:
    """Stretches of 1-20 s in which the amplifier stored nothing; mostly none.

    They keep clear of the first and the last 20 s.
    """
    if rng.random() > _GAP_SHARE:
        return []
    margin = 20 * EEG_RATE_HZ
    gaps = []
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(margin, n_samples - 2 * margin))
        gaps.append(slice(start, start + int(rng.uniform(1, 20) * EEG_RATE_HZ)))
    return gaps


def _add_blinks(signal: NDArray[np.float32], rate_hz: float, rng: np.random.Generator) -> None:
    n_samples = signal.shape[1]
    frontal = field((0.0, 1.15), 0.4).astype(np.float32)
    frontal /= frontal.max()
    trace = np.zeros(n_samples, np.float32)
    length = int(0.35 * EEG_RATE_HZ)
    lid = np.sin(np.linspace(0, np.pi, length)).astype(np.float32) ** 2
    for start in rng.integers(
        0, n_samples - length, rng.poisson(rate_hz * n_samples / EEG_RATE_HZ)
    ):
        trace[start : start + length] += rng.uniform(60, 200) * lid
    signal += frontal[:, None] * trace


def _add_muscle(signal: NDArray[np.float32], strength: float, rng: np.random.Generator) -> None:
    n_samples = signal.shape[1]
    hertz = frequencies(n_samples)
    rise = (hertz / 25) ** 4
    density = strength**2 / 100 * rise / (1 + rise) * np.exp(-hertz / 60)
    bursts = np.exp(1.0 * slow_curve(rng, n_samples * CONTROL_HZ // EEG_RATE_HZ + 2, 4.0) - 0.5)
    tension = coloured(rng, len(_TEMPORAL), n_samples, density) * to_samples(bursts, n_samples)
    signal[list(_TEMPORAL)] += tension


def _add_movements(
    signal: NDArray[np.float32], per_minute: float, rng: np.random.Generator
) -> None:
    """Bursts of 1-6 s, broad in frequency and different at every electrode."""
    n_samples = signal.shape[1]
    for _ in range(rng.poisson(per_minute * n_samples / (60 * EEG_RATE_HZ))):
        length = int(rng.uniform(1, 6) * EEG_RATE_HZ)
        start = int(rng.integers(0, n_samples - length))
        hertz = frequencies(length)
        density = rng.lognormal(np.log(80), 0.8) / (1 + (hertz / 2) ** 1.5)
        burst = coloured(rng, N_SCALP, length, density) * np.hanning(length).astype(np.float32)
        spread = rng.gamma(1.0, 1.0, N_SCALP).astype(np.float32)
        signal[:, start : start + length] += spread[:, None] * burst


def _add_pops(signal: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Steps of one electrode that decay within a second."""
    n_samples = signal.shape[1]
    length = EEG_RATE_HZ
    for start in rng.integers(0, n_samples - length, rng.poisson(3)):
        decay = np.exp(-np.arange(length) / (EEG_RATE_HZ * rng.uniform(0.05, 0.3)))
        jump = rng.choice([-1, 1]) * rng.uniform(40, 400)
        signal[rng.integers(N_SCALP), start : start + length] += (jump * decay).astype(np.float32)


def _add_mains(signal: NDArray[np.float32], rng: np.random.Generator) -> None:
    time = np.arange(signal.shape[1]) / EEG_RATE_HZ
    hum = np.sin(2 * np.pi * _MAINS_HZ * time).astype(np.float32)
    signal += rng.gamma(1.5, 0.7, N_SCALP).astype(np.float32)[:, None] * hum
