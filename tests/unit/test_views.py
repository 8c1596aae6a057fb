"""Views compared with NumPy point by point, and joining of views."""

from typing import get_args

import numpy as np
import pytest
import torch

from hms_ray.config.inputs import EegConfig, InputConfig, Normalisation, RawConfig
from hms_ray.config.views import PICTURES
from hms_ray.errors import ConfigError
from hms_ray.transforms.downsample import downsample
from hms_ray.transforms.fit_statistics import FITS
from hms_ray.transforms.normalise import EPSILON, Constants
from hms_ray.transforms.views import image_size, join_views, view_widths
from tests.view_images import make_image


def windows(n: int = 3, frequencies: int = 8, times: int = 12, gaps: bool = True) -> torch.Tensor:
    """In the layout of a pack: float16, (B, P, F, T) over contiguous (B, T, P, F)."""
    values = np.random.default_rng(2).normal(1, 2, size=(n, times, 4, frequencies))
    if gaps:
        values[0, :5, 1] = np.nan
        values[-1, 3, 2, 1] = np.nan
    return torch.from_numpy(values.astype(np.float16)).permute(0, 2, 3, 1)


SHAPES = {"kaggle": (4, 100, 300), "eeg": (4, 128, 256), "raw": (18, 1, 5000)}


def signals(n: int = 3, times: int = 24) -> torch.Tensor:
    values = np.random.default_rng(3).normal(0, 2, size=(n, times, 5, 1))
    values[1, :4, 2] = np.nan
    return torch.from_numpy(values.astype(np.float16)).permute(0, 2, 3, 1)


