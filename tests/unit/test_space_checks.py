"""Search spaces: conditions, bases, grids, effects and start points; each fault with its line."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.config.conditions import active_paths, n_points, points
from hms_ray.config.loading import load_space, validate_space
from hms_ray.config.space_checks import has_effect
from hms_ray.errors import ConfigError
from hms_ray.search.distributions import draw, is_whole, make_sampler, resolve
from tests.refused import refusal

LOSS, RATE, STAGES = "training.loss", "training.learning_rate", "training.stages"
THRESHOLD, SECOND = "training.stage_threshold", "training.stages.1.epochs"
TWO = [{"rows": "below_threshold"}, {"rows": "at_least_threshold"}]
NESTED = {
    SECOND: {"min": 1, "max": 3, "when": {STAGES: "two"}},
    STAGES: {"values": {"one": [{}], "two": TWO}},
    LOSS: {"values": ["kl", "kl_log_votes", "kl_capped_votes"]},
    RATE: {"min": 1e-4, "max": 1e-2, "log": True, "when": {LOSS: ["kl", "kl_log_votes"]}},
    THRESHOLD: {"values": [4, 5], "when": {SECOND: [2, 3], LOSS: "kl"}},
}


def faults_of(folder: Path, text: str) -> str:
    file = folder / "space.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "parameters:\n  training.learning_rat: {min: 1, max: 2}",
            "learning_rat leads to no field (did you mean learning_rate?), line 2",
        ),
        (
            "parameters:\n  training.stages.0.epoch: {min: 1, max: 2}",
            "leads to no field (did you mean epochs?), line 2",
        ),
        (
            "parameters:\n  training.batch_size: {values: [16,\n    many]}",
            "with many: training.batch_size: input should be a valid integer",
        ),
        (
            """parameters:
  training.loss:
    values: [kl, kl_log_votes]
    when:
      training.sed: 1
  training.seed: {values: [1, 2]}""",
            "when.training.sed: training.sed is not searched (did you mean training.seed?), line 5",
        ),
        (
            """parameters:
  training.loss: {values: [kl, kl_log_votes], when: {training.seed: 3}}
  training.seed: {values: [1, 2]}""",
            "when.training.seed: training.seed cannot be 3, line 2",
        ),
        (
            """parameters:
  training.seed: {values: [1, 2], when: {training.loss: kl}}
  training.loss: {values: [kl, kl_log_votes], when: {training.seed: 1}}""",
            "circle, got training.seed -> training.loss -> training.seed, line 2",
        ),
        (
            """experiment: {training: {stages: [{learning_rate: 0.1}]}}
