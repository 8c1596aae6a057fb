"""Fitted constants compared with NumPy, NaN included."""

import numpy as np
import pytest
import torch

from hms_ray.transforms.fit_statistics import (
    N_BINS,
    NORMAL_IQR,
    fit_global,
    fit_per_frequency,
    fit_robust,
)
from hms_ray.transforms.normalise import Constants, normalise


@pytest.fixture
def x() -> torch.Tensor:
    """(5, 4, 6, 9), steeper towards low frequencies."""
    values = np.random.default_rng(0).normal(1.0, 2.0, size=(5, 4, 6, 9))
    values += np.linspace(3, 0, 6)[:, None]
    values[0, 1, :3] = np.nan
    values[1, 2] = np.nan
    values[2] = np.nan
    values[3, :, 5] = np.nan
    return torch.from_numpy(values)


def parts(x: torch.Tensor) -> list[torch.Tensor]:
    return [x[:2], x[2:3], x[3:]]


def test_global_constants_of_float16_are_summed_in_float64() -> None:
    values = np.full(3_000_000, 7.0, dtype=np.float16)
    values[::2] = 7.5
    fitted = fit_global(lambda: [torch.from_numpy(values)])
    assert fitted.mean == pytest.approx(7.25, abs=1e-12)
    assert fitted.std == pytest.approx(0.25, abs=1e-7)


def test_constant_or_missing_frequency_gets_the_constants_of_all(
    x: torch.Tensor,
) -> None:
    x[:, :, 1] = 0.7 + 0 * x[:, :, 1]
    x[:, :, 4] = torch.nan
    fitted = fit_per_frequency(lambda: parts(x))
    values = x.numpy()
    assert isinstance(fitted.mean, tuple)
    assert isinstance(fitted.std, tuple)
    assert fitted.mean[1] == pytest.approx(0.7, rel=1e-14)
    assert fitted.mean[4] == pytest.approx(np.nanmean(values), rel=1e-12)
    for frequency in (1, 4):
        assert fitted.std[frequency] == pytest.approx(np.nanstd(values), rel=1e-12)
    np.testing.assert_allclose(fitted.std[0], np.nanstd(values[:, :, 0]), rtol=1e-12)
    z = normalise(torch.full((1, 4, 6, 9), 2.0), "per_frequency", "panel", fitted)
    assert z.abs().max() < 10


def test_constant_windows_stay_finite() -> None:
    even = torch.full((3, 4, 2, 5), 0.1)
    for fitted in (fit_per_frequency(lambda: [even, even]), fit_robust(lambda: [even, even])):
        np.testing.assert_allclose(fitted.mean, np.float32(0.1), rtol=1e-14)
        np.testing.assert_array_equal(fitted.std, np.ones_like(fitted.std))


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1001])
def test_quartiles_equal_numpy_percentiles(n: int) -> None:
    values = np.random.default_rng(n).gamma(2.0, 3.0, size=n)
    batch = torch.from_numpy(np.append(values, [np.nan, np.nan])).reshape(1, 1, 1, -1)
    fitted = fit_robust(lambda: [batch])
    step = np.ptp(values) / N_BINS
    first, median, third = np.percentile(values, [25, 50, 75])
    assert fitted.mean == pytest.approx(median, abs=0.5001 * step)
    expected = (third - first) / NORMAL_IQR if n > 1 else 1.0
    assert fitted.std == pytest.approx(expected, abs=1.0001 * step / NORMAL_IQR)


def test_robust_constants_do_not_depend_on_batches(x: torch.Tensor) -> None:
    once = fit_robust(lambda: [x])
    for batches in (x.split(1), x.split(2), x.flip(0).split(3)):
        assert fit_robust(lambda parts=batches: parts) == once  # type: ignore[misc]


def test_standard_deviation_replaces_an_interquartile_range_of_zero() -> None:
    values = torch.full((2, 4, 5, 10), -4.0, dtype=torch.float64)
    values[0, 0] = 3.0
    fitted = fit_robust(lambda: [values])
    assert fitted.mean == pytest.approx(-4.0, abs=7 / N_BINS)
    assert fitted.std == pytest.approx(values.numpy().std(), rel=1e-12)


def test_per_frequency_flattens_a_slope(x: torch.Tensor) -> None:
    z = normalise(x, "per_frequency", "panel", fit_per_frequency(lambda: [x]))
    recorded = torch.where(x.isnan(), torch.nan, z)
    torch.testing.assert_close(recorded.nanmean((0, 1, 3)), z.new_zeros(6), rtol=0, atol=1e-6)
    level = normalise(x, "global", "panel", fit_global(lambda: [x])).mean((0, 1, 3))
    assert level[0] - level[5] > 0.5


def test_robust_constants_ignore_outliers(x: torch.Tensor) -> None:
    loud = x.clone()
    loud[4, 0, 0, :3] = 1_000.0
    plain, robust = fit_robust(lambda: [x]), fit_robust(lambda: [loud])
    np.testing.assert_allclose(robust.mean, plain.mean, rtol=0, atol=0.05)
    np.testing.assert_allclose(robust.std, plain.std, rtol=0.05)
    assert fit_global(lambda: [loud]).std > 10 * fit_global(lambda: [x]).std


def test_constants_survive_json() -> None:
    assert Constants(1.0, 2.0).plain() == {"mean": 1.0, "std": 2.0}
    assert Constants((1.0, 3.0), (2.0, 4.0)).plain() == {"mean": [1.0, 3.0], "std": [2.0, 4.0]}
