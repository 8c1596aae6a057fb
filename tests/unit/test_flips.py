"""Flips of windows, panel by panel."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hms_ray.augment.windows import augment_windows, check_panels, plan_windows
from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.config.panel_maps import LEFT_RIGHT, mirrored_panels
from hms_ray.errors import ConfigError
from hms_ray.signal.recipes import layout_of
from tests.fold_data import PANELS

LEFT = ("Fp1", "F7", "F3", "T3", "C3", "T5", "P3", "O1")
RIGHT = ("Fp2", "F8", "F4", "T4", "C4", "T6", "P4", "O2")
PANELS_OF = {
    "kaggle": PANELS,
    "eeg": layout_of(EegRecipe()).panels,
    "raw": layout_of(RawRecipe()).panels,
    "raw without midline": layout_of(RawRecipe(midline=False)).panels,
}


def flipped(windows: torch.Tensor, panels: Sequence[str], **config: float) -> torch.Tensor:
    generators = {name: np.random.default_rng(0) for name in AugmentConfig.model_fields}
    plan = plan_windows(len(windows), AugmentConfig(**config), generators)  # type: ignore[arg-type]
    assert plan is not None
    return augment_windows(windows, plan, panels, "x")


def on_left(panel: str) -> bool:
    return panel in ("LL", "LP") or panel.split("-")[0] in LEFT


def on_right(panel: str) -> bool:
    return panel in ("RL", "RP") or panel.split("-")[0] in RIGHT


def test_every_electrode_has_a_mirrored_counterpart() -> None:
    for left, right in zip(LEFT, RIGHT, strict=True):
        assert LEFT_RIGHT[left] == right
        assert LEFT_RIGHT[right] == left
    assert {name for name in LEFT_RIGHT if LEFT_RIGHT[name] == name} == {"Fz", "Cz", "Pz"}
    assert set(ELECTRODES) - set(LEFT_RIGHT) == {"EKG"}


def test_mirrored_order_of_panels() -> None:
    def mirrored(panels: Sequence[str]) -> list[str]:
        found = mirrored_panels(panels, LEFT_RIGHT)
        assert found is not None
        assert set(found.signs) == {1}
        return [panels[place] for place in found.places]

    assert mirrored(PANELS) == ["RL", "LL", "RP", "LP"]
    assert PANELS_OF["eeg"] == ("LL", "LP", "RL", "RP")
    assert mirrored(PANELS_OF["eeg"]) == ["RL", "RP", "LL", "LP"]
    assert mirrored(PANELS_OF["raw"]) == [
        *("Fp2-F8", "F8-T4", "T4-T6", "T6-O2", "Fp1-F7", "F7-T3", "T3-T5", "T5-O1"),
        *("Fp2-F4", "F4-C4", "C4-P4", "P4-O2", "Fp1-F3", "F3-C3", "C3-P3", "P3-O1"),
        *("Fz-Cz", "Cz-Pz"),
    ]


@pytest.mark.parametrize("source", list(PANELS_OF))
def test_swapping_hemispheres_twice_is_the_identity(source: str) -> None:
    panels = PANELS_OF[source]
    rng = np.random.default_rng(3)
    values = rng.normal(size=(5, len(panels), 3, 8))
    values[:, [not on_left(panel) for panel in panels]] = 0
    values[2, :, 1, 4] = np.nan
    windows = torch.from_numpy(values)
    before = windows.clone()
    once = flipped(windows, panels, hemisphere_flip=1.0)
    for number, panel in enumerate(panels):
        there = panels.index("-".join(LEFT_RIGHT.get(part, "") for part in panel.split("-")))
        np.testing.assert_array_equal(once[:, there], values[:, number])
        assert (once[0, number] != 0).any() == on_right(panel)
    torch.testing.assert_close(windows, before, rtol=0, atol=0, equal_nan=True)
    twice = flipped(once, panels, hemisphere_flip=1.0)
    np.testing.assert_array_equal(twice, values)


def test_reversing_time_twice_is_the_identity() -> None:
    values = np.random.default_rng(4).normal(size=(3, 4, 2, 7))
    values[0, 1, 0, 2] = np.nan
    once = flipped(torch.from_numpy(values), PANELS, time_flip=1.0)
    for time in range(7):
        np.testing.assert_array_equal(once[..., time], values[..., 6 - time])
    np.testing.assert_array_equal(flipped(once, PANELS, time_flip=1.0), values)


def test_rows_are_flipped_independently() -> None:
    values = torch.arange(4.0).view(1, 4, 1, 1) + torch.arange(2.0).view(1, 1, 1, 2) / 2
    windows = values.expand(4000, 4, 1, 2).contiguous()
    mirrored = flipped(windows, PANELS, hemisphere_flip=0.3)[:, 0, 0, 0] == 1
    reversed_ = flipped(windows, PANELS, time_flip=0.6)[:, 0, 0, 0] == 0.5
    assert mirrored.double().mean() == pytest.approx(0.3, abs=0.03)
    assert reversed_.double().mean() == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    "panels", [("LL", "LP"), ("LL", "RL", "LP"), ("Fz-Cz", "Cz-Pz"), ("Fp1-F7", "A", "Fp2-F8")]
)
def test_panels_without_counterparts_are_refused(panels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        check_panels(AugmentConfig(hemisphere_flip=0.5), {"eeg": panels})
    fault = error.value
    assert "panels of both sides" in fault.rule
    assert (fault.got, fault.where) == (" ".join(panels), "the pack of eeg")
    assert "hemisphere_flip: 0" in (fault.fix or "")
    check_panels(AugmentConfig(time_flip=0.5), {"eeg": panels})


@pytest.mark.parametrize("source", ["raw", "raw.full", "eeg", "pairs", "kaggle"])
def test_signs_of_raw_signals_alone_change_by_row(source: str) -> None:
    windows = torch.randn(40, 18, 1, 6, generator=torch.Generator().manual_seed(0))
    windows[3, 2, 0, 1:3] = float("nan")
    before = windows.clone()
    draws = {name: np.random.default_rng(0) for name in AugmentConfig.model_fields}
    plan = plan_windows(40, AugmentConfig(sign_flip=0.5), draws)  # type: ignore[arg-type]
    assert plan is not None
    changed = augment_windows(windows, plan, PANELS_OF["raw"], source)
    negated = np.random.default_rng(0).random(40) < 0.5
    np.testing.assert_array_equal(plan.negated, negated)
    expected = windows.numpy().copy()
    if source.startswith("raw"):
        expected[negated] *= -1
    np.testing.assert_array_equal(changed.numpy(), expected)
    np.testing.assert_array_equal(windows.numpy(), before.numpy())
