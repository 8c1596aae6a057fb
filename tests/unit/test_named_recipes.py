"""Several recipes of one source in one image: names, packs, and how views join them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.inputs import InputConfig, in_recipe, used_sources
from hms_ray.config.loading import load_space
from hms_ray.config.pair_recipes import PairsRecipe
from hms_ray.config.space import Space
from hms_ray.dataset.sources import source_key, sources_for
from hms_ray.errors import ConfigError
from hms_ray.experiment.preflight import image_size_of
from hms_ray.transforms.views import image_size, view_widths
from tests.refused import refusal
from tests.view_images import make_image

STFT = {"kind": "stft", "window_samples": 145}
WIDE = {**STFT, "centre_s": 30, "hop_samples": 12, "n_frames": 464, "midline": True}
CENTRE = {**STFT, "centre_s": 10, "hop_samples": 4, "midline": True}
ZOOM = {"centre_s": 14, "n_fft": 2048, "window_samples": 32, "hop_samples": 8}


def inputs(views: list[str], recipes: dict[str, Any] | None = None, **more: Any) -> InputConfig:
    return InputConfig.model_validate({"views": views, "recipes": recipes or {}, **more})


def key(*args: Any, **more: Any) -> dict[str, Any]:
    return canonical(Experiment(input=inputs(*args, **more)))["input"]  # type: ignore[no-any-return]


STACKED = inputs(
    ["pairs.wide over pairs.centre panels"], {"pairs": {"wide": WIDE, "centre": CENTRE}}
)
SPLICED = inputs(
    ["pairs.zoom in pairs.whole panels"], {"pairs": {"whole": {}, "zoom": ZOOM}}, splice_s=10
)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (STACKED, (504, 464)),
        (SPLICED, (1_024, 602)),
        (
            inputs(
                ["raw.whole over raw.mid over raw.near signals"],
                {
                    "raw": {
                        name: {"rate_hz": 200, "centre_s": seconds, "rows": rows}
                        for name, seconds, rows in (
                            ("whole", 50, 20),
                            ("mid", 30, 12),
                            ("near", 10, 4),
                        )
                    }
                },
            ),
            (648, 500),
        ),
        (
            inputs(
                ["eeg.full panels", "eeg.centre panels"],
                {"eeg": {"full": {}, "centre": {"centre_s": 10}}},
            ),
            (512, 512),
        ),
    ],
    ids=["stacked", "spliced", "raw", "side by side"],
)
def test_sizes_of_published_images(config: InputConfig, size: tuple[int, int]) -> None:
    assert image_size_of(config) == size


def windows(shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    panels, rows, times = shape
    values = np.random.default_rng(seed).normal(size=(2, times, panels, rows))
    return torch.from_numpy(values.astype(np.float16)).permute(0, 2, 3, 1)


def test_parts_of_a_panel_lie_under_each_other() -> None:
    made = {"pairs.wide": windows((3, 4, 6), 0), "pairs.centre": windows((3, 2, 6), 1)}
    config = inputs(["pairs.wide over pairs.centre panels"], {"pairs": {"wide": {}, "centre": {}}})
    shapes = {name: tuple(x.shape[1:]) for name, x in made.items()}
    assert image_size(config, shapes) == (18, 6)  # type: ignore[arg-type]
    image = make_image(made, config)[:, 0].numpy()
    wide, centre = (x.float().numpy() for x in made.values())
    expected = np.concatenate(
        [part[:, panel] for panel in range(3) for part in (wide, centre)], axis=1
    )
    np.testing.assert_allclose(image, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("splice_s", "removed"), [(None, 7), (0.5, 5), (0.55, 5), (0.6, 6)], ids=str
)
def test_the_centre_takes_the_place_of_the_middle(splice_s: float | None, removed: int) -> None:
    recipes = {"pairs": {"zoom": {"centre_s": 0.7}, "whole": {"hop_samples": 20, "centre_s": 2}}}
    config = inputs(["pairs.zoom in pairs.whole panels"], recipes, splice_s=splice_s)
    made = {"pairs.zoom": windows((3, 4, 9), 0), "pairs.whole": windows((3, 4, 21), 1)}
    shapes = {name: tuple(x.shape[1:]) for name, x in made.items()}
    assert view_widths(config, shapes) == (21 - removed + 9,)  # type: ignore[arg-type]
    image = make_image(made, config)[:, 0].numpy()
    zoom, whole = (x.float().numpy().reshape(2, 12, -1) for x in made.values())
    first = (21 - removed) // 2
    expected = np.concatenate([whole[..., :first], zoom, whole[..., first + removed :]], axis=2)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_joined_signals_are_folded_first() -> None:
    recipes = {"raw": {"whole": {"rows": 3}, "near": {"rows": 2}}}
    config = inputs(["raw.whole over raw.near signals"], recipes)
    made = {"raw.whole": windows((3, 1, 12), 0), "raw.near": windows((3, 1, 8), 1)}
    image = make_image(made, config)[:, 0].numpy()
    whole, near = (x.float().numpy()[:, :, 0] for x in made.values())
    for pair in range(3):
        for j in range(4):
            column = [*whole[0, pair, 3 * j : 3 * j + 3], *near[0, pair, 2 * j : 2 * j + 2]]
            np.testing.assert_allclose(image[0, 5 * pair : 5 * pair + 5, j], column, atol=1e-6)


def test_each_recipe_has_its_normalisation_and_block() -> None:
    recipes = {"eeg": {"full": {"downsample": [2, 2]}, "centre": {"normalisation": "per_image"}}}
    config = inputs(["eeg.full panels", "eeg.centre panels", "eeg panels"], recipes)
    assert config.treatment("eeg.full") == ("none", (2, 2))
    assert config.treatment("eeg.centre") == ("per_image", (1, 1))
    assert config.treatment("eeg") == ("none", (1, 1))


def test_packs_are_per_recipe_and_shared_by_equal_ones() -> None:
    used = used_sources(STACKED)
    assert list(used) == ["pairs.wide", "pairs.centre"]
    assert used["pairs.wide"] == PairsRecipe.model_validate(WIDE)
    keys = {source_key(name, recipe) for name, recipe in used.items()}
    assert len(keys) == 2
    assert keys == {source_key("pairs", recipe) for recipe in used.values()}


def test_names_and_unused_recipes_change_no_key() -> None:
    recipes = {"pairs": {"wide": WIDE, "centre": CENTRE}}
    same = {"pairs": {"a": WIDE, "b": CENTRE, "unused": {}}, "eeg": {"wide": {}}}
    before = key(["pairs.wide over pairs.centre panels"], recipes)
    assert before == key(["pairs.a over pairs.b panels"], same, splice_s=3)
    assert before != key(["pairs.centre over pairs.wide panels"], recipes)
    assert before != key(["pairs.wide panels", "pairs.centre panels"], recipes)
    zoomed = {"pairs": {"whole": {}, "zoom": ZOOM}}
    spliced = ["pairs.zoom in pairs.whole panels"]
    assert key(spliced, zoomed) != key(spliced, zoomed, splice_s=10)
    assert key(["panels"], recipes) == key(["panels"])


@pytest.mark.parametrize(
    ("view", "rule"),
    [
        ("pairs.wid panels", r"must have the recipe wid of the view .*did you mean wide\?"),
        ("kaggle.wide panels", "input.recipes.kaggle must have the recipe wide"),
        ("pairs.wide over eeg panels", "different recipes of one source"),
        ("pairs.wide over pairs.wide panels", "different recipes of one source"),
        ("kaggle over kaggle panels", "different recipes of one source"),
        ("eeg over eeg.full statistics", "only panels and signals can be joined, got statistics"),
        ("pairs in pairs.wide in pairs.centre panels", "or two by in"),
        ("pairs in pairs.wide over pairs.centre panels", "or two by in"),
        ("pairs under pairs.wide panels", "a view must be SOURCE PICTURE"),
        ("pairs.wide over panels", "a view must be SOURCE PICTURE"),
        ("pairs over pairs.wide panels", "the same panels in the same order"),
        ("eeg over eeg.full panels", "the same panels in the same order"),
    ],
)
def test_unsound_views_are_refused(view: str, rule: str) -> None:
    recipes = {"pairs": {"wide": WIDE, "centre": CENTRE}, "eeg": {"full": {"kind": "stft"}}}
    with pytest.raises(ValidationError, match=rule):
        inputs([view], recipes)


def test_parts_that_do_not_fit_are_refused_before_packing() -> None:
    uneven = {"pairs": {"wide": {**WIDE, "n_frames": 400}, "centre": CENTRE}}
    with refusal(
        ConfigError,
        "the parts of a view joined by over must be equally wide",
        got="400 and 464 columns",
        where="view pairs.wide over pairs.centre panels",
        fix="Set n_frames or hop_samples of the recipes.",
    ):
        image_size_of(inputs(["pairs.wide over pairs.centre panels"], uneven))
    coarse = {"pairs": {"whole": {}, "zoom": {**ZOOM, "n_mels": 32}}}
    with refusal(
        ConfigError,
        "the parts of a view joined by in must have panels of equal height",
        got="32 and 64 rows",
        where="view pairs.zoom in pairs.whole panels",
        fix="Give both recipes the same frequencies, or rows.",
    ):
        image_size_of(inputs(["pairs.zoom in pairs.whole panels"], coarse))
    with refusal(
        ConfigError,
        "a view joined by in must replace 1 to 312 of 313 columns",
        got="318",
        where="view pairs.zoom in pairs.whole panels",
        fix="Set input.splice_s to the seconds that are replaced.",
    ):
        image_size_of(SPLICED.model_copy(update={"splice_s": 51.0}))


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text(
        "experiment:\n  input:\n    recipes:\n      eeg:\n        full: {}\n        full: {}\n"
    )
    with pytest.raises(ConfigError, match="the key 'full' is repeated") as caught:
        load_space(file)
    assert "line 6" in str(caught.value)


@pytest.mark.parametrize("name", ["Full", "a.b", "1st", ""])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        inputs(["panels"], {"eeg": {name: {}}})


def test_searched_recipes_are_packed_each() -> None:
    parameters = {
        "input.recipes.pairs.wide.hop_samples": {"values": [12, 10]},
        "input.recipes.pairs.centre.normalisation": {"values": ["none", "global"]},
    }
    space = Space.model_validate(
        {"experiment": {"input": STACKED.model_dump(mode="json")}, "parameters": parameters}
    )
    assert len(sources_for(space)) == 3
    assert [in_recipe(path) for path in parameters] == [True, False]
    assert in_recipe("input.recipes.eeg.full.centre_s")
    assert not in_recipe("input.recipes.eeg.full")


def test_margins_of_named_recipes_hold_shifts() -> None:
    data = {
        "input": STACKED.model_dump(mode="json"),
        "training": {"augment": {"window_shift_s": 5}},
    }
    with pytest.raises(ValidationError, match=r"input\.recipes\.pairs\.wide\.margin_s must be"):
        Experiment.model_validate(data)
