"""Patterns as points of one continuum, and their waveforms.

Definitions and limits: American Clinical Neurophysiology Society, Standardized Critical
Care EEG Terminology, 2021 version (Hirsch et al., J Clin Neurophysiol 38 (2021), 1).
A pattern has no class here: it has a frequency, a sharpness, an asymmetry, an evolution,
a regularity and a strength, which experts (``hms_ray.simulate.raters``) judge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import EEG_RATE_HZ
from hms_ray.simulate.noise import CONTROL_HZ, band, coloured, frequencies, slow_curve, to_samples
from hms_ray.simulate.scalp import SCALP_SCALE, hemisphere_field

PatternKind = Literal["Seizure", "LPD", "GPD", "LRDA", "GRDA", "mimic"]
"""Regions of the continuum from which points are drawn; neighbouring regions overlap."""

_TEMPLATE_POINTS: Final = 1024
_PERIOD_LOG_AMPLITUDE_SD: Final = 0.2
"""Deviation of the log amplitude of single periods."""
_PERIOD_TIMING_SD: Final = 0.04
"""Deviation of single periods from the rhythm, in periods; it does not accumulate."""
_MAIN_AMPLITUDE: Final = 0.8
_SECOND_AMPLITUDE: Final = 0.3
"""Amplitudes of a pattern's main source and of a less sharp one nearby that follows it."""
_SECOND_SHARPNESS: Final = 0.7
"""Sharpness of the second source as a share of that of the main source."""
_SECOND_LAG_S: Final = (0.02, 0.06)
_MIN_FAST_EVOLUTION: Final = 0.25
"""Patterns of more evolution have fast activity, as seizures do."""
_FAST_SD: Final = 0.08
"""Deviation of the fast activity as a share of the amplitude."""
_FAST_HZ: Final = (10.0, 6.0)
"""Centre and width of the band of the fast activity."""
_DOUBTFUL_SHARE: Final = 0.08
"""Probability, for each of several features, that it lies between two classes."""


@dataclass(frozen=True)
class Pattern:
    """One point of the continuum, and its place on the head.

    Attributes:
        frequency_hz: repetition rate; of a seizure, the rate at its end.
        start_hz: of a seizure, the rate at its start; else equal to ``frequency_hz``.
        sharpness: 0 (a sinusoid) to 1 (a discharge of 100-300 ms).
        asymmetry: 1 - amplitude of the weaker side / amplitude of the stronger side.
        side: stronger side, -1 left or 1 right.
        evolution: 0 (steady) to 1 (a full course of frequency, amplitude and field).
        amplitude_uv: peak to peak in the longitudinal bipolar montage at gain 1, in nominal
            microvolts; on the scalp it is multiplied by ``SCALP_SCALE``.
        jitter: relative deviation of single periods.
        duty: share of the time with the pattern, 0 to 1.
        centre: (distance from the midline, front) of its maximum.
        width: spread of its field on a head of radius 1.
        lag_s: delay of the weaker side.
    """

    frequency_hz: float
    start_hz: float
    sharpness: float
    asymmetry: float
    side: int
    evolution: float
    amplitude_uv: float
    jitter: float
    duty: float
    centre: tuple[float, float]
    width: float
    lag_s: float


_FREQUENCY_HZ: Final[dict[PatternKind, tuple[float, float]]] = {
    "Seizure": (1.5, 4.0),
    "LPD": (0.5, 2.0),
    "GPD": (0.5, 2.5),
    "LRDA": (1.0, 3.0),
    "GRDA": (1.0, 3.0),
    "mimic": (1.0, 4.0),
}
_AMPLITUDE_UV: Final[dict[PatternKind, tuple[float, float]]] = {
    # Median and deviation of the logarithm.
    "Seizure": (150.0, 0.3),
    "LPD": (135.0, 0.3),
    "GPD": (130.0, 0.3),
    "LRDA": (110.0, 0.3),
    "GRDA": (115.0, 0.3),
    "mimic": (80.0, 0.4),
}
_CENTRES: Final = {
    "lateral": ((0.75, 0.45), (0.9, 0.0), (0.5, 0.0), (0.55, -0.5)),
    "frontotemporal": ((0.75, 0.45), (0.6, 0.6)),
    "frontal": ((0.4, 0.65), (0.35, 0.5)),
}


