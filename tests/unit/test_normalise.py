"""Normalisation against plain numpy, NaN included."""

import warnings

import numpy as np
import pytest
import torch

from hms_ray.transforms.normalise import EPSILON, Constants, normalise


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


def test_per_panel_ignores_the_scope(x: torch.Tensor) -> None:
    expected = normalise(x, "per_image", "panel")
    for scope in ("panel", "image"):
        assert torch.equal(normalise(x, "per_panel", scope), expected)
    assert not torch.allclose(normalise(x, "per_image", "image"), expected)


def test_per_panel_erases_left_right_differences() -> None:
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(3, 4, 6, 9)))
    louder = x.clone()
    louder[:, 1] = 2 * louder[:, 1] + 5
    torch.testing.assert_close(
        normalise(louder, "per_panel", "image"),
        normalise(x, "per_panel", "image"),
        rtol=1e-5,
        atol=1e-5,
    )
    assert (
        normalise(louder, "per_image", "image") - normalise(x, "per_image", "image")
    ).std() > 0.5


def test_constant_panel_becomes_zero() -> None:
    x = torch.randn(1, 4, 5, 5)
    x[0, 2] = 1.7
    out = normalise(x, "per_image", "panel")
    assert out[0, 2].abs().max() < 1e-5
    assert out[0, 1].std() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("mode", ["global", "robust"])
def test_global_constants_ignore_the_scope(x: torch.Tensor, mode: str) -> None:
    constants = Constants(mean=0.7, std=1.9)
    expected = np.nan_to_num((x.numpy() - 0.7) / (1.9 + EPSILON), nan=0.0)
    for scope in ("panel", "image"):
        out = normalise(x, mode, scope, constants)
        np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_frequency_constants_apply_to_their_frequency(x: torch.Tensor) -> None:
    mean, std = np.linspace(-1, 2, 6), np.linspace(0.5, 3, 6)
    constants = Constants(tuple(mean.tolist()), tuple(std.tolist()))
    expected = (x.numpy() - mean[:, None]) / (std[:, None] + EPSILON)
    expected = np.nan_to_num(expected, nan=0.0)
    for scope in ("panel", "image"):
        out = normalise(x, "per_frequency", scope, constants)
        np.testing.assert_allclose(out, expected, rtol=1e-12)
        single = normalise(x.float(), "per_frequency", scope, constants)
        np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-6)
