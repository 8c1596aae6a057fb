"""Statistics over panels and over whole images."""

import numpy as np
import pytest
import torch

from hms_ray.transforms.normalise import normalise


@pytest.fixture
def x() -> torch.Tensor:
    values = np.random.default_rng(0).normal(1.0, 2.0, size=(5, 4, 6, 9))
    values[0, 1, :3] = np.nan
    values[1, 2] = np.nan
    values[2] = np.nan
    return torch.from_numpy(values)


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
