"""Views against plain numpy: a contract for every view, and their joining."""

import numpy as np
import pytest
import torch

from hms_ray.config import InputConfig
from hms_ray.errors import ConfigError
from hms_ray.normalise import EPSILON, Constants
from hms_ray.views import VIEWS, image_size, join_views, make_image, pool_blocks


def windows(n: int = 3, frequencies: int = 8, times: int = 12, gaps: bool = True) -> torch.Tensor:
    """As a pack gives them: float16, (B, P, F, T) over contiguous (B, T, P, F)."""
    values = np.random.default_rng(2).normal(1, 2, size=(n, times, 4, frequencies))
    if gaps:
        values[0, :5, 1] = np.nan
        values[-1, 3, 2, 1] = np.nan
    return torch.from_numpy(values.astype(np.float16)).permute(0, 2, 3, 1)


def normalised(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    mean = np.nanmean(x, axis=axes, keepdims=True)
    std = np.nanstd(x, axis=axes, keepdims=True)
    return np.nan_to_num((x - mean) / (std + EPSILON), nan=0.0)


def panels(x: np.ndarray) -> np.ndarray:
    return np.concatenate(list(normalised(x, (2, 3)).transpose(1, 0, 2, 3)), axis=1)


def statistics(x: np.ndarray) -> np.ndarray:
    z = normalised(x, (1, 2, 3))
    return np.concatenate([z.min(1), z.max(1), z.mean(1), z.max(1) - z.min(1)], axis=1)


def test_panels_are_stacked_along_frequency_each_normalised_alone() -> None:
    x = windows()
    image = make_image(x, InputConfig(views=("panels",)), dtype=torch.float64)
    np.testing.assert_allclose(image[:, 0], panels(x.double().numpy()), atol=1e-12)


def test_statistics_are_taken_point_by_point_of_the_image_normalised_together() -> None:
    x = windows()
    image = make_image(x, InputConfig(views=("statistics",)), dtype=torch.float64)
    np.testing.assert_allclose(image[:, 0], statistics(x.double().numpy()), atol=1e-12)


def test_views_stand_side_by_side_in_the_order_asked_for() -> None:
    x = windows()
    config = InputConfig(views=("statistics", "panels"))
    image = make_image(x, config, dtype=torch.float64)[:, 0]
    y = x.double().numpy()
    np.testing.assert_allclose(image, np.concatenate([statistics(y), panels(y)], 2), atol=1e-12)


def test_global_views_share_the_constants() -> None:
    x = windows(gaps=False)
    config = InputConfig(views=("panels", "statistics"), normalisation="global")
    image = make_image(x, config, Constants(0.5, 2.0), torch.float64)[:, 0].numpy()
    z = (x.double().numpy() - 0.5) / (2.0 + EPSILON)
    np.testing.assert_allclose(image[:, :8, :12], z[:, 0], rtol=1e-12)
    np.testing.assert_allclose(image[:, 8:16, 12:], z.max(1), rtol=1e-12)


@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("mode", ["none", "per_image", "global"])
@pytest.mark.parametrize("pool", [(1, 1), (2, 3), (8, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contract_of_every_view(
    view: str, mode: str, pool: tuple[int, int], dtype: torch.dtype
) -> None:
    x = windows()
    before = x.clone()
    config = InputConfig(views=(view,), normalisation=mode, pool=pool)
    image = make_image(x, config, Constants(0.1, 2.0), dtype)
    assert tuple(image.shape[2:]) == image_size(config, 4, 8, 12)
    assert image.shape[:2] == (3, 1)
    assert image.dtype == dtype
    assert image.is_contiguous()
    assert torch.isfinite(image).all()
    torch.testing.assert_close(x, before, equal_nan=True)
    alone = make_image(x[1:2], config, Constants(0.1, 2.0), dtype)
    torch.testing.assert_close(alone[0], image[1])  # rows do not know of each other


@pytest.mark.parametrize("pool", [(2, 3), (4, 1), (1, 4), (8, 12)])
def test_blocks_are_means_of_what_was_recorded(pool: tuple[int, int]) -> None:
    x = windows()
    y = x.double().numpy().reshape(3, 4, 8 // pool[0], pool[0], 12 // pool[1], pool[1])
    pooled = pool_blocks(x, pool, torch.float64)
    if np.isnan(y).all((3, 5)).any():
        with pytest.warns(RuntimeWarning):
            expected = np.nanmean(y, axis=(3, 5))
    else:
        expected = np.nanmean(y, axis=(3, 5))
    np.testing.assert_allclose(pooled, expected, rtol=1e-12)
    torch.testing.assert_close(
        pool_blocks(x, pool), torch.from_numpy(expected).float(), equal_nan=True
    )


def test_an_image_without_gaps_is_pooled_the_same_beside_one_with_gaps() -> None:
    x = windows()
    assert torch.equal(pool_blocks(x, (2, 2))[1], pool_blocks(x[1:2], (2, 2))[0])


def test_sizes() -> None:
    both = ("panels", "statistics")
    assert image_size(InputConfig(), 4, 100, 300) == (400, 300)
    assert image_size(InputConfig(views=both), 4, 100, 300) == (400, 600)
    assert image_size(InputConfig(views=both, pool=(4, 4)), 4, 100, 300) == (100, 150)
    assert image_size(InputConfig(size=(224, 192)), 4, 100, 300) == (224, 192)
    with pytest.raises(ConfigError, match=r"input.pool must divide .* 300 times, got \[3, 4\]"):
        image_size(InputConfig(pool=(3, 4)), 4, 100, 300)
    with pytest.raises(ConfigError, match=r"input.pool must divide"):
        pool_blocks(windows(), (1, 5))


def test_resizing_keeps_the_mean_and_does_not_skip_pixels() -> None:
    x = torch.zeros(1, 4, 8, 12)
    x[0, 0, 3, 5] = 96.0
    image = join_views(x, InputConfig(normalisation="none", size=(8, 3)))
    assert image.shape == (1, 1, 8, 3)
    # Weights near an edge are renormalised, so the sum is kept roughly.
    assert image.sum() == pytest.approx(96.0 / 16, rel=0.25)
    same = InputConfig(normalisation="none", size=(32, 12))
    assert torch.equal(join_views(x, same)[0, 0], x[0].flatten(0, 1))