def draw_pattern(kind: PatternKind, rng: np.random.Generator) -> Pattern:
    """Draw a point from a region of the continuum, sometimes near or over its border."""
    low, high = _FREQUENCY_HZ[kind]
    frequency = float(rng.uniform(low, high))
    median, deviation = _AMPLITUDE_UV[kind]
    lateral = kind in ("LPD", "LRDA") or (kind == "Seizure" and rng.random() < 0.8)
    periodic = kind in ("LPD", "GPD")
    place = "frontal" if not lateral else "frontotemporal" if kind == "LRDA" else "lateral"
    centre = _CENTRES[place][int(rng.integers(len(_CENTRES[place])))]
    seizure = kind == "Seizure"
    return Pattern(
        frequency_hz=frequency,
        start_hz=float(rng.uniform(7, 14)) if seizure else frequency,
        sharpness=float(rng.uniform(0.3, 0.7))
        if seizure
        else _feature((0.75, 1.0) if periodic else (0.0, 0.25), (0.3, 0.7), rng),
        asymmetry=_feature((0.7, 0.92) if lateral else (0.0, 0.2), (0.2, 0.65), rng),
        side=int(rng.choice([-1, 1])),
        evolution=_feature((0.75, 1.0) if seizure else (0.0, 0.2), (0.3, 0.7), rng),
        amplitude_uv=float(median * rng.lognormal(0, deviation))
        * (float(rng.uniform(0.2, 0.5)) if _doubtful(rng) else 1.0),
        jitter=float(rng.uniform(0.35, 0.5) if kind == "mimic" else rng.uniform(0.05, 0.15)),
        duty=1.0 if seizure or (periodic and rng.random() < 0.7) else float(rng.uniform(0.65, 1.0)),
        centre=centre,
        width=float(rng.uniform(0.4, 0.6)),
        lag_s=float(rng.uniform(0, 0.03)),
    )


def _doubtful(rng: np.random.Generator) -> bool:
    return bool(rng.random() < _DOUBTFUL_SHARE)


def _feature(
    clear: tuple[float, float], doubtful: tuple[float, float], rng: np.random.Generator
) -> float:
    """Draw a feature from the range of its class or, rarely, from between two classes."""
    return float(rng.uniform(*(doubtful if _doubtful(rng) else clear)))


def template(pattern: Pattern, frequency_hz: float) -> NDArray[np.float32]:
    """One period of the waveform, peak to peak 1, mean 0.

    A discharge is a sharp phase of about 100 ms and a slow wave after it at every rate, so it
    fills more of a shorter period; a rhythm is a sinusoid.

    Returns:
        (1024,) float32.
    """
    phase = np.linspace(0, 1, _TEMPLATE_POINTS, endpoint=False)

    def bump(at: float, width: float) -> NDArray[np.float64]:
        distance = (phase - at + 0.5) % 1 - 0.5
        shape: NDArray[np.float64] = np.exp(-(distance**2) / (2 * width**2))
        return shape

    sharp = min(0.028 * frequency_hz, 0.09)
    slow = min(0.1 * frequency_hz, 0.14)
    discharge = bump(0.3, sharp) - 0.45 * bump(0.3 + 2.2 * slow, slow)
    if pattern.asymmetry < 0.5:  # generalised discharges are often triphasic
        discharge -= 0.3 * bump(0.3 - 2.2 * sharp, sharp)
    rhythm = 0.5 * np.sin(2 * np.pi * phase) + 0.05 * np.sin(4 * np.pi * phase)
    wave = pattern.sharpness * _unit(discharge) + (1 - pattern.sharpness) * _unit(rhythm)
    return _unit(wave).astype(np.float32)


