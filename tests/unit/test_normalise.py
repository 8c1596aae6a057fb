"""Normalisation against plain numpy, NaN included."""

import warnings

import numpy as np
import pytest
import torch

from hms_ray.errors import TrainingError
from hms_ray.fit import fit_global
from hms_ray.normalise import EPSILON, Constants, normalise


@pytest.fixture
def x() -> torch.Tensor:
    values = np.random.default_rng(0).normal(1.0, 2.0, size=(5, 4, 6, 9))
    values[0, 1, :3] = np.nan
    values[1, 2] = np.nan
    values[2] = np.nan
    return torch.from_numpy(values)


@pytest.mark.parametrize(("scope", "axes"), [("panel", (2, 3)), ("image", (1, 2, 3))])
def test_per_image(x: torch.Tensor, scope: str, axes: tuple[int, ...]) -> None:
    out = normalise(x, "per_image", scope).numpy()
    values = x.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images and panels that are NaN throughout
        mean = np.nanmean(values, axis=axes, keepdims=True)
        std = np.nanstd(values, axis=axes, keepdims=True)
    expected = np.nan_to_num((values - mean) / (std + EPSILON), nan=0.0)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    assert not out[2].any()


@pytest.mark.parametrize("scope", ["panel", "image"])
def test_gaps_of_other_rows_change_nothing_in_a_row(x: torch.Tensor, scope: str) -> None:
    beside = normalise(x, "per_image", scope)
    for row in (1, 3, 4):
        alone = normalise(x[row : row + 1], "per_image", scope)
        torch.testing.assert_close(beside[row : row + 1], alone, rtol=0, atol=1e-14)


def test_an_even_panel_is_zero_and_its_neighbours_are_not() -> None:
    x = torch.randn(1, 4, 5, 5)
    x[0, 2] = 1.7
    out = normalise(x, "per_image", "panel")
    assert out[0, 2].abs().max() < 1e-5
    assert out[0, 1].std() == pytest.approx(1.0, rel=0.05)


def test_none_only_fills_gaps(x: torch.Tensor) -> None:
    np.testing.assert_array_equal(normalise(x, "none", "panel"), np.nan_to_num(x.numpy(), nan=0.0))


def test_global_uses_the_constants_whatever_the_scope(x: torch.Tensor) -> None:
    constants = Constants(mean=0.7, std=1.9)
    expected = np.nan_to_num((x.numpy() - 0.7) / (1.9 + EPSILON), nan=0.0)
    for scope in ("panel", "image"):
        out = normalise(x, "global", scope, constants)
        np.testing.assert_allclose(out, expected, rtol=1e-12)
    with pytest.raises(TrainingError, match="global normalisation must be fitted"):
        normalise(x, "global", "panel")


@pytest.mark.parametrize("mode", ["none", "per_image", "global"])
def test_input_is_left_as_it_is_and_the_dtype_kept(x: torch.Tensor, mode: str) -> None:
    for values in (x, x.float()):
        before = values.clone()
        out = normalise(values, mode, "panel", Constants(0.0, 1.0))
        assert out.dtype == values.dtype
        torch.testing.assert_close(values, before, equal_nan=True)


def test_global_constants_pool_all_finite_pixels(x: torch.Tensor) -> None:
    fitted = fit_global(lambda: [x[:2], x[2:3], x[3:]])
    assert fitted.mean == pytest.approx(np.nanmean(x.numpy()), rel=1e-12)
    assert fitted.std == pytest.approx(np.nanstd(x.numpy()), rel=1e-12)
    assert fit_global(lambda: iter([x[:2], x[2:3], x[3:]])) == fitted


def test_global_constants_of_half_precision_are_summed_in_double() -> None:
    values = np.full(3_000_000, 7.0, dtype=np.float16)
    values[::2] = 7.5
    fitted = fit_global(lambda: [torch.from_numpy(values)])
    assert fitted.mean == pytest.approx(7.25, abs=1e-12)
    assert fitted.std == pytest.approx(0.25, abs=1e-7)


def test_rows_without_recorded_power_are_refused() -> None:
    with pytest.raises(TrainingError, match="recorded power, got no finite pixel"):
        fit_global(lambda: [torch.full((2, 4, 3, 3), float("nan"))])
