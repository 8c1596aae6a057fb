"""Masks and dropped chains point by point against plain numpy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hms_ray.augment.draws import AUGMENTATIONS
from hms_ray.augment.masks import NONE, chain_numbers, masked_points, plan_drops, plan_masks
from hms_ray.augment.windows import WindowPlan, augment_windows, check_panels, plan_windows
from hms_ray.config.augmentation import AugmentConfig, MaskConfig
from hms_ray.config.eeg_recipes import RawRecipe
from hms_ray.errors import ConfigError
from hms_ray.signal.recipes import layout_of
from hms_ray.transforms.normalise import Constants, normalise
from tests.fold_data import PANELS

RAW = layout_of(RawRecipe()).panels
OFTEN = MaskConfig(probability=1.0, largest=0.45, n_masks=2)


def masks(n: int, config: MaskConfig | None = OFTEN, seed: int = 0) -> np.ndarray:
    return plan_masks(n, config, np.random.default_rng(seed))


def plan(n: int, **parts: Any) -> WindowPlan:
    draws = {kind: np.random.default_rng(0) for kind in AUGMENTATIONS}
    nothing = plan_windows(n, AugmentConfig(time_mask=MaskConfig(probability=0.0)), draws)
    assert nothing is not None
    return replace(nothing, **parts)


@pytest.mark.parametrize("shape", [(4, 100, 300), (4, 25, 75), (4, 16, 7), (4, 1, 40)])
def test_masked_points_of_windows(shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(1).normal(size=(9, *shape))
    values[3, 1, 0, 2] = np.nan
    time, frequency = masks(9), masks(9, MaskConfig(probability=0.5, largest=0.9), 1)
    dropped = np.array([0, 1, 2, 3, NONE, NONE, 1, NONE, 2])
    expected = values.copy()
    for row in range(9):
        for axis, stretches in ((3, time), (2, frequency)):
            n = values.shape[axis]
            for start, stop in stretches[row]:
                for point in range(n):
                    if start <= point / n and (point + 1) / n <= stop:
                        np.moveaxis(expected, axis, 1)[row, point] = np.nan
        if dropped[row] != NONE:
            expected[row, dropped[row]] = np.nan
    windows = torch.from_numpy(values)
    drawn = plan(9, dropped=dropped, time_masks=time, frequency_masks=frequency)
    out = augment_windows(windows, drawn, PANELS, "kaggle")
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(windows, values)
    assert np.isnan(expected).sum() > 1
    assert not np.isnan(expected).all(axis=(1, 2, 3)).any()


def test_windows_are_flipped_before_masking() -> None:
    values = np.random.default_rng(2).normal(size=(1, 4, 5, 8))
    drawn = plan(
        1,
        mirrored=np.array([True]),
        reversed_=np.array([True]),
        dropped=np.array([0]),
        time_masks=np.array([[[0.0, 0.25]]]),
        frequency_masks=np.array([[[0.8, 1.0]]]),
    )
    expected = values[:, [1, 0, 3, 2], :, ::-1].copy()
    expected[:, PANELS.index("LL")] = np.nan
    expected[..., :2] = np.nan
    expected[:, :, 4] = np.nan
    out = augment_windows(torch.from_numpy(values), drawn, PANELS, "kaggle")
    np.testing.assert_array_equal(out, expected)


def test_mask_shares_widths_and_starts() -> None:
    drawn = masks(4000, MaskConfig(probability=0.4, largest=0.3, n_masks=2))
    masked = (drawn[..., 1] > 0).all(axis=1)
    assert masked.mean() == pytest.approx(0.4, abs=0.03)
    assert (drawn[~masked] == 0).all()
    widths = drawn[masked, :, 1] - drawn[masked, :, 0]
    assert widths.max() < 0.3
    assert widths.mean() == pytest.approx(0.15, abs=0.01)
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()
    assert drawn[masked, :, 0].mean() == pytest.approx((1 - 0.15) / 2, abs=0.02)
    covered = masked_points(drawn, 300).mean(axis=1)
    assert covered.max() <= 0.6
    assert covered[masked].mean() == pytest.approx(0.28, abs=0.02)


@given(
    n_points=st.integers(1, 400),
    n_masks=st.integers(1, 9),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 10**6),
)
def test_masks_never_hide_a_whole_axis(
    n_points: int, n_masks: int, share: float, seed: int
) -> None:
    config = MaskConfig(probability=1.0, largest=share / n_masks, n_masks=n_masks)
    covered = masked_points(masks(20, config, seed), n_points)
    assert covered.shape == (20, n_points)
    assert not covered.all(axis=1).any()


def test_adjacent_widest_masks_leave_a_point() -> None:
    whole = np.array([[[0.0, 0.5], [0.5, 0.999]]])
    assert masked_points(whole, 10).tolist() == [[True] * 9 + [False]]
    assert masked_points(whole, 1).tolist() == [[False]]
    assert not masked_points(np.zeros((1, 2, 2)), 10).any()


def test_masks_that_could_hide_the_whole_axis_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"n_masks \* largest must be below 1.*got 1.2"):
        MaskConfig(largest=0.4, n_masks=3)


@pytest.mark.parametrize("source", ["kaggle", "raw"])
def test_one_of_four_chains_is_dropped(source: str) -> None:
    panels = PANELS if source == "kaggle" else RAW
    dropped = np.array([NONE, 0, 1, 2, 3])
    windows = torch.zeros(5, len(panels), 2, 6)
    out = augment_windows(windows, plan(5, dropped=dropped), panels, source)
    lost = {
        row: [panel for p, panel in enumerate(panels) if out[row, p].isnan().all()]
        for row in range(5)
    }
    assert lost[0] == []
    if source == "kaggle":
        assert [lost[row] for row in range(1, 5)] == [[panel] for panel in PANELS]
    else:
        assert lost[1] == ["Fp1-F7", "F7-T3", "T3-T5", "T5-O1"]
        assert lost[4] == ["Fp2-F4", "F4-C4", "C4-P4", "P4-O2"]
        assert chain_numbers(RAW).tolist() == [k for k in range(4) for _ in range(4)] + [
            4,
            4,
        ]
    for row, names in lost.items():
        assert int(out[row].isnan().sum()) == 12 * len(names)


def test_dropped_chains_are_uniform() -> None:
    drawn = plan_drops(8000, 0.5, np.random.default_rng(0))
    shares = np.bincount(drawn - NONE, minlength=5) / 8000
    np.testing.assert_allclose(shares, [0.5, *4 * [0.125]], atol=0.02)


def test_pack_without_a_chain_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        check_panels(AugmentConfig(channel_drop=0.5), {"kaggle": ("LL", "RL", "LP")})
    fault = error.value
    assert fault.rule == "channel_drop needs panels of every chain"
    assert (fault.got, fault.where) == ("LL RL LP", "the pack of kaggle")
    assert "channel_drop: 0" in (fault.fix or "")


@pytest.mark.parametrize("mode", ["per_image", "global"])
@pytest.mark.parametrize("scope", ["panel", "image"])
def test_masked_values_are_ignored_in_statistics_and_become_the_mean(mode: Any, scope: Any) -> None:
    values = np.random.default_rng(5).normal(2.0, 3.0, size=(2, 4, 6, 20))
    stretches = np.array([[[0.25, 0.5]], [[0.0, 0.0]]])
    drawn = plan(2, time_masks=stretches)
    constants = Constants(2.0, 3.0)
    hidden = augment_windows(torch.from_numpy(values), drawn, PANELS, "kaggle")
    out = normalise(hidden, mode, scope, constants).numpy()
    assert (out[0, :, :, 5:10] == 0).all()
    left = np.delete(values[0], np.arange(5, 10), axis=2)
    if mode == "global":
        expected = (left - 2.0) / 3.0
    else:
        axes = (1, 2) if scope == "panel" else (0, 1, 2)
        expected = (left - left.mean(axes, keepdims=True)) / left.std(axes, keepdims=True)
    np.testing.assert_allclose(np.delete(out[0], np.arange(5, 10), axis=2), expected, atol=1e-5)
    assert (out[1] != 0).all()


def test_golden_plan() -> None:
    drawn = masks(3, MaskConfig(probability=0.6, largest=0.3), seed=42)
    np.testing.assert_allclose(drawn[:, 0], [[0, 0], [0.763855, 0.792109], [0, 0]], rtol=1e-4)