def _unit(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = wave - wave.mean()
    scaled: NDArray[np.float64] = centred / np.ptp(centred)
    return scaled


@dataclass(frozen=True)
class Episode:
    """A part of a recording with one pattern.

    Attributes:
        pattern: the point of the continuum.
        start: first control point (5 Hz).
        frequency_hz: rate at each control point.
        strength: factor on the amplitude at each control point; 0 between bouts.
        asymmetry: asymmetry at each control point.
    """

    pattern: Pattern
    start: int
    frequency_hz: NDArray[np.float64]
    strength: NDArray[np.float64]
    asymmetry: NDArray[np.float64]

    @property
    def stop(self) -> int:
        """The control point after the last."""
        return self.start + len(self.strength)


def add_episode(
    signal: NDArray[np.float32], episode: Episode, gain: float, rng: np.random.Generator
) -> None:
    """Add one episode to a scalp recording, in place; parts outside it are cut off.

    The recording is (19, n_samples) float32, microvolts, in ``SCALP`` order; ``gain`` is the
    patient's.
    """
    step = EEG_RATE_HZ // CONTROL_HZ
    first = episode.start * step
    n_samples = min(len(episode.strength) * step, signal.shape[1] - first)
    if n_samples <= 0:
        return
    pattern = episode.pattern
    mean_hz = float(episode.frequency_hz.mean())
    points = _template_points(episode, n_samples, rng)
    amplitude = SCALP_SCALE * gain * pattern.amplitude_uv * episode.strength
    sides = (
        (pattern.side, amplitude, 0.0),
        (-pattern.side, amplitude * (1 - episode.asymmetry), pattern.lag_s),
    )
    fields, traces = [], []
    for wave, centre, size, delay in _draw_sources(pattern, mean_hz, rng):
        uneven = size * np.exp(_PERIOD_LOG_AMPLITUDE_SD * _each_period(episode, rng))
        for side, course, lag in sides:
            fields.append(hemisphere_field(centre, pattern.width, side))
            late = round((delay + lag) * mean_hz * _TEMPLATE_POINTS)
            shape = wave[(points - late) % _TEMPLATE_POINTS]
            traces.append(shape * to_samples(course * uneven, n_samples))
    if pattern.evolution > _MIN_FAST_EVOLUTION:
        fast = coloured(rng, 2, n_samples, band(frequencies(n_samples), *_FAST_HZ, _FAST_SD))
        for noise, (side, course, _) in zip(fast, sides, strict=True):
            fields.append(hemisphere_field(pattern.centre, pattern.width, side))
            traces.append(noise * to_samples(pattern.evolution * course, n_samples))
    signal[:, first : first + n_samples] += np.array(fields, np.float32).T @ np.vstack(traces)


def _template_points(
    episode: Episode, n_samples: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """The pattern's phase at each sample, as points of the template."""
    wobble = np.clip(1 + episode.pattern.jitter * _each_period(episode, rng), 0.2, None)
    speed = to_samples(episode.frequency_hz * wobble, n_samples)
    phase: NDArray[np.float64] = np.cumsum(speed, dtype=np.float64) / EEG_RATE_HZ + rng.random()
    phase += to_samples(_PERIOD_TIMING_SD * _each_period(episode, rng), n_samples)
    return (phase % 1 * _TEMPLATE_POINTS).astype(np.int32)


def _each_period(episode: Episode, rng: np.random.Generator) -> NDArray[np.float64]:
    """A standard normal curve, clipped at 2, that varies from period to period."""
    period_s = 1 / float(episode.frequency_hz.mean())
    return np.clip(slow_curve(rng, len(episode.frequency_hz), period_s), -2, 2)


def _draw_sources(
    pattern: Pattern, mean_hz: float, rng: np.random.Generator
) -> tuple[tuple[NDArray[np.float32], tuple[float, float], float, float], ...]:
    """The main and the second source: waveform, centre, amplitude, delay."""
    second = replace(pattern, sharpness=_SECOND_SHARPNESS * pattern.sharpness)
    # A random place nearby, on the same side.
    distance, front = pattern.centre
    near = max(0.2, distance + float(rng.normal(0, 0.25))), front + float(rng.normal(0, 0.3))
    return (
        (template(pattern, mean_hz), pattern.centre, _MAIN_AMPLITUDE, 0.0),
        (template(second, mean_hz), near, _SECOND_AMPLITUDE, float(rng.uniform(*_SECOND_LAG_S))),
    )
