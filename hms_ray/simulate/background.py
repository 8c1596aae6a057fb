"""The background EEG: 1/f activity, alpha, slow waves, beta, drift.

Amplitudes and slopes are those measured on the competition's recordings (density falling
with slope -1.2 to -1.8 from 2 to 20 Hz) or common clinical values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hms_ray.simulate.noise import CONTROL_HZ, band, coloured, frequencies, slow_curve, to_samples
from hms_ray.simulate.scalp import N_SCALP, SCALP_SCALE, field, mixing, side_factors

Rest = Literal["mixed", "awake", "slow", "sedated", "suppressed"]
RESTS: Final[tuple[Rest, ...]] = ("mixed", "awake", "slow", "sedated", "suppressed")
"""States of a brain without a pattern."""

BIPOLAR_SD_UV: Final = 9.5
"""Approximate deviation of a bipolar difference of the background at gain 1, 0.6-20 Hz.

In nominal microvolts, like a pattern's amplitude: see ``SCALP_SCALE``.
"""

# Referential density at 1 Hz of gain 1, uV^2 / Hz.
_DENSITY_AT_1_HZ: Final = 40.0
_CORNER_HZ: Final = 0.5
_SLOW_HZ: Final = 20
"""Rate at which slow waves are generated."""
# Places of slow waves, alpha and beta; one source per hemisphere and place.
_SLOW_PLACES: Final = ((0.6, 0.5), (0.6, -0.4))
_ALPHA_PLACE: Final = (0.4, -0.8)
_BETA_PLACE: Final = (0.4, 0.6)
_SOURCE_WIDTH: Final = 0.45


@dataclass(frozen=True)
class Background:
    """A patient's background activity.

    Attributes:
        gain: factor on the whole scalp signal.
        slope: exponent of the decrease of the power density.
        alpha_hz: frequency of the posterior rhythm.
        alpha_uv: deviation of the posterior rhythm in microvolts, referential.
        slow_uv: deviation of polymorphic delta and theta.
        beta_uv: deviation of frontal beta.
        asymmetry: log of the right to left ratio of the amplitudes.
        suppression: depth of burst suppression, 0 (none) to 1 (flat between bursts).
        drift_uv: deviation of each electrode's own drift, mostly below 1 Hz.
    """

    gain: float
    slope: float
    alpha_hz: float
    alpha_uv: float
    slow_uv: float
    beta_uv: float
    asymmetry: float
    suppression: float = 0.0
    drift_uv: float = 20.0


def draw_background(rng: np.random.Generator) -> Background:
    """Draw a patient's background activity."""
    return Background(
        gain=float(rng.lognormal(0, 0.4)),
        slope=float(rng.uniform(1.15, 1.75)),
        alpha_hz=float(rng.uniform(7.5, 11)),
        alpha_uv=float(rng.lognormal(np.log(2), 0.6)),
        slow_uv=float(rng.lognormal(np.log(5), 0.4)),
        beta_uv=float(rng.lognormal(np.log(1.5), 0.5)),
        asymmetry=float(rng.normal(0, 0.12)),
        drift_uv=float(rng.lognormal(np.log(20), 0.45)),
    )


def at_rest(background: Background, rest: Rest, rng: np.random.Generator) -> Background:
    """Draw the patient's activity in one state of rest."""
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
    """Draw the background signal of one recording.

    ``envelope`` is a factor on the amplitude, at 5 Hz, such as the suppression after a seizure.

    Returns:
        (19, n_samples) float32, microvolts, channels in ``SCALP`` order.
    """
    hertz = frequencies(n_samples)
    n_points = len(envelope)
    fall = _DENSITY_AT_1_HZ / (_CORNER_HZ**2 + hertz**2) ** (background.slope / 2)
    fields, traces = _rhythms(background, hertz, n_samples, n_points, rng)
    # One matrix product for all sources: noise at every electrode and the placed rhythms.
    sources = np.concatenate([coloured(rng, N_SCALP, n_samples, fall), traces])
    sides = side_factors(background.asymmetry)[:, None]
    signal: NDArray[np.float32] = (sides * np.hstack([mixing(), fields])) @ sources
    drift = _waxing(rng, n_points, 0.35, 60.0) * _waxing(rng, n_points, 0.3, 3.0)
    if background.suppression:
        drift *= _burst_suppression(background.suppression, n_points, rng)
    scale = SCALP_SCALE * background.gain
    strength = to_samples(scale * envelope * drift, n_samples)
    wander = _drift(scale * background.drift_uv, n_points, rng)
    for channel, curve in zip(signal, wander, strict=True):  # one at a time stays in the cache
        channel *= strength
        channel += to_samples(curve, n_samples)
    return signal


