"""Weights of published ensembles."""

from pathlib import Path

import pytest

from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings, plan_blend, published_weights
from hms_ray.errors import PredictionError
from hms_ray.ladder.manifest import Manifest, StepEntry, read_manifest
from tests.blend_data import member, stored_blend
from tests.refused import refusal

MANIFEST = Path(__file__).parents[2] / "search_spaces" / "ladder" / "ladder.yaml"


def test_weights_of_published_ensembles() -> None:
    manifest = read_manifest(MANIFEST)
    halves = [member("small/2_statistics"), member("1_panels"), member("other")]
    assert published_weights("3_ensemble_fixed", halves, manifest) == [0.5, 0.5, 0.0]
    for entry in manifest.steps:
        if entry.blend is None or entry.blend.kind != "fixed":
            continue
        members = [member(step.name) for step in manifest.steps if step.blend is None]
        weights = published_weights(entry.name, members, manifest)
        assert sum(weights) == pytest.approx(1)
        assert sum(weight > 0 for weight in weights) >= 2
    four = [member(name) for name in
            ("1_panels", "2_statistics", "4_eeg_panels", "4_eeg_statistics")]  # fmt: skip
    assert published_weights("5_ensemble_fixed", four, manifest) == [0.25] * 4
    planned = plan_blend(Settings(published="5_ensemble_fixed"), four, manifest)
    assert planned.method == "published"
    names = [candidate.name for candidate in planned.candidates]
    assert names == ["equal", "published", "best_single", "simplex"]
    rule, fix = "5_ensemble_fixed needs the models 1_panels", "Give the ladder"
    with refusal(PredictionError, rule, got="1_panels 2 times", fix=fix):
        published_weights("5_ensemble_fixed", [*four, member("second/1_panels")], manifest)
    with refusal(PredictionError, rule, got="1_panels 0 times", fix=fix):
        published_weights("5_ensemble_fixed", four[2:], manifest)
    for name, got in (
        ("3_ensemble_fxed", "did you mean 3_ensemble_fix"),
        ("3_ensemble_optimised", "3_ensemble_optimised"),
    ):
        with refusal(PredictionError, "an ensemble of fixed weights", got=got):
            published_weights(name, four, manifest)


def nested_ensemble(kind: str) -> Manifest:
    """An ensemble of the model a and of an ensemble of the models a and b."""
    steps = [
        {"name": "a", "file": "a.yaml"},
        {"name": "b", "file": "b.yaml"},
        {"name": "inner", "blend": {"kind": kind, "members": ["a", "b"]}},
        {"name": "outer", "blend": {"kind": "fixed", "members": ["a", "inner"]}},
    ]
    return Manifest(steps=tuple(StepEntry.model_validate(step) for step in steps))


def test_weights_of_a_model_in_two_parts_add_up() -> None:
    models = [member("b"), member("a")]
    assert published_weights("outer", models, nested_ensemble("fixed")) == [0.25, 0.75]


def test_an_ensemble_of_optimised_weights_is_refused() -> None:
    with refusal(PredictionError, "must have fixed weights", got="inner in outer"):
        published_weights("outer", [member("a"), member("b")], nested_ensemble("optimised"))


def test_a_published_ensemble_is_blended(results: Path, mine: Path) -> None:
    files = [mine.parent / f"{name}.csv" for name in ("1_panels", "2_statistics")]
    for file in files:
        file.write_text(mine.read_text())
    settings = Settings(published="3_ensemble_fixed", targets="one", out=results / "r")
    blend(files, results, settings, read_manifest(MANIFEST))
    found = stored_blend(results / "r")
    assert found["method"] == "published"
    assert found["weights"] == {"1_panels": 0.5, "2_statistics": 0.5}
    assert found["nested"]["kl_all"] == pytest.approx(found["in_sample"]["kl_all"], abs=1e-12)
