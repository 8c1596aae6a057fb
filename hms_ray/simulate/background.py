"""The EEG that goes on under every pattern: 1/f activity, alpha, slow waves, beta.

Amplitudes and slopes are those measured on the competition's recordings (density falling
with slope -1.2 to -1.8 from 2 to 20 Hz) or common clinical values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hms_ray.simulate.head import N_SCALP, field, mixing
from hms_ray.simulate.noise import CONTROL_HZ, coloured, frequencies, slow_curve, to_samples

Rest = Literal["mixed", "awake", "slow", "sedated", "suppressed"]
RESTS: Final[tuple[Rest, ...]] = ("mixed", "awake", "slow", "sedated", "suppressed")
"""What a brain without a pattern looks like."""

BIPOLAR_SD_UV: Final = 9.5
"""Deviation of a bipolar difference of the background at gain 1, 0.5-40 Hz, about."""

# Referential density at 1 Hz of gain 1, uV^2 / Hz.
_DENSITY_AT_1_HZ: Final = 48.0
_CORNER_HZ: Final = 0.7


@dataclass(frozen=True)
class Background:
    """A brain's ongoing activity.

    Attributes:
        gain: factor on everything that the scalp shows.
        slope: exponent of the fall of the power density.
        alpha_hz: frequency of the posterior rhythm.
        alpha_uv: its deviation in microvolts, referential.
        slow_uv: deviation of polymorphic delta and theta.
        beta_uv: deviation of frontal beta.
        asymmetry: log of the right to left ratio of the amplitudes.
        suppression: depth of burst suppression, 0 (none) to 1 (flat between bursts).
    """

    gain: float
    slope: float
    alpha_hz: float
    alpha_uv: float
    slow_uv: float
    beta_uv: float
    asymmetry: float
    suppression: float = 0.0


def draw_background(rng: np.random.Generator) -> Background:
    """A patient's ongoing activity."""
    return Background(
        gain=float(rng.lognormal(0, 0.4)),
        slope=float(rng.uniform(1.3, 1.9)),
        alpha_hz=float(rng.uniform(7.5, 11)),
        alpha_uv=float(rng.lognormal(np.log(3), 0.6)),
        slow_uv=float(rng.lognormal(np.log(5), 0.4)),
        beta_uv=float(rng.lognormal(np.log(1.2), 0.4)),
        asymmetry=float(rng.normal(0, 0.12)),
    )


def at_rest(background: Background, rest: Rest, rng: np.random.Generator) -> Background:
    """The patient's activity in one kind of rest."""
    if rest == "awake":
        alpha = background.alpha_uv + float(rng.uniform(6, 14))
        return replace(background, alpha_uv=alpha, slow_uv=0.5 * background.slow_uv)
    if rest == "slow":
        return replace(background, slow_uv=background.slow_uv + float(rng.uniform(8, 18)))
    if rest == "sedated":
        return replace(background, beta_uv=background.beta_uv + float(rng.uniform(4, 9)))
    if rest == "suppressed":
        return replace(background, suppression=float(rng.uniform(0.6, 0.95)))
    return background


def background_signal(
    background: Background, envelope: NDArray[np.float64], n_samples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw the ongoing activity of one recording.

    Args:
        background: what it is made of.
        envelope: factor on the amplitude at 5 Hz, such as the quiet after a seizure.
        n_samples: length at 200 Hz.
        rng: source of randomness.

    Returns:
        (19, n_samples) float32, microvolts, channels in ``SCALP`` order.
    """
    hertz = frequencies(n_samples)
    fall = _DENSITY_AT_1_HZ / (_CORNER_HZ**2 + hertz**2) ** (background.slope / 2)
    fall += _band(hertz, 2.0, 1.3, background.slow_uv) * (hertz > 0.3)
    signal = mixing() @ coloured(rng, N_SCALP, n_samples, fall)
    signal += _rhythms(background, hertz, n_samples, rng)
    n_points = len(envelope)
    drift = np.exp(0.15 * slow_curve(rng, n_points, 30.0) + 0.2 * slow_curve(rng, n_points, 2.0))
    if background.suppression:
        drift *= _burst_suppression(background.suppression, n_points, rng)
    signal *= to_samples(background.gain * envelope * drift, n_samples)
    return signal


def _band(
    hertz: NDArray[np.float64], centre: float, width: float, deviation_uv: float
) -> NDArray[np.float64]:
    """Two-sided density of a Gaussian band that holds ``deviation_uv`` squared."""
    shape = np.exp(-((hertz - centre) ** 2) / (2 * width**2))
    density: NDArray[np.float64] = shape * deviation_uv**2 / (2 * width * np.sqrt(2 * np.pi))
    return density


def _rhythms(
    background: Background, hertz: NDArray[np.float64], n_samples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Posterior alpha and frontal beta, one source a hemisphere each."""
    sides = np.exp(np.array([-0.5, 0.5]) * background.asymmetry)
    alpha = coloured(rng, 2, n_samples, _band(hertz, background.alpha_hz, 0.6, background.alpha_uv))
    beta = coloured(rng, 2, n_samples, _band(hertz, 16.0, 2.5, background.beta_uv))
    fields = [
        field((side * 0.4, front), 0.45) * factor
        for front in (-0.8, 0.6)
        for side, factor in zip((-1, 1), sides, strict=True)
    ]
    mixed: NDArray[np.float32] = np.array(fields, np.float32).T @ np.vstack([alpha, beta])
    return mixed


def _burst_suppression(
    depth: float, n_points: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Bursts of 1-4 s between flat spells of 2-10 s, at 5 Hz."""
    envelope = np.full(n_points, 1 - depth)
    at = int(rng.integers(0, 10 * CONTROL_HZ))
    while at < n_points:
        burst = int(rng.uniform(1, 4) * CONTROL_HZ)
        envelope[at : at + burst] = rng.uniform(1.2, 2.2)
        at += burst + int(rng.uniform(2, 10) * CONTROL_HZ)
    return envelope
