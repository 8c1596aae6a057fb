"""Random signals with a given spectrum, and slow random curves."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfftfreq

from hms_ray.competition.schema import EEG_RATE_HZ

CONTROL_HZ: Final = 5
"""Rate of the slow curves (envelopes, frequencies) that shape a signal."""

_NEGLIGIBLE: Final = 1e-6


def frequencies(n_samples: int, rate_hz: int = EEG_RATE_HZ) -> NDArray[np.float64]:
    """Frequencies, in Hz, at which ``coloured`` needs the density for ``n_samples``."""
    grid: NDArray[np.float64] = rfftfreq(next_fast_len(n_samples, real=True), 1 / rate_hz)
    return grid


def coloured(
    rng: np.random.Generator,
    n_signals: int,
    n_samples: int,
    density: NDArray[np.float64],
    rate_hz: int = EEG_RATE_HZ,
) -> NDArray[np.float32]:
    """Gaussian noise with a given two-sided power density.

    The density is in uV^2 / Hz at ``frequencies(n_samples, rate_hz)``.

    Returns:
        (n_signals, n_samples) float32, microvolts; the signals are independent.
    """
    n_fft = next_fast_len(n_samples, real=True)
    # E|X_k|^2 = n * rate * density, half in the real and half in the imaginary part.
    scale = np.sqrt(n_fft * rate_hz * density / 2).astype(np.float32)
    # Nothing is drawn above the last frequency with relevant power.
    scale = scale[: np.flatnonzero(scale >= _NEGLIGIBLE * scale.max())[-1] + 1]
    parts = rng.standard_normal((n_signals, 2 * len(scale)), dtype=np.float32)
    parts *= np.repeat(scale, 2)
    spectrum = parts.view(np.complex64)
    signals: NDArray[np.float32] = irfft(spectrum, n_fft, axis=-1, overwrite_x=True)
    return signals[:, :n_samples]


def band(
    hertz: NDArray[np.float64], centre: float, width: float, deviation_uv: float
) -> NDArray[np.float64]:
    """Two-sided density of a Gaussian band with the variance ``deviation_uv`` squared."""
    shape = np.exp(-((hertz - centre) ** 2) / (2 * width**2))
    density: NDArray[np.float64] = shape * deviation_uv**2 / (2 * width * np.sqrt(2 * np.pi))
    return density


def slow_curve(
    rng: np.random.Generator, n_points: int, correlation_s: float, rate_hz: float = CONTROL_HZ
) -> NDArray[np.float64]:
    """A standard normal curve that changes slowly: linear between knots ``correlation_s`` apart.

    Returns:
        (n_points,) float64, standard deviation near 1.
    """
    spacing = max(1.0, correlation_s * rate_hz)
    n_knots = int(n_points / spacing) + 3
    knots = rng.standard_normal(n_knots)
    at = np.arange(n_points) / spacing + rng.random()
    # Linear interpolation loses a third of the variance.
    curve: NDArray[np.float64] = np.interp(at, np.arange(n_knots), knots) * np.sqrt(1.5)
    return curve


def to_samples(
    control: NDArray[np.floating], n_samples: int, rate_hz: int = CONTROL_HZ
) -> NDArray[np.float32]:
    """Interpolate curves linearly from a low rate to 200 Hz.

    Args:
        control: (..., n_points) at ``rate_hz``; its last value continues past its end.
        n_samples: length at 200 Hz.
        rate_hz: a divisor of 200.

    Returns:
        (..., n_samples) float32.
    """
    step = EEG_RATE_HZ // rate_hz
    n_steps = -(-n_samples // step)
    points = control[..., : n_steps + 1].astype(np.float32)
    missing = n_steps + 1 - points.shape[-1]
    if missing > 0:
        last = np.broadcast_to(points[..., -1:], (*points.shape[:-1], missing))
        points = np.concatenate([points, last], axis=-1)
    ramp = np.arange(step, dtype=np.float32) / np.float32(step)
    lines: NDArray[np.float32] = (points[..., 1:] - points[..., :-1])[..., None] * ramp
    lines += points[..., :-1, None]
    return lines.reshape(*points.shape[:-1], -1)[..., :n_samples]
