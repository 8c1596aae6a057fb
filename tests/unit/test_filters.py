"""Filters and resampling compared with SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import butter, resample_poly, sosfiltfilt

from hms_ray.signal.filters import band_pass, high_pass
from hms_ray.signal.resample import resample


def drifting(n_signals: int = 3, n: int = 10_000) -> np.ndarray:
    walk = np.cumsum(np.random.default_rng(0).normal(size=(n_signals, n)), axis=1)
    return (5 * walk + 20_000).astype(np.float32)


@pytest.mark.parametrize("n", [10_000, 1_017, 60])
@pytest.mark.parametrize("band", [(0.5, 20.0), (0.05, 30.0), (5.0, 99.0), (8.0, 9.0)], ids=str)
def test_band_pass_equals_scipy_including_the_ends(band: tuple[float, float], n: int) -> None:
    signals = drifting(n=n)
    sections = butter(4, band, "bandpass", fs=200, output="sos")
    expected = sosfiltfilt(sections, signals.astype(np.float64), axis=-1)
    made = band_pass(torch.from_numpy(signals), *band, 4)
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-4, rtol=1e-5)


def test_high_pass_equals_scipy_including_the_ends() -> None:
    signals = drifting()
    sections = butter(4, 0.5, "highpass", fs=200, output="sos")
    expected = sosfiltfilt(sections, signals.astype(np.float64), axis=-1)
    made = high_pass(torch.from_numpy(signals).view(3, 1, -1), 0.5, 4)
    np.testing.assert_allclose(made[:, 0].numpy(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("rate", [10, 50, 64, 100, 128, 150, 199])
def test_resampling_equals_scipy_away_from_the_ends(rate: int) -> None:
    signals = drifting()
    divisor = math.gcd(rate, 200)
    expected = resample_poly(signals.astype(float), rate // divisor, 200 // divisor, axis=-1)
    made = resample(torch.from_numpy(signals), 0, rate, rate * 50).numpy()
    assert made.shape == expected.shape == (3, rate * 50)
    inner = slice(rate * 2, -rate * 2)
    np.testing.assert_allclose(made[:, inner], expected[:, inner], rtol=3e-6)


def test_resampling_has_no_step_at_the_ends() -> None:
    ramp = torch.linspace(1_000.0, 2_000.0, 10_000)[None]
    made = resample(ramp, 0, 50, 2_500)
    torch.testing.assert_close(made, ramp[:, ::4], rtol=1e-4, atol=0)


def test_part_of_a_signal_is_resampled_like_the_whole() -> None:
    signals = torch.from_numpy(drifting())
    whole = resample(signals, 0, 100, 5_000)
    torch.testing.assert_close(resample(signals, 4_000, 100, 1_000), whole[:, 2_000:3_000])


def test_original_rate_changes_nothing() -> None:
    signals = torch.from_numpy(drifting())
    assert torch.equal(resample(signals, 7, 200, 100), signals[:, 7:107])