def _rhythms(
    background: Background,
    hertz: NDArray[np.float64],
    n_samples: int,
    n_points: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw slow waves, posterior alpha and frontal beta, which wax and wane.

    Returns:
        (19, 8) fields and (8, n_samples) traces.
    """
    alpha = coloured(rng, 2, n_samples, band(hertz, background.alpha_hz, 0.8, background.alpha_uv))
    alpha *= to_samples(_waxing(rng, n_points, 0.7, 2.0), n_samples)
    beta = coloured(rng, 2, n_samples, band(hertz, 16.0, 3.0, background.beta_uv))
    beta *= to_samples(_waxing(rng, n_points, 0.5, 4.0), n_samples)
    places = [*_SLOW_PLACES, _ALPHA_PLACE, _BETA_PLACE]
    fields = [field((side * x, y), _SOURCE_WIDTH) for x, y in places for side in (-1, 1)]
    slow = _slow_waves(background.slow_uv, n_samples, n_points, rng)
    return np.array(fields, np.float32).T, np.vstack([slow, alpha, beta])


def _slow_waves(
    deviation_uv: float, n_samples: int, n_points: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Polymorphic delta and theta in bursts, (4, n_samples)."""
    n_slow = n_points * _SLOW_HZ // CONTROL_HZ
    hertz = frequencies(n_slow, _SLOW_HZ)
    density = band(hertz, 1.2, 1.4, deviation_uv) * (hertz > 0.3)
    waves = coloured(rng, 2 * len(_SLOW_PLACES), n_slow, density, _SLOW_HZ)
    bursts = _waxing(rng, n_points, 0.6, 6.0)
    waves *= np.repeat(bursts, _SLOW_HZ // CONTROL_HZ).astype(np.float32)
    return to_samples(waves, n_samples, _SLOW_HZ)


def _waxing(
    rng: np.random.Generator, n_points: int, deviation: float, correlation_s: float
) -> NDArray[np.float64]:
    """A lognormal factor whose mean square is 1, so that deviations stay what they are."""
    curve = deviation * slow_curve(rng, n_points, correlation_s)
    factor: NDArray[np.float64] = np.exp(curve - deviation**2)
    return factor


def _drift(deviation_uv: float, n_points: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Electrode drift by sweat, movement and polarisation, at 5 Hz."""
    hertz = frequencies(n_points, CONTROL_HZ)
    density = 1 / (0.15**2 + hertz**2) ** 1.5
    density *= deviation_uv**2 / (2 * density.sum() * (hertz[1] - hertz[0]))
    drift = coloured(rng, N_SCALP, n_points, density, CONTROL_HZ)
    contact = rng.lognormal(-0.25, 0.5, N_SCALP).astype(np.float32)
    # Neighbouring electrodes share a part of it.
    shared: NDArray[np.float32] = mixing() @ drift
    return shared + 0.55 * contact[:, None] * coloured(rng, N_SCALP, n_points, density, CONTROL_HZ)


def _burst_suppression(
    depth: float, n_points: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Bursts of 1-4 s between suppressions of 2-10 s, at 5 Hz."""
    envelope = np.full(n_points, 1 - depth)
    at = int(rng.integers(0, 10 * CONTROL_HZ))
    while at < n_points:
        burst = int(rng.uniform(1, 4) * CONTROL_HZ)
        envelope[at : at + burst] = rng.uniform(1.2, 2.2)
        at += burst + int(rng.uniform(2, 10) * CONTROL_HZ)
    return envelope
