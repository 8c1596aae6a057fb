"""Artefacts of a scalp recording: eyes, muscle, electrodes, mains, heart.

Sizes: blinks 100-300 uV at the forehead, muscle 20-100 Hz, strongest at the temples; the
shares of bad electrodes and of recordings with mains are estimated from a few real recordings.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import EEG_RATE_HZ
from hms_ray.simulate.noise import CONTROL_HZ, coloured, frequencies, slow_curve, to_samples
from hms_ray.simulate.scalp import N_SCALP, SCALP, field

# The real recordings have no aliased multiples of 60 Hz: the amplifiers filtered them out,
# so only the line itself is simulated.
_MAINS_HZ: Final = 60.0
_MAINS_SHARE: Final = 0.65
"""Share of recordings stored without a notch filter."""
_MUSCLE: Final = {
    "left temple": {"F7": 0.8, "T3": 1.0, "T5": 0.4},
    "right temple": {"F8": 0.8, "T4": 1.0, "T6": 0.4},
    "forehead": {"Fp1": 1.0, "Fp2": 1.0, "F7": 0.3, "F8": 0.3},
    "neck": {"O1": 0.7, "O2": 0.7, "T5": 0.5, "T6": 0.5},
}
"""Muscle -> electrode near it -> share of the muscle's amplitude there."""
_BAD_SHARE: Final = 0.3
"""Share of recordings with a temporarily loose electrode."""
_GAP_SHARE: Final = 0.06
_HEART_LEAK: Final = 0.003


def add_artefacts(signal: NDArray[np.float32], awake: bool, rng: np.random.Generator) -> None:
    """Add eyes, muscle, movement, electrode noise and mains to a scalp recording, in place.

    The recording is (19, n_samples) float32, microvolts, in ``SCALP`` order. A patient who
    is awake blinks and tenses often.
    """
    n_samples = signal.shape[1]
    rate = rng.uniform(0.05, 0.3) if awake else rng.uniform(0, 0.02)
    traces = [_blinks(n_samples, rate, rng), _glances(n_samples, rate, rng), _mains(n_samples, rng)]
    eyes = (field((0.0, 1.15), 0.35), field((0.9, 0.75), 0.3) - field((-0.9, 0.75), 0.3))
    fields = [shape / shape.max() for shape in eyes]
    hum = rng.lognormal(np.log(1.5), 0.8) if rng.random() < _MAINS_SHARE else 0.0
    fields.append(hum * rng.gamma(1.5, 0.7, N_SCALP))
    signal += np.array(fields, np.float32).T @ np.vstack(traces)
    _add_muscle(signal, strength=rng.lognormal(np.log(3 if awake else 1), 0.6), rng=rng)
    _add_contact_noise(signal, rng)
    _add_movements(signal, per_minute=rng.gamma(0.7, 1.2), rng=rng)
    _add_pops(signal, rng)
    if rng.random() < _BAD_SHARE:
        _add_bad_electrode(signal, traces[-1], rng)


def heart(signal: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the EKG channel and add a small part of it to the scalp channels, in place.

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
    for channel, leak in zip(signal, rng.uniform(0, 2 * _HEART_LEAK, N_SCALP), strict=True):
        channel += np.float32(leak) * wave
    return wave + 5 * rng.standard_normal(n_samples, dtype=np.float32)


def draw_gaps(n_samples: int, rng: np.random.Generator) -> list[slice]:
    """Draw the gaps of 1-20 s in which nothing was recorded; most recordings have none.

    None is in the first or the last 20 s.
    """
    if rng.random() > _GAP_SHARE:
        return []
    margin = 20 * EEG_RATE_HZ
    gaps = []
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(margin, n_samples - 2 * margin))
        gaps.append(slice(start, start + int(rng.uniform(1, 20) * EEG_RATE_HZ)))
    return gaps


