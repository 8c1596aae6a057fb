"""Mosaics column by column against plain numpy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hms_ray.augment.mosaic import MosaicPlan, apply_mosaic, plan_mosaic
from hms_ray.augment.positions import view_spans
from hms_ray.config.augmentation import MosaicConfig
from hms_ray.errors import ConfigError


def plan(n_rows: int, width: int, widths: tuple[int, ...], seed: int = 0) -> MosaicPlan:
    drawn = plan_mosaic(n_rows, width, widths, MosaicConfig(), 0, np.random.default_rng(seed))
    assert drawn is not None
    return drawn


def owners(width: int, widths: tuple[int, ...]) -> list[int]:
    """The view that has most of each column of a resized image, the left one in doubt."""
    ends = np.cumsum((0, *widths)) * width / sum(widths)
    return [
        max(
            range(len(widths)),
            key=lambda view: min(ends[view + 1], column + 1) - max(ends[view], column),
        )
        for column in range(width)
    ]


def mosaic_by_hand(images: np.ndarray, members: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    width = images.shape[3]
    out = np.full((len(members), *images.shape[1:]), np.nan)
    owner = np.array(owners(width, widths))
    for row, four in enumerate(members):
        for view in range(len(widths)):
            columns = np.flatnonzero(owner == view)
            n = len(columns)
            at = columns[0]
            for part, member in enumerate(four):
                n_part = n // 4 + (part < n % 4)
                for j in range(n_part):
                    left, right = j * n / n_part, (j + 1) * n / n_part
                    total = np.zeros(images.shape[1:3])
                    for i in range(n):
                        shared = min(i + 1, right) - max(i, left)
                        if shared > 0:
                            total += shared * images[member, :, :, columns[i]]
                    out[row, :, :, at] = total / (right - left)
                    at += 1
    return out


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        ((4, 300), (300,)),  # published: four times 75 columns
        ((3, 600), (300, 300)),
        ((3, 81), (30, 51)),  # no width that 4 divides
        ((3, 60), (300, 256)),  # resized, the views meet within a column
        ((2, 7), (7,)),
        ((2, 4), (4,)),
        ((2, 37), (64, 20, 40)),
    ],
)
def test_columns_of_mosaics(size: tuple[int, int], widths: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).normal(size=(9, 1, *size))
    drawn = plan(9, size[1], widths)
    given_images = torch.from_numpy(images)
    out = apply_mosaic(given_images, drawn)
    expected = mosaic_by_hand(images, drawn.members, widths)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(given_images, images)
    single = apply_mosaic(given_images.float(), drawn)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5)


def test_published_mosaic_is_the_mean_of_four_columns() -> None:
    images = torch.arange(300.0).expand(5, 1, 2, 300) + 1000 * torch.arange(5.0).view(5, 1, 1, 1)
    drawn = MosaicPlan(np.array([[4, 0, 0, 2]]), view_spans(300, (300,)))
    (row,) = apply_mosaic(images, drawn)[:, 0, 1]
    quarter = np.arange(75) * 4 + 1.5
    np.testing.assert_array_equal(
        row, np.concatenate([4000 + quarter, quarter, quarter, 2000 + quarter])
    )


def test_target_is_the_mean_of_four() -> None:
    targets = np.random.default_rng(2).dirichlet(np.ones(6), size=9)
    drawn = plan(9, 300, (300,))
    mixed = drawn.mixed(targets)
    for row, four in enumerate(drawn.members):
        np.testing.assert_allclose(mixed[row], sum(targets[k] for k in four) / 4, rtol=1e-15)
    np.testing.assert_allclose(mixed.sum(1), 1.0, atol=1e-15)


def test_members_are_drawn_with_replacement_from_the_batch() -> None:
    members = np.concatenate([plan(12, 40, (40,), seed).members for seed in range(60)])
    assert members.shape == (720, 4)
    counts = np.bincount(members.ravel(), minlength=12)
    assert counts.min() > 180
    assert counts.max() < 300
    assert any(len(set(four)) < 4 for four in members.tolist())


def test_mosaics_only_in_the_first_epochs_with_the_probability() -> None:
    generator = np.random.default_rng(0)
    config = MosaicConfig(epochs=2)
    drawn = [plan_mosaic(4, 40, (40,), config, epoch, generator) for epoch in range(4)]
    assert [mosaic is not None for mosaic in drawn] == [True, True, False, False]
    seldom = MosaicConfig(probability=0.3)
    made = [plan_mosaic(4, 40, (40,), seldom, 50, generator) for _ in range(2000)]
    assert np.mean([mosaic is not None for mosaic in made]) == pytest.approx(0.3, abs=0.04)


def test_views_narrower_than_four_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least 4 columns in each view, got 3.*mosaic"):
        plan(4, 20, (300, 53))


@given(widths=st.lists(st.integers(1, 700), min_size=1, max_size=4), width=st.integers(1, 900))
def test_view_spans_cover_the_image(widths: list[int], width: int) -> None:
    spans = view_spans(width, widths)
    assert spans[0][0] == 0
    assert spans[-1][1] == width
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    assert view_spans(sum(widths), widths) == tuple(
        (sum(widths[:view]), sum(widths[: view + 1])) for view in range(len(widths))
    )


def test_golden_plan() -> None:
    drawn = plan(32, 300, (300,), seed=42)
    assert drawn.spans == ((0, 300),)
    assert drawn.members[:2].tolist() == [[20, 14, 13, 27], [2, 22, 6, 3]]