parameters:
  training.learning_rate: {min: 0.1, max: 0.2}""",
            "learning_rate: has no effect; no value of it changes what is trained, line 3",
        ),
        (
            "method: grid\nparameters:\n  training.learning_rate: {min: 0.1, max: 0.2}",
            "a grid needs values, integers, or a step, line 3",
        ),
        (
            "parameters:\n  training.seed: {values: [1, 2]}\nstart:\n- {training.sed: 1}",
            "training.sed is not searched (did you mean training.seed?), line 4",
        ),
    ],
)
def test_each_fault_has_its_line_and_the_nearest_name(
    tmp_path: Path, text: str, fault: str
) -> None:
    assert fault in faults_of(tmp_path, text)


def test_a_setting_is_named_in_place_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("experiment: {training: {batch_size: 4}}")
    with pytest.raises(ConfigError) as caught:
        load_space(file, ["training.batch_size=0"])
    assert "got 0, from --set" in caught.value.rule
    assert "line" not in caught.value.rule


def test_value_that_needs_its_condition_is_accepted() -> None:
    # The second stage exists only where there are two.
    space = validate_space({"parameters": NESTED}, "test")
    assert resolve(space, {STAGES: "two", SECOND: 3, LOSS: "kl_capped_votes"})
    without = {path: {**NESTED[path], "when": {}} for path in (STAGES, SECOND)}
    with pytest.raises(ConfigError, match="with 1: "):
        validate_space({"parameters": without}, "test")


def test_parameter_has_an_effect_if_any_other_value_gives_it_one() -> None:
    views = {"values": {"plain": ["panels"], "eeg": ["eeg panels"]}}
    kinds = {"values": ["mel", "stft"]}
    space = validate_space({"parameters": {"input.views": views, "input.eeg.kind": kinds}}, "test")
    assert has_effect(space, "input.eeg.kind")
    del views["values"]["eeg"]
    with pytest.raises(ConfigError, match=r"input\.eeg\.kind: has no effect"):
        validate_space({"parameters": {"input.views": views, "input.eeg.kind": kinds}}, "test")


def test_points_of_a_grid_are_the_product_filtered_by_conditions() -> None:
    parameters: dict[str, Any] = {**NESTED, RATE: {**NESTED[RATE], "log": False, "step": 33e-4}}
    space = validate_space({"parameters": parameters, "method": "grid"}, "test")
    axes = {
        STAGES: ["one", "two"],
        SECOND: [None, 1, 2, 3],
        LOSS: ["kl", "kl_log_votes", "kl_capped_votes"],
        RATE: [None, 1e-4, 0.0034, 0.0067, 0.01],
        THRESHOLD: [None, 4, 5],
    }
    expected = []
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        wanted = {
            SECOND: point[STAGES] == "two",
            RATE: point[LOSS] in ("kl", "kl_log_votes"),
            THRESHOLD: point[SECOND] in (2, 3) and point[LOSS] == "kl",
        }
        if all((point[path] is not None) == needed for path, needed in wanted.items()):
            expected.append({path: value for path, value in point.items() if value is not None})
    listed = list(points(space))
    assert len(listed) == len(expected) == n_points(space) == space.budget.trials
    assert all(point in expected for point in listed)
    assert all(point in listed for point in expected)


def test_budget_of_a_grid_can_be_smaller() -> None:
    grid = {"parameters": {"training.seed": {"values": [1, 2, 3]}}, "method": "grid"}
    assert validate_space(grid, "test").budget.trials == 3
    assert validate_space({**grid, "budget": {"trials": 2}}, "test").budget.trials == 2


VALUES = {
    LOSS: st.lists(
        st.sampled_from(["kl", "kl_log_votes", "kl_capped_votes"]), min_size=2, unique=True
    ),
    "training.seed": st.lists(st.integers(0, 9), min_size=2, max_size=3, unique=True),
    "model.dropout": st.lists(st.sampled_from([0.0, 0.1, 0.5]), min_size=2, unique=True),
    "training.batch_size": st.lists(st.integers(1, 64), min_size=2, max_size=3, unique=True),
}


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    """Spaces of values and ranges, in which each path may depend on earlier ones."""
    parameters: dict[str, Any] = {}
    for path, values in VALUES.items():
        given = draw(values)
        when = {
            name: draw(st.sampled_from(above["values"]))
            for name, above in parameters.items()
            if draw(st.booleans())
        }
        parameters[path] = {"values": given, "when": when}
    rate = draw(st.sampled_from([{"log": True}, {"step": 0.25}, {}]))
    parameters[RATE] = {"min": 0.5, "max": 1.5, **rate}
    names = draw(st.permutations(list(parameters)))
    return {path: parameters[path] for path in names}


@settings(max_examples=25, deadline=None)
@given(spaces(), st.sampled_from(["tpe", "random"]))
def test_every_sampled_point_resolves_and_a_file_keeps_the_space(
    parameters: dict[str, Any], method: str
) -> None:
    try:
        space = validate_space({"parameters": parameters, "method": method}, "test")
    except ConfigError as error:
        # Values of one path that exclude each other.
        assert "meets all conditions" in error.rule  # noqa: PT017
        return
    again = validate_space(yaml.safe_load(yaml.safe_dump(space.model_dump(mode="json"))), "test")
    assert again == space
    study = optuna.create_study(sampler=make_sampler(space, 0))
    for number in range(4):
        study.sampler = make_sampler(space, number)
        trial = study.ask()
        draw(trial, space)
        assert is_whole(space, trial.params)
        assert set(trial.params) == set(active_paths(space.parameters, trial.params))
        experiment = resolve(space, trial.params)
        for path, value in trial.params.items():
            section, field = path.split(".")
            assert getattr(getattr(experiment, section), field) == value
        for path in set(space.parameters) - set(trial.params):
            section, field = path.split(".")
            own = getattr(getattr(space.experiment, section), field)
            assert getattr(getattr(experiment, section), field) == own
        study.tell(trial, float(number))


def test_start_point_may_omit_the_experiments_own_values() -> None:
    space = validate_space(
        {"parameters": NESTED, "start": [{LOSS: "kl"}, {LOSS: "kl_capped_votes"}]}, "test"
    )
    assert space.start == [
        {STAGES: "one", LOSS: "kl", RATE: 1e-3},
        {STAGES: "one", LOSS: "kl_capped_votes"},
    ]


@pytest.mark.parametrize(
    ("point", "fault"),
    [
        ({STAGES: "one", SECOND: 2}, f"{SECOND} is inactive here"),
        ({STAGES: "two", LOSS: "kl_capped_votes"}, f"a value for {SECOND} is missing"),
        ({LOSS: "kl", RATE: 0.5}, f"{RATE} cannot be 0.5"),
    ],
)
def test_start_points_obey_conditions(point: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=f"start.0: {fault}"):
        validate_space({"parameters": NESTED, "start": [point]}, "test")


def write(file: Path, **data: Any) -> Path:
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return file


def test_base_is_merged_below_the_file(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    write(
        tmp_path / "bases" / "first.yaml",
        experiment={"name": "first", "training": {"batch_size": 8, "stages": [{}, {}]}},
        parameters={"training.seed": {"values": [1, 2]}, LOSS: {"values": ["kl", "kl_log_votes"]}},
        budget={"trials": 7},
    )
    write(tmp_path / "bases" / "second.yaml", base="first", method="random")
    file = write(
        tmp_path / "top.yaml",
        base="bases/second.yaml",
        experiment={"training": {"stages": [{"epochs": 2}]}},
        parameters={"training.seed": {"min": 1, "max": 9}, LOSS: None},
        budget={"hours": 1},
    )
    space = load_space(file)
    assert (space.experiment.name, space.experiment.training.batch_size) == ("first", 8)
    assert [stage.epochs for stage in space.experiment.training.stages] == [2]
    assert list(space.parameters) == ["training.seed"]
    assert space.parameters["training.seed"].bounds == (1, 9)
    assert (space.method, space.budget.trials, space.budget.hours) == ("random", 7, 1.0)
    assert space.base is None
    assert load_space(write(tmp_path / "own.yaml", base="demo")) == load_space(
        Path(__file__).parents[2] / "search_spaces" / "demo.yaml"
    )


def test_faults_of_a_base_name_its_file_and_line(tmp_path: Path) -> None:
    write(tmp_path / "first.yaml", experiment={"name": "a", "training": {"batch_size": 0}})
    text = faults_of(tmp_path, "base: first\nexperiment: {nam: b}")
    assert f"got 0, line 4 of {tmp_path / 'first.yaml'}" in text
    assert "unknown key experiment.nam (did you mean name?), line 2" in text


def test_bases_that_form_a_circle_or_do_not_exist_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", base="second")
    write(tmp_path / "second.yaml", base="first.yaml")
    with refusal(
        ConfigError,
        "must not lead back to its own file",
        got="first.yaml -> second.yaml -> first.yaml",
        where="second.yaml",
        fix="Remove base from second.yaml",
    ):
        load_space(first)
    with refusal(
        ConfigError, "base must be a file", got="dem", where="third.yaml", fix="Correct base"
    ):
        load_space(write(tmp_path / "third.yaml", base="dem0"))
    with pytest.raises(ConfigError, match="base can be set in a file only"):
        load_space(write(tmp_path / "fourth.yaml"), ["base=demo"])
