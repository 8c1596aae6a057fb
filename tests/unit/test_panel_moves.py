"""Mirrored heads and reordered chains against potentials of electrodes that are moved."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from hms_ray.augment.windows import augment_windows, check_panels, plan_windows
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.eeg_recipes import RawRecipe
from hms_ray.config.electrodes import CHAINS, ELECTRODES
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.panel_maps import CHAIN_ORDERS, LATERAL_SWAP
from hms_ray.config.validation import validated
from hms_ray.errors import ConfigError
from hms_ray.signal.recipes import layout_of
from tests.fold_data import PANELS
from tests.refused import refusal

ODD = str.maketrans("12345678", "21436587")
"""The 10-20 system: odd numbers are on the left, the next even ones on the right."""
ENDS = ["Fp1 O1", "Fp2 O2", "F7 T5", "F8 T6", "F3 P3", "F4 P4", "T3 T3", "T4 T4", "C3 C3"]
ENDS += ["C4 C4", "Fz Pz", "Cz Cz"]
FRONT_BACK = {a: b for both in ENDS for a, b in (both.split(), both.split()[::-1])}
TRANSVERSE = ("F7-F3", "F3-F4", "F4-F8", "T3-C3", "C3-Cz", "Cz-C4", "C4-T4", "T5-P3", "P3-P4")
TRANSVERSE += ("P4-T6",)
ORDERS = {
    "chains": layout_of(RawRecipe()).panels,
    "interleaved": layout_of(RawRecipe(order="interleaved", midline=False)).panels,
    "list of the montage in any direction": (
        *("O1-T5", "F7-Fp1", "Fp2-F8", "T6-O2", "F7-T3", "T4-F8", "T5-T3", "T4-T6"),
        *("Fp1-F3", "P3-O1", "F4-Fp2", "P4-O2", "C3-F3", "C3-P3", "F4-C4", "P4-C4"),
        *("Cz-Pz", "Fz-Cz"),
    ),
    "transverse pairs": TRANSVERSE,
}


def potentials(rows: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(rows, 1, 6)) for name in ELECTRODES}


def signals(at: Mapping[str, np.ndarray], panels: tuple[str, ...]) -> np.ndarray:
    pairs = [panel.split("-") for panel in panels]
    return np.stack([at[anode] - at[cathode] for anode, cathode in pairs], axis=1)


def changed(windows: np.ndarray, panels: tuple[str, ...], source: str, **config: float):
    draws = {name: np.random.default_rng(0) for name in AugmentConfig.model_fields}
    plan = plan_windows(len(windows), AugmentConfig(**config), draws)  # type: ignore[arg-type]
    assert plan is not None
    return augment_windows(torch.from_numpy(windows), plan, panels, source).numpy()


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize(
    ("field", "moved"),
    [
        ("hemisphere_flip", lambda name: name.translate(ODD)),
        ("front_back_flip", lambda name: FRONT_BACK[name]),
    ],
)
def test_signals_are_those_of_the_mirrored_head(
    order: str, field: str, moved: Callable[[str], str]
) -> None:
    """Spectrograms are powers: they are those of the mirrored head without any sign."""
    panels, at = ORDERS[order], potentials()
    head = {name: at[moved(name)] for name in ELECTRODES[:-1]}
    expected = signals(head, panels)
    values = signals(at, panels)
    np.testing.assert_allclose(changed(values, panels, "raw", **{field: 1.0}), expected)
    np.testing.assert_allclose(changed(values**2, panels, "pairs.x", **{field: 1.0}), expected**2)
    assert (expected != values).any()


def test_front_and_back_change_the_sign_of_a_raw_pair() -> None:
    panels = ORDERS["chains"]
    values = np.arange(1.0, 19).reshape(1, 18, 1, 1)
    out = changed(values, panels, "raw", front_back_flip=1.0)[0, :, 0, 0]
    assert out[panels.index("Fp1-F7")] == -values[0, panels.index("T5-O1"), 0, 0]
    assert out[panels.index("Cz-Pz")] == -values[0, panels.index("Fz-Cz"), 0, 0]
    assert (out < 0).all()
    np.testing.assert_array_equal(
        changed(values[:, :4], PANELS, "kaggle", front_back_flip=1.0), values[:, :4]
    )


@pytest.mark.parametrize("order", ["chains", "interleaved"])
@pytest.mark.parametrize("source", ["raw", "pairs", "eeg"])
def test_chains_take_the_signals_of_others(order: str, source: str) -> None:
    panels = PANELS if source == "eeg" else ORDERS[order]
    values = np.random.default_rng(1).normal(size=(400, len(panels), 2, 3))
    swapped = changed(values, panels, source, lateral_swap=1.0)
    shuffled = changed(values, panels, source, chain_shuffle=0.5)
    draws = np.random.default_rng(0)
    rows, numbers = draws.random(400) < 0.5, draws.integers(24, size=400)
    names = list(CHAINS)
    members = {
        name: [name] if source == "eeg" else ["-".join(pair) for pair in pairs]
        for name, pairs in CHAINS.items()
    }
    seen = set()
    for row in range(400):
        order_ = CHAIN_ORDERS[numbers[row]] if rows[row] else (0, 1, 2, 3)
        seen.add(order_)
        for number, name in enumerate(names):
            other = {"LL": "LP", "LP": "LL", "RL": "RP", "RP": "RL"}[name]
            for here, there, drawn in zip(
                members[name], members[other], members[names[order_[number]]], strict=True
            ):
                at = panels.index(here)
                np.testing.assert_array_equal(swapped[row, at], values[row, panels.index(there)])
                np.testing.assert_array_equal(shuffled[row, at], values[row, panels.index(drawn)])
    for at, panel in enumerate(panels):
        if "z" in panel:
            np.testing.assert_array_equal(shuffled[:, at], values[:, at])
    assert len(seen) == 24
    assert CHAIN_ORDERS[LATERAL_SWAP] == (2, 3, 0, 1)


def test_chains_of_a_list_in_mixed_directions_change_signs() -> None:
    panels = ("F7-Fp1", "Fp2-F8", "Fp1-F3", "F4-Fp2")
    values = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)
    out = changed(values, panels, "raw", lateral_swap=1.0)[0, :, 0, 0]
    assert out.tolist() == [-3, -4, -1, -2]


@pytest.mark.parametrize("order", ["chains", "list of the montage in any direction"])
def test_moves_follow_each_other(order: str) -> None:
    """First left and right, then front and back, then chains; and the sign once more."""
    panels = ORDERS[order]
    values = np.random.default_rng(2).normal(size=(5, 18, 1, 4))
    values[2, 3, 0, 1] = np.nan
    alone = values
    fields = ("hemisphere_flip", "front_back_flip", "lateral_swap", "sign_flip")
    for field in fields:
        alone = changed(alone, panels, "raw", **{field: 1.0})
    together = changed(values, panels, "raw", **dict.fromkeys(fields, 1.0))
    np.testing.assert_array_equal(together, alone)
    assert np.isnan(together).sum() == 1


def experiment(order: object, view: str = "raw signals", **augment: float) -> Experiment:
    inputs = {"views": [view], "raw": {"order": order}, "pairs": {"order": order}}
    stages = [{}, {"augment": augment}]
    data = {"input": inputs, "training": {"stages": stages}}
    return validated(Experiment, data, "here")


@pytest.mark.parametrize(
    ("field", "order", "rule"),
    [
        ("hemisphere_flip", ["Fp1-F7", "F7-T3"], "panels of both sides, each with its counter"),
        ("hemisphere_flip", ["Fz-Cz", "Cz-Pz"], "panels of both sides"),
        ("front_back_flip", ["Fp1-F7", "Fp2-F8"], "for each pair its counterpart in front or"),
        ("lateral_swap", ["Fp1-F7", "Fp2-F8", "Fp1-F3"], "the same panels of all four chains"),
        ("chain_shuffle", list(TRANSVERSE), "the same panels of all four chains"),
        ("channel_drop", ["Fp1-F7", "Fp2-F8"], "panels of every chain"),
    ],
)
@pytest.mark.parametrize("view", ["raw signals", "pairs panels"])
def test_lists_without_counterparts_are_refused_with_the_file(
    field: str, order: list[str], rule: str, view: str
) -> None:
    got = f"augment.{field} needs {rule}"
    with refusal(ConfigError, got, where="here"):
        experiment(order, view, **{field: 0.5})
    with pytest.raises(ConfigError, match=f"got {' '.join(order)} in the order of {view[:3]}"):
        experiment(order, view, **{field: 0.5})
    with pytest.raises(ConfigError, match=f"list the missing pairs, or set {field}: 0"):
        experiment(order, view, **{field: 0.5})
    experiment(order, view)
    for named in ("chains", "interleaved"):
        experiment(named, view, **{field: 0.5})
    with refusal(
        ConfigError,
        f"{field} needs {rule}",
        got=" ".join(order),
        where="the pack of raw",
        fix=f"Set training.augment.{field}: 0",
    ):
        check_panels(AugmentConfig(**{field: 0.5}), {"raw": order})  # type: ignore[arg-type]


def test_augmentations_that_change_no_view_are_refused() -> None:
    rule = "augment.sign_flip needs a view of raw signals, since a spectrogram has no sign"
    with refusal(ConfigError, rule, where="here"):
        experiment("chains", "pairs panels", sign_flip=0.5)
    rule = "augment.front_back_flip needs a view of pairs or raw, since the mean over a chain"
    with refusal(ConfigError, rule, where="here"):
        experiment("chains", "eeg panels", front_back_flip=0.5)


@pytest.mark.parametrize("field", ["sign_flip", "front_back_flip", "lateral_swap", "chain_shuffle"])
def test_augmentations_that_are_off_keep_the_key_of_before(field: str) -> None:
    first, second = canonical(experiment("chains", **{field: 0.5}))["training"]["stages"]
    assert field not in first["augment"]
    assert second["augment"][field] == 0.5
