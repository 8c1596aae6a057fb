"""Manifests: what is read, and what is refused by name."""

from pathlib import Path

import pytest

from hms_ray.errors import ConfigError
from hms_ray.ladder.manifest import Blend, read_manifest
from hms_ray.ladder.steps import load_ladder

EXPERIMENT = "experiment: {model: {name: test_resnet, pretrained: false}}\n"


def write(folder: Path, steps: str, **files: str) -> Path:
    for name, text in {"a": EXPERIMENT, "b": EXPERIMENT, **files}.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    manifest = folder / "ladder.yaml"
    manifest.write_text(f"steps:\n{steps}", encoding="utf-8")
    return manifest


A, B = "  - {name: a, file: a.yaml}\n", "  - {name: b, file: b.yaml, before: a}\n"


def blend(name: str, members: str, kind: str = "fixed", more: str = "") -> str:
    return f"  - {{name: {name}, blend: {{kind: {kind}, members: [{members}]{more}}}}}\n"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (A + A, "a step's name must stand once, got a, in .*ladder.yaml"),
        (A + "  - {name: b, file: c.yaml}\n", "a step's file must exist, got c.yaml.*step b"),
        (
            A + "  - {name: b, file: b.yaml, before: c}\n",
            "before must name an earlier step, got c, in .*step b. Earlier steps: a.",
        ),
        (B + A, "before must name an earlier step, got a, .*step b. Earlier steps: none."),
        (A + blend("x", "a, c"), "a blend's members must be steps of the ladder, got c.*step x"),
        (
            A + blend("x", "a, y") + blend("y", "a, x"),
            "blends must not hold each other, got x > y > x, in .*step x",
        ),
        (blend("x", "x, y") + blend("y", "x, x"), "members must differ"),
        (
            A + B + blend("x", "a, b", "optimised") + blend("y", "a, x", "optimised"),
            "an optimised blend's members must not be optimised blends, got x.*step y",
        ),
        (
            A + B + blend("x", "a, b", "fixed", ", weights: [0.5, 0.6]"),
            r"weights must sum to 1, they sum to 1\.1",
        ),
        (
            A + B + blend("x", "a, b", "fixed", ", weights: [1.0]"),
            "weights must number as many as members, 2",
        ),
        (
            A + B + blend("x", "a, b", "optimised", ", weights: [0.5, 0.5]"),
            "weights belong to kind: fixed",
        ),
        (
            "  - {name: a, file: a.yaml, published: {lb: 0.4, rows: stage_2}}\n",
            "rows: stage_2 needs the cv that is on these rows",
        ),
        (
            "  - {name: a, file: a.yaml, published: {cv: 0.4, rows: stage_3}}\n",
            "steps.0.published.rows: input should be 'all' or 'stage_2'",
        ),
        ("  - {name: a}\n", "step a needs exactly one of file and blend"),
        ("  - {name: a b, file: a.yaml}\n", "steps.0.name: string should match pattern"),
        ("  - {name: a, fil: a.yaml}\n", r"unknown key steps.0.fil \(did you mean file\?\)"),
    ],
)
def test_a_broken_manifest_is_refused_by_step(tmp_path: Path, steps: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_manifest(write(tmp_path, steps))


def test_steps_come_in_order_with_their_experiments(tmp_path: Path) -> None:
    ladder = load_ladder(write(tmp_path, A + B + blend("x", "a, b") + blend("y", "x, b")))
    assert [step.name for step in ladder.steps] == ["a", "b", "x", "y"]
    assert {name: made.name for name, made in ladder.experiments().items()} == {"a": "a", "b": "b"}
    assert ladder.members("y") == ("a", "b")
    assert ladder.step("b").before == "a"


def test_steps_are_chosen_with_what_their_blends_are_made_of(tmp_path: Path) -> None:
    manifest = write(tmp_path, A + B + blend("x", "b, a"))
    assert [step.name for step in load_ladder(manifest, only=["x"]).steps] == ["a", "b", "x"]
    (alone,) = load_ladder(manifest, only=["b"]).steps
    assert (alone.name, alone.before) == ("b", None)
    with pytest.raises(ConfigError, match=r"--steps must name steps of the ladder, got z.*a, b, x"):
        load_ladder(manifest, only=["z"])


def test_settings_go_for_every_experiment_after_the_overlay(tmp_path: Path) -> None:
    manifest = write(tmp_path, A + B)
    overlay = tmp_path / "small.yaml"
    overlay.write_text("values: {training.seed: 1, model.dropout: 0.1}\n", encoding="utf-8")
    ladder = load_ladder(manifest, overlay, ["training.seed=7", "resources.workers=2"])
    for experiment in ladder.experiments().values():
        assert (experiment.training.seed, experiment.model.dropout) == (7, 0.1)
    assert ladder.resources.workers == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            "experiment: {data: {n_folds: 3}}",
            "same data, got data.n_folds: 3 other than step a, in .*b.yaml, step b",
        ),
        ("resources: {workers: 2}", "same resources, got resources.workers: 2 other than step a"),
        (
            "search: {training.seed: {choices: [1, 2]}}",
            "must leave nothing to be searched, got training.seed, in .*b.yaml, step b",
        ),
    ],
)
def test_experiments_share_rows_folds_and_resources(tmp_path: Path, other: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_ladder(write(tmp_path, A + B, b=other))


def test_equal_weights_where_none_are_given() -> None:
    assert Blend(kind="fixed", members=("a", "b", "c", "d")).fixed_weights == (0.25,) * 4