def downsampled_in_numpy(x: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    n, p, f, t = x.shape
    blocks = x.reshape(n, p, f // block[0], block[0], t // block[1], block[1])
    recorded = (~np.isnan(blocks)).sum(axis=(3, 5))
    return np.where(recorded > 0, np.nansum(blocks, axis=(3, 5)) / np.maximum(recorded, 1), np.nan)


def normalised_in_numpy(y: np.ndarray, mode: str, together: tuple[int, ...]) -> np.ndarray:
    """With this batch's own constants for fitted modes."""
    if mode == "none":
        mean, std = np.zeros(1), np.full(1, 1 - EPSILON)
    elif mode == "per_frequency":
        mean, std = np.nanmean(y, axis=(0, 1, 3)), np.nanstd(y, axis=(0, 1, 3))
        mean, std = mean[:, None], std[:, None]
    elif mode == "robust":
        first, mean, third = np.nanpercentile(y, [25, 50, 75])
        std = (third - first) / 1.349
    else:
        axes = {"per_image": together, "per_panel": (2, 3), "global": None}[mode]
        mean, std = (f(y, axis=axes, keepdims=True) for f in (np.nanmean, np.nanstd))
    return np.nan_to_num((y - mean) / (std + EPSILON), nan=0.0)


def drawn_in_numpy(z: np.ndarray, picture: str) -> np.ndarray:
    if picture in ("panels", "signals"):
        rows = list(z.transpose(1, 0, 2, 3))
    elif picture == "statistics":
        rows = [z.min(1), z.max(1), z.mean(1), z.max(1) - z.min(1)]
    else:
        rows = list(np.percentile(z, [20, 40, 60, 80], axis=1))
    return np.concatenate(rows, axis=1)


@pytest.mark.parametrize("block", [(1, 1), (2, 3)])
@pytest.mark.parametrize("mode", get_args(Normalisation))
@pytest.mark.parametrize(
    "view", [f"{source} {picture}" for source in PICTURES for picture in PICTURES[source]]
)
def test_every_view_and_normalisation_equals_numpy(
    view: str, mode: str, block: tuple[int, int]
) -> None:
    source, picture = view.split()
    if source == "raw":
        x, block = signals(), (1, block[1])
    else:
        x = windows()
    treatment = {"normalisation": mode, "downsample": block}
    inputs = treatment if source == "kaggle" else {source: treatment}
    config = InputConfig.model_validate({"views": (view,), **inputs})
    downsampled = downsample(x, block, torch.float64)
    constants = {source: FITS[mode](lambda: [downsampled])} if mode in FITS else {}
    image = make_image({source: x}, config, constants, torch.float64)
    y = downsampled_in_numpy(x.double().numpy(), block)
    together = (2, 3) if picture in ("panels", "signals") else (1, 2, 3)
    expected = drawn_in_numpy(normalised_in_numpy(y, mode, together), picture)
    # Quartiles are looked up in a histogram of 65,536 steps of the range.
    tolerance = 4 * np.ptp(y[~np.isnan(y)]) / 2**16 if mode == "robust" else 1e-10
    np.testing.assert_allclose(image[:, 0], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_signal_columns_have_consecutive_samples(rows: int) -> None:
    x = signals()
    config = InputConfig(
        views=("raw signals",), raw=RawConfig(normalisation="per_image", rows=rows)
    )
    image = make_image({"raw": x}, config, dtype=torch.float64)[:, 0]
    z = normalised_in_numpy(x.double().numpy(), "per_panel", ())[:, :, 0]
    assert image.shape == (3, 5 * rows, 24 // rows)
    for signal in range(5):
        for sample in range(24):
            row, column = signal * rows + sample % rows, sample // rows
            np.testing.assert_allclose(image[:, row, column], z[:, signal, sample], atol=1e-12)


def test_views_of_unequal_heights_are_resized_in_height_only() -> None:
    x, y = windows(gaps=False), windows(frequencies=5, times=6, gaps=False)
    views = ("kaggle panels", "eeg panels", "eeg percentiles")
    config = InputConfig(views=views, normalisation="none")
    shapes = {"kaggle": (4, 8, 12), "eeg": (4, 5, 6)}
    image = make_image({"kaggle": x, "eeg": y}, config, dtype=torch.float64)
    assert tuple(image.shape[2:]) == image_size(config, shapes) == (32, 24)
    assert view_widths(config, shapes) == (12, 6, 6)
    z = y.double().numpy()
    ranked = np.percentile(z, [20, 40, 60, 80], axis=1).transpose(1, 0, 2, 3)
    tall = [z.reshape(3, 20, 6), ranked.reshape(3, 20, 6)]
    # Bilinear without aligned corners: row i of 32 looks at (i + 0.5) * 20 / 32 - 0.5.
    at = np.clip((np.arange(32) + 0.5) * 20 / 32 - 0.5, 0, 19)
    low = np.floor(at).astype(int)
    part = (at - low)[:, None]
    wide = [p[:, low] * (1 - part) + p[:, np.minimum(low + 1, 19)] * part for p in tall]
    panels_as_they_are = x.double().numpy().reshape(3, 32, 12)
    expected = np.concatenate([panels_as_they_are, *wide], axis=2)
    np.testing.assert_allclose(image[:, 0], expected, atol=1e-10)


def test_height_and_size_set_the_image_size() -> None:
    x, y = windows(gaps=False), windows(frequencies=5, times=6, gaps=False)
    config = InputConfig(views=("eeg panels", "statistics"), height=40)
    shapes = {"kaggle": (4, 8, 12), "eeg": (4, 5, 6)}
    assert make_image({"kaggle": x, "eeg": y}, config).shape == (3, 1, 40, 18)
    assert image_size(config, shapes) == (40, 18)
    sized = InputConfig(views=config.views, height=40, size=(16, 9))
    assert make_image({"kaggle": x, "eeg": y}, sized).shape == (3, 1, 16, 9)
    assert image_size(sized, shapes) == (16, 9)
    assert view_widths(sized, shapes) == (6, 12)


def test_sources_have_their_own_normalisation_blocks_and_constants() -> None:
    x, y = windows(gaps=False), windows(frequencies=4, times=6, gaps=False)
    eeg = EegConfig(normalisation="global", downsample=(1, 2))
    config = InputConfig(
        views=("panels", "eeg panels"), normalisation="none", eeg=eeg, downsample=(2, 1)
    )
    constants = {"eeg": Constants(0.5, 2.0)}
    image = make_image({"kaggle": x, "eeg": y}, config, constants, torch.float64)[:, 0]
    downsampled = x.double().reshape(3, 4, 4, 2, 12).mean(3).reshape(3, 16, 12)
    np.testing.assert_allclose(image[:, :, :12], downsampled, rtol=1e-12)
    scaled = (y.double().reshape(3, 4, 4, 3, 2).mean(4) - 0.5) / (2.0 + EPSILON)
    np.testing.assert_allclose(image[:, :, 12:], scaled.reshape(3, 16, 3), rtol=1e-12)


@pytest.mark.parametrize("block", [(2, 3), (4, 1), (1, 4), (8, 12)])
def test_blocks_are_means_of_recorded_values(block: tuple[int, int]) -> None:
    x = windows()
    expected = downsampled_in_numpy(x.double().numpy(), block)
    np.testing.assert_allclose(downsample(x, block, torch.float64), expected, rtol=1e-12)
    torch.testing.assert_close(
        downsample(x, block), torch.from_numpy(expected).float(), equal_nan=True
    )


def test_gaps_of_other_images_do_not_change_downsampling() -> None:
    x = windows()
    assert torch.equal(downsample(x, (2, 2))[1], downsample(x[1:2], (2, 2))[0])


def test_image_sizes() -> None:
    both = ("panels", "statistics")
    assert image_size(InputConfig(), SHAPES) == (400, 300)
    assert image_size(InputConfig(views=both), SHAPES) == (400, 600)
    assert image_size(InputConfig(views=both, downsample=(4, 4)), SHAPES) == (100, 150)
    assert image_size(InputConfig(size=(224, 192)), SHAPES) == (224, 192)
    three = ("panels", "eeg panels", "eeg percentiles")
    assert image_size(InputConfig(views=three), SHAPES) == (400, 812)
    assert view_widths(InputConfig(views=three), SHAPES) == (300, 256, 256)
    raw = InputConfig(views=("raw signals",), raw=RawConfig(rows=10))
    assert image_size(raw, SHAPES) == (180, 500)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (
            {"downsample": (3, 4)},
            r"input\.downsample must divide a window of 100 .* 300 times, got \[3, 4\]",
        ),
        (
            {"views": ("eeg panels",), "eeg": {"downsample": (3, 1)}},
            r"input\.eeg\.downsample must divide a window of 128 frequencies x 256 times",
        ),
        (
            {"views": ("raw signals",), "raw": {"rows": 3, "downsample": (1, 2)}},
            r"input\.raw\.rows must divide 2500 samples, got 3",
        ),
    ],
)
def test_blocks_that_do_not_divide_a_window_are_refused(
    config: dict[str, object], rule: str
) -> None:
    with pytest.raises(ConfigError, match=rule):
        image_size(InputConfig.model_validate(config), SHAPES)
    with pytest.raises(ConfigError, match=r"input\.downsample must divide"):
        downsample(windows(), (1, 5))


def test_resizing_keeps_the_mean_and_does_not_skip_pixels() -> None:
    x = torch.zeros(1, 4, 8, 12)
    x[0, 0, 3, 5] = 96.0
    image = join_views({"kaggle": x}, InputConfig(normalisation="none", size=(8, 3)))
    assert image.shape == (1, 1, 8, 3)
    # Weights near an edge are renormalised, so the sum is kept roughly.
    assert image.sum() == pytest.approx(96.0 / 16, rel=0.25)
    same = InputConfig(normalisation="none", size=(32, 12))
    assert torch.equal(join_views({"kaggle": x}, same)[0, 0], x[0].flatten(0, 1))
