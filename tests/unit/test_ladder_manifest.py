"""Manifests: steps that are read, and faults that are refused by step."""

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
    ("steps", "message"),
    [
        (A + A, "must be unique, got a, in .*ladder.yaml"),
        (A + "  - {name: b, file: c.yaml}\n", "file must exist, got c.yaml.*step b"),
        (
            A + "  - {name: b, file: b.yaml, before: c}\n",
            r"earlier step, got c \(known: a\), in .*step b",
        ),
        (B + A, "earlier step, got a, in .*step b"),
        (A + blend("x", "a, c"), r"members must be steps.*, got c \(known: a, x\).*step x"),
        (
            A + blend("x", "a, y") + blend("y", "a, x"),
            "contain each other, got x > y > x, in .*step x",
        ),
        (blend("x", "x, y") + blend("y", "x, x"), "members must differ"),
        (
            A + B + blend("x", "a, b", "optimised") + blend("y", "a, x", "optimised"),
            "must not be optimised blends, got x.*step y",
        ),
        (
            A + B + blend("x", "a, b", "fixed", ", weights: [0.5, 0.6]"),
            r"weights must sum to 1, they sum to 1\.1",
        ),
        (
            A + B + blend("x", "a, b", "fixed", ", weights: [1.0]"),
            "one weight per member, 2",
        ),
        (
            A + B + blend("x", "a, b", "optimised", ", weights: [0.5, 0.5]"),
            "weights belong to kind: fixed",
        ),
        (
            A + B + blend("x", "a, b", "optimised", ", method: log_liner"),
            r"method must be one of equal, .*, auto \(did you mean log_linear\?\)",
        ),
        (
            A + B + blend("x", "a, b", "fixed", ", fit_on: kl_10"),
            "method and fit_on belong to kind: optimised",
        ),
        (
            "  - {name: a, file: a.yaml, published: {lb: 0.4, rows: stage_2}}\n",
            "rows: stage_2 needs a cv",
        ),
        (
            "  - {name: a, file: a.yaml, published: {cv: 0.4, rows: stage_3}}\n",
            "steps.0.published.rows: input should be 'all' or 'stage_2'",
        ),
        (
            "  - {name: a, file: a.yaml, published: {last: 0.4}}\n",
            "last needs the cv of the same experiment",
        ),
        ("  - {name: a}\n", "step a needs exactly one of file, of and blend"),
        (A + "  - {name: b, of: a}\n", "step b needs both of and set, or neither"),
        (
            A + "  - {name: b, of: c, set: {training.ema: 0.9}}\n",
            r"of must name an earlier experiment, got c \(known: a\), in .*step b",
        ),
        (
            A + B + blend("x", "a, b") + "  - {name: y, of: x, set: {training.ema: 0.9}}\n",
            r"of must name an earlier experiment, got x \(known: a, b\), in .*step y",
        ),
        ("  - {name: a b, file: a.yaml}\n", "steps.0.name: string should match pattern"),
        ("  - {name: a, fil: a.yaml}\n", r"unknown key steps.0.fil \(did you mean file\?\)"),
    ],
)
def test_broken_manifest_is_refused_by_step(tmp_path: Path, steps: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_manifest(write(tmp_path, steps))


def test_steps_come_in_order_with_their_experiments(tmp_path: Path) -> None:
    ladder = load_ladder(write(tmp_path, A + B + blend("x", "a, b") + blend("y", "x, b")))
    assert [step.name for step in ladder.steps] == ["a", "b", "x", "y"]
    assert {name: made.name for name, made in ladder.experiments().items()} == {"a": "a", "b": "b"}
    assert ladder.members("y") == ("a", "b")
    assert ladder.step("b").before == "a"


def test_selected_steps_include_the_members_of_their_blends(tmp_path: Path) -> None:
    manifest = write(tmp_path, A + B + blend("x", "b, a"))
    assert [step.name for step in load_ladder(manifest, only=["x"]).steps] == ["a", "b", "x"]
    (alone,) = load_ladder(manifest, only=["b"]).steps
    assert (alone.name, alone.before) == ("b", None)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("9_panel_5", r"did you mean 9_panels_5u\?"), ("z", "known: 9_panels_5u, a, b")],
)
def test_unknown_step_is_refused_with_the_nearest(tmp_path: Path, name: str, nearest: str) -> None:
    manifest = write(tmp_path, A + B + "  - {name: 9_panels_5u, file: a.yaml}\n")
    with pytest.raises(ConfigError, match=rf"--steps must name steps.*, got {name} \({nearest}\)"):
        load_ladder(manifest, only=[name])


def test_settings_apply_to_every_experiment_after_the_overlay(tmp_path: Path) -> None:
    manifest = write(tmp_path, A + B)
    overlay = tmp_path / "small.yaml"
    overlay.write_text("values: {training.seed: 1, model.dropout: 0.1}\n", encoding="utf-8")
    ladder = load_ladder(manifest, overlay, ["training.seed=7", "resources.workers=2"])
    for experiment in ladder.experiments().values():
        assert (experiment.training.seed, experiment.model.dropout) == (7, 0.1)
    assert ladder.resources.workers == 2


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            "experiment: {data: {n_folds: 3}}",
            "same data, got data.n_folds: 3, .* step a, in .*b.yaml, step b",
        ),
        ("resources: {workers: 2}", "same resources, got resources.workers: 2, .* step a"),
        (
            "parameters: {training.seed: {values: [1, 2]}}",
            "must not search anything, got training.seed, in .*b.yaml, step b",
        ),
    ],
)
def test_experiments_share_rows_and_resources(tmp_path: Path, other: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_ladder(write(tmp_path, A + B, b=other))


def test_fixed_blend_has_equal_weights_by_default() -> None:
    assert Blend(kind="fixed", members=("a", "b", "c", "d")).fixed_weights == (0.25,) * 4
