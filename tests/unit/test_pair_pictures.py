"""Spectrograms per electrode pair: against librosa and SciPy, orders of pairs, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.inputs import InputConfig, used_sources
from hms_ray.config.pair_recipes import PairsRecipe
from hms_ray.config.space import Space
from hms_ray.dataset.sources import source_key, sources_for
from hms_ray.signal.pair_pictures import pair_images
from hms_ray.signal.recipes import Layout, layout_of
from hms_ray.signal.windows import make_windows
from tests.eeg_windows import noise_windows, wave_window
from tests.pair_pictures import CHAINS, INTERLEAVED, MIDLINE, by_library

EEG = 0.1 * wave_window() + noise_windows()
RECIPES = {
    "third": PairsRecipe(order="interleaved", clip_uv=1024, scale_uv=32, divide=10),
    "magnified": PairsRecipe(centre_s=14, n_fft=2048, window_samples=32, hop_samples=8, divide=10),
    "librosa": PairsRecipe(
        mels="librosa",
        window_samples=129,
        n_mels=40,
        frequencies_hz=(0, 20),
        scale="log",
        reference_power=50,
        smallest_power=0.5,
    ),
    "clipped": PairsRecipe(scale="log1p", clip_values=(2, 9), subtract=5.5, divide=3.5),
    "50": PairsRecipe(kind="stft", midline=True),
    "30": PairsRecipe(
        kind="stft", midline=True, centre_s=30, window_samples=145, hop_samples=12, n_frames=464
    ),
    "even frames": PairsRecipe(
        kind="stft", window_samples=100, n_fft=256, hop_samples=30, frequencies_hz=(0, 100)
    ),
    "own pairs": PairsRecipe(
        kind="stft", order=("F7-F8", "Cz-Fz"), centre_s=10, scale="db", divide=10, hop_samples=7
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_pictures_equal_librosa_and_scipy(name: str) -> None:
    recipe = RECIPES[name]
    (made,) = make_windows(EEG, recipe)
    expected = by_library(EEG[0].double().numpy(), recipe)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "rows", "frames", "step_s"),
    [
        ("third", 64, 313, 0.16),
        ("magnified", 64, 351, 0.04),
        ("50", 27, 513, 0.095),
        ("30", 14, 464, 0.06),
    ],
)
def test_layouts_of_published_recipes(name: str, rows: int, frames: int, step_s: float) -> None:
    recipe = RECIPES[name]
    pairs = INTERLEAVED if recipe.order == "interleaved" else CHAINS
    names = tuple(pairs + (MIDLINE if recipe.midline else []))
    assert layout_of(recipe) == Layout(names, rows, frames, step_s)


def test_order_moves_panels_and_reversed_pairs_change_nothing() -> None:
    chains, interleaved, own = (
        make_windows(EEG, PairsRecipe(kind="stft", order=order))[0]
        for order in ("chains", "interleaved", ("O2-P4", "F8-Fp2"))
    )
    moved = [CHAINS.index(pair) for pair in INTERLEAVED]
    assert torch.equal(interleaved, chains[moved])
    torch.testing.assert_close(own, chains[[15, 4]])


def test_values_do_not_depend_on_the_window() -> None:
    """A loud second leaves the others as they are: no maximum, mean or deviation of a window."""
    loud = EEG.clone()
    loud[:, 9_000:9_200] *= 50
    for recipe in RECIPES.values():
        before, after = make_windows(EEG, recipe), make_windows(loud, recipe)
        early = slice(0, recipe.kept_frames // 3)
        torch.testing.assert_close(after[..., early], before[..., early], rtol=0, atol=1e-5)


def test_flat_signals_have_the_smallest_power() -> None:
    eeg = EEG.clone()
    for electrode in ("Fp1", "F7"):
        eeg[..., ELECTRODES.index(electrode)] = 0
    (mel,) = make_windows(eeg, PairsRecipe(smallest_power=1e-6))
    assert torch.allclose(mel[0], torch.tensor(-60.0))
    (stft,) = make_windows(eeg, PairsRecipe(kind="stft"))
    assert torch.equal(stft[0], torch.zeros_like(stft[0]))


def test_groups_of_signals_give_equal_bits() -> None:
    signals = noise_windows(2)[:, :, :6].transpose(1, 2).contiguous()
    recipe = PairsRecipe()
    whole = pair_images(signals, recipe, recipe.kept_frames)
    for k in range(2):
        alone = pair_images(signals[k : k + 1], recipe, recipe.kept_frames)
        torch.testing.assert_close(alone[0], whole[k], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"order": "chain"}, r"interleaved, or a list of pairs .*did you mean chains"),
        ({"order": ["Fp1-F7", "F7-T33"]}, r"unknown electrode T33 .*did you mean T3\?"),
        ({"order": ["Fp1-EKG"]}, "unknown electrode EKG"),
        ({"order": ["Fp1"]}, "two electrodes joined by a hyphen"),
        ({"order": ["Fp1-Fp1"]}, "two electrodes joined by a hyphen"),
        ({"order": ["Fp1-F7", "F7-Fp1"]}, "listed once, got F7-Fp1 after Fp1-F7"),
        ({"order": []}, "must not be empty"),
        ({"centre_s": 0.5}, r"hold a frame of 128 samples, at least 0\.64 s, got 0\.5 s"),
        ({"kind": "stft", "centre_s": 1}, "hold a frame of 270 samples"),
        ({"n_fft": 100}, "n_fft must be at least a frame of 128 samples, got 100"),
        ({"n_frames": 314}, "at most the 313 frames of centre_s, got 314"),
        ({"hop_samples": 10_001}, "hop_samples must not be longer"),
        ({"frequencies_hz": [20, 10]}, "frequencies_hz must rise and end at 100 Hz"),
        ({"frequencies_hz": [1, 101]}, "frequencies_hz must rise and end at 100 Hz"),
        ({"kind": "stft", "frequencies_hz": [1, 1.2]}, r"must hold a bin; bins are 0\.741 Hz"),
        ({"n_mels": 200}, "every mel band must hold a bin; none is between"),
        ({"clip_values": [3, 3]}, "clip_values must rise"),
        ({"divide": 1e-3}, "below 65504, the largest float16, got about 400000"),
        ({"centre_s": 51}, "less than or equal to 50"),
    ],
    ids=str,
)
def test_unsound_recipes_are_refused(values: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        PairsRecipe.model_validate(values)


def key(**pairs: Any) -> dict[str, Any]:
    data = {"input": {"views": ["pairs panels"], "pairs": pairs}}
    found: dict[str, Any] = canonical(Experiment.model_validate(data))["input"]
    return found


def test_defaults_written_out_are_one_recipe() -> None:
    written = {
        "kind": "mel",
        "window_samples": 128,
        "hop_samples": 32,
        "n_fft": 512,
        "n_frames": 313,
        "frequencies_hz": [0.53, 30],
        "scale": "db",
    }
    assert key() == key(**written)
    assert source_key("pairs", PairsRecipe()) == source_key(
        "pairs", PairsRecipe.model_validate(written)
    )
    # What a recipe does not use changes nothing.
    assert key(kind="stft") == key(kind="stft", n_mels=9, mels="librosa", smallest_power=1)
    own = {"order": ["Fp1-F7", "Fp2-F8"]}
    assert key(**own) == key(**own, midline=True)


@pytest.mark.parametrize(
    "change",
    [
        {"order": "interleaved"},
        {"midline": True},
        {"n_mels": 32},
        {"mels": "librosa"},
        {"scale": "log"},
        {"smallest_power": 1.0},
        {"reference_power": 2.0},
        {"clip_values": [-10, 10]},
        {"subtract": 1.0},
        {"divide": 2.0},
        {"scale_uv": 32.0},
        {"n_fft": 1024},
        {"n_frames": 300},
        {"frequencies_hz": [1, 30]},
        {"kind": "stft"},
    ],
    ids=str,
)
def test_every_field_changes_key_and_pack(change: dict[str, Any]) -> None:
    assert key(**change) != key()
    changed = PairsRecipe.model_validate(change)
    assert source_key("pairs", changed) != source_key("pairs", PairsRecipe())


def test_golden_names_of_packs() -> None:
    """A change of these names makes all users rebuild their packs."""
    assert source_key("pairs", PairsRecipe()) == "pairs-dba37d217ea7"
    assert source_key("pairs", PairsRecipe(kind="stft")) == "pairs-30ac520a3167"


def test_searched_orders_are_packed_each() -> None:
    space = Space.model_validate(
        {
            "experiment": {"input": {"views": ["pairs panels"], "pairs": {"kind": "stft"}}},
            "parameters": {"input.pairs.order": {"values": ["chains", "interleaved"]}},
        }
    )
    assert len(sources_for(space)) == 2


def test_raw_signals_have_an_order_too_and_keep_their_key() -> None:
    def raw(**values: Any) -> dict[str, Any]:
        data = {"input": {"views": ["raw signals"], "raw": values}}
        found: dict[str, Any] = canonical(Experiment.model_validate(data))["input"]["raw"]
        return found

    assert "order" not in raw()
    assert raw() == raw(order="chains") != raw(order="interleaved")
    config = InputConfig.model_validate(
        {"views": ["raw signals"], "raw": {"order": ["F8-Fp2", "Fp1-F7"]}}
    )
    (recipe,) = used_sources(config).values()
    assert recipe is not None
    assert layout_of(recipe).panels == ("F8-Fp2", "Fp1-F7")
    plain = layout_of(recipe.model_copy(update={"order": "interleaved", "midline": True}))
    assert plain.panels == tuple(INTERLEAVED + MIDLINE)