def _starts(
    n_samples: int, length: int, rate_hz: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random starts of events of ``length`` samples."""
    n_events = rng.poisson(rate_hz * n_samples / EEG_RATE_HZ)
    starts: NDArray[np.int64] = rng.integers(0, n_samples - length, n_events)
    return starts


def _blinks(n_samples: int, rate_hz: float, rng: np.random.Generator) -> NDArray[np.float32]:
    trace = np.zeros(n_samples, np.float32)
    length = int(0.35 * EEG_RATE_HZ)
    lid = np.sin(np.linspace(0, np.pi, length)).astype(np.float32) ** 2
    for start in _starts(n_samples, length, rate_hz, rng):
        trace[start : start + length] += rng.uniform(100, 300) * lid
    return trace


def _glances(n_samples: int, rate_hz: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Eye movements to a side: steps that decay because of the amplifier's high-pass."""
    trace = np.zeros(n_samples, np.float32)
    length = 2 * EEG_RATE_HZ
    decay = np.exp(-np.arange(length) / (0.7 * EEG_RATE_HZ)).astype(np.float32)
    for start in _starts(n_samples, length, rate_hz, rng):
        trace[start : start + length] += rng.choice([-1, 1]) * rng.uniform(20, 120) * decay
    return trace


def _mains(n_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The mains with amplitude 1."""
    phase = rng.random() + _MAINS_HZ / EEG_RATE_HZ * np.arange(n_samples)
    hum: NDArray[np.float32] = np.sin((2 * np.pi * (phase % 1)).astype(np.float32))
    return hum


def _add_muscle(signal: NDArray[np.float32], strength: float, rng: np.random.Generator) -> None:
    """Add muscle activity; each muscle tenses independently, for seconds within minutes."""
    n_samples = signal.shape[1]
    rise = (frequencies(n_samples) / 22) ** 3
    density = strength**2 / 100 * rise / (1 + rise) * np.exp(-frequencies(n_samples) / 60)
    noise = _twice(coloured(rng, 1, n_samples, density)[0])
    n_points = n_samples * CONTROL_HZ // EEG_RATE_HZ + 2
    for electrodes in _MUSCLE.values():
        spells = slow_curve(rng, n_points, 4.0) + 0.7 * slow_curve(rng, n_points, 90.0)
        tension = to_samples(rng.lognormal(-0.5, 0.8) * np.exp(1.2 * spells - 0.8), n_samples)
        for name, share in electrodes.items():
            _add_section(signal[SCALP.index(name)], share * tension, noise, rng)


def _add_contact_noise(signal: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Add white noise of skin and amplifier, with its own strength at each electrode."""
    n_samples = signal.shape[1]
    noise = _twice(rng.standard_normal((n_samples,), dtype=np.float32))
    level = rng.lognormal(np.log(1.7), 0.35)
    for channel, strength in zip(signal, level * rng.lognormal(0, 0.4, N_SCALP), strict=True):
        _add_section(channel, np.float32(strength), noise, rng)


def _twice(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([noise, noise])


def _add_section(
    channel: NDArray[np.float32],
    strength: NDArray[np.float32] | np.float32,
    noise: NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    """Add a random section of the noise, so that one draw serves many electrodes."""
    start = int(rng.integers(len(noise) - len(channel)))
    channel += strength * noise[start : start + len(channel)]


def _add_movements(
    signal: NDArray[np.float32], per_minute: float, rng: np.random.Generator
) -> None:
    """Add bursts of seconds with a broad spectrum, different at each electrode."""
    n_samples = signal.shape[1]
    for _ in range(rng.poisson(per_minute * n_samples / (60 * EEG_RATE_HZ))):
        length = int(min(20.0, rng.lognormal(np.log(3), 0.7)) * EEG_RATE_HZ)
        start = int(rng.integers(0, n_samples - length))
        hertz = frequencies(length)
        density = rng.lognormal(np.log(120), 1.2) / (1 + (hertz / 2) ** 1.5)
        burst = coloured(rng, N_SCALP, length, density) * np.hanning(length).astype(np.float32)
        spread = rng.gamma(1.0, 1.0, N_SCALP).astype(np.float32)
        signal[:, start : start + length] += spread[:, None] * burst


def _add_pops(signal: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Add electrode pops: steps of one electrode that decay within a second."""
    n_samples = signal.shape[1]
    length = EEG_RATE_HZ
    for start in rng.integers(0, n_samples - length, rng.poisson(rng.gamma(0.7, 12.0))):
        decay = np.exp(-np.arange(length) / (EEG_RATE_HZ * rng.uniform(0.05, 0.3)))
        jump = rng.choice([-1, 1]) * rng.uniform(40, 400)
        signal[rng.integers(N_SCALP), start : start + length] += (jump * decay).astype(np.float32)


def _add_bad_electrode(
    signal: NDArray[np.float32], hum: NDArray[np.float32], rng: np.random.Generator
) -> None:
    """Make one electrode loose for a while: it picks up the mains and its level drifts."""
    n_samples = signal.shape[1]
    n_points = n_samples * CONTROL_HZ // EEG_RATE_HZ + 2
    length = int(rng.uniform(0.1, 1.0) * n_points)
    start = int(rng.integers(0, n_points - length + 1))
    loose = np.zeros(n_points)
    loose[start : start + length] = np.exp(0.5 * slow_curve(rng, length, 10.0))
    level = rng.lognormal(np.log(60), 0.8) * slow_curve(rng, n_points, 1.5)
    channel = signal[rng.integers(N_SCALP)]
    channel += rng.lognormal(np.log(60), 1.0) * to_samples(loose, n_samples) * hum
    channel += to_samples(loose * level, n_samples)
    rough = rng.lognormal(np.log(3), 0.6) * rng.standard_normal(n_samples, dtype=np.float32)
    channel += to_samples(loose, n_samples) * rough
