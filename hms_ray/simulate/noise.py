"""Random signals with a given spectrum, and slow random curves."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfftfreq

from hms_ray.competition.schema import EEG_RATE_HZ

CONTROL_HZ: Final = 5
"""Rate of the slow curves (envelopes, frequencies) that shape a signal."""


def frequencies(n_samples: int) -> NDArray[np.float64]:
    """Frequencies, in Hz, at which ``coloured`` wants its amplitudes for ``n_samples``."""
    grid: NDArray[np.float64] = rfftfreq(next_fast_len(n_samples, real=True), 1 / EEG_RATE_HZ)
    return grid


def coloured(
    rng: np.random.Generator, n_signals: int, n_samples: int, density: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Gaussian noise with a given two-sided power density.

    Args:
        rng: source of randomness.
        n_signals: independent signals to draw.
        n_samples: length of each at 200 Hz.
        density: power density in uV^2 / Hz at ``frequencies(n_samples)``.

    Returns:
        (n_signals, n_samples) float32, microvolts.
    """
    n_fft = next_fast_len(n_samples, real=True)
    # E|X_k|^2 = n * rate * density, shared evenly by the real and the imaginary part.
    scale = np.sqrt(n_fft * EEG_RATE_HZ * density / 2).astype(np.float32)
    parts = rng.standard_normal((n_signals, len(density), 2), dtype=np.float32)
    parts *= scale[:, None]
    spectrum = parts.view(np.complex64)[..., 0]
    signals: NDArray[np.float32] = irfft(spectrum, n_fft, axis=-1, overwrite_x=True)
    return signals[:, :n_samples]


def slow_curve(
    rng: np.random.Generator, n_points: int, correlation_s: float, rate_hz: float = CONTROL_HZ
) -> NDArray[np.float64]:
    """A smooth standard normal curve: independent knots ``correlation_s`` apart, joined.

    Returns:
        (n_points,) float64, standard deviation near 1.
    """
    spacing = max(1.0, correlation_s * rate_hz)
    n_knots = int(n_points / spacing) + 3
    knots = rng.standard_normal(n_knots)
    at = np.arange(n_points) / spacing + rng.random()
    # Straight lines between knots lose a third of the variance.
    curve: NDArray[np.float64] = np.interp(at, np.arange(n_knots), knots) * np.sqrt(1.5)
    return curve


def to_samples(control: NDArray[np.float64], n_samples: int) -> NDArray[np.float32]:
    """A control curve at 5 Hz, drawn out to 200 Hz by straight lines."""
    step = EEG_RATE_HZ // CONTROL_HZ
    at = np.arange(n_samples) / step
    return np.interp(at, np.arange(len(control)), control).astype(np.float32)
