"""CutMix pixel by pixel against plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hms_ray.augment.cutmix import CutMixPlan, Swap, apply_cutmix, plan_cutmix
from hms_ray.config.augmentation import CutMixConfig

ALWAYS = {axis: CutMixConfig(probability=1.0, axis=axis) for axis in ("time", "frequency")}


def targets(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    votes = np.array(
        [rng.multinomial(6, 0.04 + 0.76 * np.eye(6)[k]) for k in rng.integers(6, size=n)]
    )
    return votes / 6


def plan(
    axis: str, size: tuple[int, int], widths: tuple[int, ...] = (1,), seed: int = 0
) -> CutMixPlan:
    drawn = plan_cutmix(targets(32), size, widths, ALWAYS[axis], np.random.default_rng(seed))
    assert drawn is not None
    return drawn


def cut_by_hand(images: np.ndarray, drawn: CutMixPlan) -> np.ndarray:
    out = images.copy()
    for swap in drawn.swaps:
        for row, donor in zip(swap.rows, swap.donors, strict=True):
            for first, stop in swap.bands:
                for line in range(first, stop):
                    if drawn.axis == "time":
                        out[row, :, :, line] = images[donor, :, :, line]
                    else:
                        out[row, :, line, :] = images[donor, :, line, :]
    return out


@pytest.mark.parametrize("axis", ["time", "frequency"])
@pytest.mark.parametrize(
    ("size", "widths"),
    [((400, 300), (300,)), ((40, 60), (300, 300)), ((100, 75), (75,)), ((40, 81), (30, 51))],
)
def test_pixels_of_cut_images(axis: str, size: tuple[int, int], widths: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).normal(size=(32, 1, *size)).astype(np.float32)
    for seed in range(3):
        drawn = plan(axis, size, widths, seed)
        given_images = torch.from_numpy(images)
        out = apply_cutmix(given_images, drawn)
        np.testing.assert_array_equal(out, cut_by_hand(images, drawn))
        np.testing.assert_array_equal(given_images, images)
        assert (out.numpy() != images).any()


def test_rows_swap_within_classes_with_half_of_the_votes() -> None:
    shares = targets(64, seed=3)
    shares[0] = [0.5, 0.5, 0, 0, 0, 0]
    drawn = plan_cutmix(shares, (400, 300), (300,), ALWAYS["time"], np.random.default_rng(0))
    assert drawn is not None
    expected = [np.flatnonzero(shares[:, k] >= 0.5) for k in range(6)]
    for swap, rows in zip(drawn.swaps, expected, strict=True):
        assert np.array_equal(swap.rows, rows)
        assert np.array_equal(np.sort(swap.donors), rows)
        assert len(swap.bands) == 1
    assert 0 in drawn.swaps[0].rows
    assert 0 in drawn.swaps[1].rows
    assert len({swap.bands for swap in drawn.swaps}) > 1


def test_class_with_one_row_is_not_cut() -> None:
    shares = np.eye(6)
    for seed in range(5):
        drawn = plan_cutmix(shares, (400, 300), (300,), ALWAYS["time"], np.random.default_rng(seed))
        assert drawn == CutMixPlan("time", ())


def test_bands_equal_the_published_ones() -> None:
    starts, widths = set(), set()
    for seed in range(600):
        for swap in plan("time", (400, 300), (300,), seed).swaps:
            ((first, stop),) = swap.bands
            starts.add(first)
            widths.add(stop - first)
    assert starts == set(range(51)) | set(range(175, 226))
    assert widths == set(range(25, 76))


def test_frequency_cuts_rows_and_a_second_band_with_two_views() -> None:
    seen = set()
    for seed in range(60):
        one, two = (
            plan("frequency", (400, 300), (300,), seed),
            plan("frequency", (400, 600), (300, 300), seed),
        )
        for alone, joined in zip(one.swaps, two.swaps, strict=True):
            ((first, stop),) = alone.bands
            assert joined.bands[0] == (first, stop)
            second = [(300 + first, min(300 + stop, 400))] if first < 100 else []
            assert list(joined.bands[1:]) == second
            seen.add(len(joined.bands))
    assert seen == {1, 2}


def test_time_cuts_the_same_columns_of_both_views() -> None:
    for swap in plan("time", (400, 600), (300, 300)).swaps:
        (first, stop), second = swap.bands
        assert stop <= 300
        assert second == (first + 300, stop + 300)


@given(widths=st.lists(st.integers(4, 700), min_size=1, max_size=3), seed=st.integers(0, 10**6))
def test_time_never_cuts_the_centre_of_any_view(widths: list[int], seed: int) -> None:
    for swap in plan("time", (40, sum(widths)), tuple(widths), seed).swaps:
        for view, (first, stop) in enumerate(swap.bands):
            width = widths[view]
            cut = np.arange(first, stop) - sum(widths[:view])
            # No part of a cut column lies within 125-175 of 300.
            assert not ((cut + 1 > width * 125 / 300) & (cut < width * 175 / 300)).any()
            assert ((cut >= 0) & (cut < width)).all()


def test_share_of_cut_batches_matches_the_probability() -> None:
    config, generator = CutMixConfig(probability=0.4), np.random.default_rng(0)
    cut = [plan_cutmix(targets(8), (40, 30), (30,), config, generator) for _ in range(2000)]
    assert np.mean([drawn is not None for drawn in cut]) == pytest.approx(0.4, abs=0.04)
    never = CutMixConfig(probability=0.0)
    assert plan_cutmix(targets(8), (40, 30), (30,), never, generator) is None


def test_donors_are_uncut_images() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4).contiguous()
    rows = np.array([0, 1, 2])
    chain = CutMixPlan(
        "time",
        (
            Swap(rows, np.array([1, 2, 0]), ((0, 2),)),
            Swap(rows[:2], rows[:2][::-1].copy(), ((1, 3),)),
        ),
    )
    out = apply_cutmix(images, chain)[:, 0, 0]
    np.testing.assert_array_equal(out, [[1, 1, 1, 0], [2, 0, 0, 1], [0, 0, 2, 2]])


def test_golden_plan() -> None:
    drawn = plan("time", (400, 300), (300,), seed=42)
    assert [swap.bands[0] for swap in drawn.swaps] == [
        (197, 244),
        (26, 100),
        (25, 68),
        (28, 98),
        (210, 253),
    ]
    assert drawn.swaps[0].donors.tolist() == [5, 23, 27, 6, 7]


def test_golden_plan_of_equal_and_unequal_widths() -> None:
    """The widths count, not their unit, and the image may have been resized."""
    for pair in ((300, 300), (75, 75), (1, 1)):
        equal = plan("time", (400, 600), pair, seed=42)
        assert [swap.bands for swap in equal.swaps[:2]] == [
            ((197, 244), (497, 544)),
            ((26, 100), (326, 400)),
        ]
    unequal = plan("time", (400, 556), (300, 256), seed=42)
    assert [swap.bands for swap in unequal.swaps[:2]] == [
        ((197, 244), (469, 508)),  # 300 + 256 / 300 * (197, 244), rounded inwards
        ((26, 100), (323, 385)),
    ]
    resized = plan("time", (400, 278), (300, 256), seed=42)
    assert [swap.bands for swap in resized.swaps[:1]] == [((99, 122), (235, 254))]
    assert [swap.donors.tolist() for swap in unequal.swaps] == [
        swap.donors.tolist() for swap in plan("time", (400, 300), (300,), seed=42).swaps
    ]


@pytest.mark.parametrize("axis", ["time", "frequency"])
def test_empty_band_cuts_nothing(axis: str) -> None:
    images = torch.randn(2, 1, 4, 4)
    swap = Swap(np.array([0, 1]), np.array([1, 0]), ((3, 2), (2, 2)))
    assert torch.equal(apply_cutmix(images, CutMixPlan(axis, (swap,))), images)
