"""Published ensembles as recipes of a blend."""

from pathlib import Path

import pytest

from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings, plan, recipe_weights
from hms_ray.errors import PredictionError
from hms_ray.ladder.manifest import Manifest, StepEntry, read_manifest
from tests.blend_data import make_file, make_results, member, told

MANIFEST = Path(__file__).parents[2] / "search_spaces" / "ladder" / "ladder.yaml"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return make_results(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_file(tmp_path)


def test_published_ensembles_are_recipes() -> None:
    manifest = read_manifest(MANIFEST)
    halves = [member("small/2_statistics"), member("1_panels"), member("other")]
    assert recipe_weights("3_ensemble_fixed", halves, manifest) == [0.5, 0.5, 0.0]
    for entry in manifest.steps:
        if entry.blend is None or entry.blend.kind != "fixed":
            continue
        members = [member(step.name) for step in manifest.steps if step.blend is None]
        weights = recipe_weights(entry.name, members, manifest)
        assert sum(weights) == pytest.approx(1)
        assert sum(weight > 0 for weight in weights) >= 2
    four = [member(name) for name in
            ("1_panels", "2_statistics", "4_eeg_panels", "4_eeg_statistics")]  # fmt: skip
    assert recipe_weights("5_ensemble_fixed", four, manifest) == [0.25] * 4
    planned = plan(Settings(recipe="5_ensemble_fixed"), four, manifest)
    assert planned.method == "recipe"
    names = [candidate.name for candidate in planned.candidates]
    assert names == ["equal", "recipe", "best_single", "simplex"]
    message = r"models .*, each once, got 1_panels 2 times\. Name the ladder, or files"
    with pytest.raises(PredictionError, match=message):
        recipe_weights("5_ensemble_fixed", [*four, member("second/1_panels")], manifest)
    message = r"the recipe 5_ensemble_fixed needs the models .*, got 1_panels not at all, "
    with pytest.raises(PredictionError, match=message):
        recipe_weights("5_ensemble_fixed", four[2:], manifest)
    message = r"fixed weights, got 3_ensemble_optimised\. There are: 3_ensemble_fixed, "
    with pytest.raises(PredictionError, match=message):
        recipe_weights("3_ensemble_optimised", four, manifest)


def test_a_model_in_two_parts_of_a_recipe_weighs_what_both_give_it() -> None:
    steps = [
        {"name": "a", "file": "a.yaml"},
        {"name": "b", "file": "b.yaml"},
        {"name": "inner", "blend": {"kind": "fixed", "members": ["a", "b"]}},
        {"name": "outer", "blend": {"kind": "fixed", "members": ["a", "inner"]}},
    ]
    manifest = Manifest(steps=tuple(StepEntry.model_validate(step) for step in steps))
    assert recipe_weights("outer", [member("b"), member("a")], manifest) == [0.25, 0.75]


def test_a_recipe_of_optimised_weights_is_refused() -> None:
    steps = [
        {"name": "a", "file": "a.yaml"},
        {"name": "b", "file": "b.yaml"},
        {"name": "inner", "blend": {"kind": "optimised", "members": ["a", "b"]}},
        {"name": "outer", "blend": {"kind": "fixed", "members": ["inner", "a"]}},
    ]
    manifest = Manifest(steps=tuple(StepEntry.model_validate(step) for step in steps))
    with pytest.raises(PredictionError, match="models must have fixed weights, got inner in outer"):
        recipe_weights("outer", [member("a"), member("b")], manifest)


def test_a_recipe_is_blended(results: Path, file: Path) -> None:
    rows = file.read_text()
    for name in ("1_panels", "2_statistics"):
        (file.parent / f"{name}.csv").write_text(rows)
    files = [str(file.parent / f"{name}.csv") for name in ("1_panels", "2_statistics")]
    settings = Settings(recipe="3_ensemble_fixed", targets="one", out=results / "r")
    blend(files, results, settings, read_manifest(MANIFEST))
    found = told(results / "r")
    assert (found["method"], found["weights"]) == ("recipe", {"1_panels": 0.5, "2_statistics": 0.5})
    assert found["nested"]["kl_all"] == pytest.approx(found["in_sample"]["kl_all"], abs=1e-12)
