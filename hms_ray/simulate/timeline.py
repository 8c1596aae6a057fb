"""The times of events in a recording: bouts, seizures, suppression after seizures."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.simulate.noise import CONTROL_HZ, slow_curve
from hms_ray.simulate.patterns import Episode, Pattern

_JUDGED_S: Final = 10
"""Experts judge the central ten of the fifty seconds that they see."""

Stretch = tuple[float, float]
"""Start and end in seconds of spectrogram time."""


def steady_episode(
    pattern: Pattern, stretch: Stretch, shown: list[float], rng: np.random.Generator
) -> Episode:
    """A rhythmic or periodic pattern in bouts of 6-60 s.

    Most of the judged moments (``shown``, in seconds) are within a bout, because experts were
    shown parts of recordings with a pattern.
    """
    start, n_points = _control(stretch)
    bouts = _bouts(n_points, pattern.duty, rng)
    for moment in shown:
        if rng.random() < 0.9:
            middle = round(moment * CONTROL_HZ) - start
            half = int(rng.uniform(5, 15) * CONTROL_HZ)
            bouts[max(0, middle - half) : max(0, middle + half)] = 1.0
    strength = _ramped(bouts) * np.exp(0.2 * slow_curve(rng, n_points, 20.0))
    # A pattern that evolves but is not a seizure: its rate varies by up to a factor of 2.
    wander = pattern.evolution * 0.7 * np.clip(slow_curve(rng, n_points, 25.0), -1.5, 1.5)
    return Episode(
        pattern,
        start,
        pattern.frequency_hz * np.exp(wander),
        strength,
        np.full(n_points, pattern.asymmetry),
    )


def seizure_episodes(
    pattern: Pattern,
    stretch: Stretch,
    shown: list[float],
    envelope: NDArray[np.float64],
    rng: np.random.Generator,
) -> list[Episode]:
    """Seizures of 20-180 s at the judged moments and, in most recordings, before and after.

    All judged moments (``shown``, in seconds) are within a seizure. The amplitude of the
    background (``envelope``, at 5 Hz) is halved after each seizure, in place.
    """
    spreads = rng.random() < 0.3
    lengths = rng.uniform(40, 150)
    moments = _seizure_moments(stretch, shown, lengths, rng)
    episodes: list[Episode] = []
    for moment in moments:
        length = float(np.clip(lengths * rng.lognormal(0, 0.15), 20, 180))
        begin = moment - rng.uniform(0.25, 0.75) * length
        begin = max(begin, stretch[0], episodes[-1].stop / CONTROL_HZ + 5 if episodes else 0.0)
        if moment > begin + length or begin > moment:
            continue
        episode = _seizure(pattern, begin, length, spreads, rng)
        episodes.append(episode)
        _quieten(envelope, episode.stop, rng.uniform(30, 300))
    return episodes


def _quieten(envelope: NDArray[np.float64], start: int, length_s: float) -> None:
    """Halve the background from ``start`` on; it recovers in the last third."""
    n_points = int(length_s * CONTROL_HZ)
    recovery = np.clip(np.linspace(-2, 1, n_points), 0, 1)
    part = envelope[start : start + n_points]
    np.minimum(part, 0.5 + 0.5 * recovery[: len(part)], out=part)


def _seizure_moments(
    stretch: Stretch, shown: list[float], length: float, rng: np.random.Generator
) -> list[float]:
    """Judged moments that need a seizure of their own, and moments of further seizures."""
    moments: list[float] = []
    for moment in sorted(shown):
        if not moments or moment - moments[-1] > length:
            moments.append(moment)
    if rng.random() < 0.6:
        interval = length + rng.uniform(90, 300)
        first, last = moments[0], moments[-1]
        moments = [*np.arange(first, stretch[0], -interval)[:0:-1].tolist(), *moments]
        moments += np.arange(last, stretch[1], interval)[1:].tolist()
    return moments


def _seizure(
    pattern: Pattern, begin: float, length: float, spreads: bool, rng: np.random.Generator
) -> Episode:
    """One seizure: the rate falls, the amplitude grows, the field may spread."""
    start, n_points = _control((begin, begin + length))
    course = np.linspace(0, 1, n_points)
    fall = np.log(pattern.start_hz / pattern.frequency_hz) * pattern.evolution
    frequency = pattern.frequency_hz * np.exp(fall * (1 - course))
    strength = 0.2 + 0.8 * np.minimum(1, course / 0.6)
    strength *= np.exp(0.1 * slow_curve(rng, n_points, 8.0))
    strength[-CONTROL_HZ:] *= np.linspace(1, 0, CONTROL_HZ)
    spread = np.clip((course * length - rng.uniform(5, 30)) / 10, 0, 1)
    asymmetry = pattern.asymmetry * (1 - 0.8 * spread) if spreads else pattern.asymmetry
    return Episode(pattern, start, frequency, strength, np.broadcast_to(asymmetry, n_points))


def _control(stretch: Stretch) -> tuple[int, int]:
    start = max(0, round(stretch[0] * CONTROL_HZ))
    return start, max(CONTROL_HZ, round(stretch[1] * CONTROL_HZ) - start)


def _bouts(n_points: int, duty: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Ones in bouts of 6-60 s, zeros between them."""
    if duty >= 1:
        return np.ones(n_points)
    bouts = np.zeros(n_points)
    at = 0
    while at < n_points:
        bout = rng.uniform(6, 60)
        gap = bout * (1 / duty - 1) * rng.uniform(0.5, 1.5)
        begin, end = at, at + int(bout * CONTROL_HZ)
        bouts[begin:end] = 1.0
        at = end + int(gap * CONTROL_HZ) + 1
    return np.roll(bouts, int(rng.integers(n_points)))


def _ramped(bouts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bouts with flanks of one second."""
    kernel = np.ones(CONTROL_HZ) / CONTROL_HZ
    padded = np.pad(bouts, CONTROL_HZ // 2, mode="edge")
    return np.convolve(padded, kernel, mode="valid")


def judged_points(moment: float, n_points: int) -> slice:
    """Control points of the ten seconds around a moment."""
    middle = round(moment * CONTROL_HZ)
    half = _JUDGED_S * CONTROL_HZ // 2
    return slice(max(0, middle - half), min(n_points, middle + half))
