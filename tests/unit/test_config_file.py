from pathlib import Path
from typing import Any

import pytest

from hms_ray.config.experiment import Experiment
from hms_ray.config.loading import load_space, validate_space
from hms_ray.config.validation import fault_lines
from hms_ray.config.values import replace_values
from hms_ray.config.yaml_files import parse_yaml
from hms_ray.errors import ConfigError

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    file = folder / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return file


NO_SPACES = {"ladder.yaml", "medium.yaml", "small.yaml"}
"""A manifest and an overlay; ``test_ladder_files`` reads them."""
SPACES = [file for file in (ROOT / "search_spaces").rglob("*.yaml") if file.name not in NO_SPACES]


@pytest.mark.parametrize("file", sorted(SPACES), ids=lambda file: file.stem)
def test_shipped_space_is_valid(file: Path) -> None:
    space = load_space(file)
    assert space.experiment.model_dump()


def test_empty_file_is_the_default_experiment(tmp_path: Path) -> None:
    assert load_space(write(tmp_path, "")).experiment == Experiment()


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
experiment:
  trainin: {}
  training:
    learning_rat: 1e-3
    loss: kll
    stages: [{epoch: 3}, {epochs: 0}]
""",
    )
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{file} has 5 faults:"
    assert sorted(line.strip() for line in lines[1:]) == [
        (
            "experiment.training.loss: input should be 'kl', 'kl_votes', 'kl_log_votes', "
            "'kl_capped_votes' or 'kl_floored_votes', got 'kll', line 6"
        ),
        (
            "experiment.training.stages.1.epochs: input should be greater than or equal to 1, "
            "got 0, line 7"
        ),
        "unknown key experiment.trainin (did you mean training?), line 3",
        "unknown key experiment.training.learning_rat (did you mean learning_rate?), line 5",
        "unknown key experiment.training.stages.0.epoch (did you mean epochs?), line 7",
    ]


def test_searched_paths_and_values_are_checked(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
parameters:
  training.los: {values: [kl]}
  training.learning_rate: {min: -1.0, max: 1.0}
""",
    )
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    text = str(caught.value)
    assert "parameters.training.los leads to no field (did you mean loss?), line 3" in text
    assert (
        "parameters.training.learning_rate with -1.0: training.learning_rate: input should" in text
    )


def test_single_fault_is_one_line_with_keys_as_in_files(tmp_path: Path) -> None:
    file = write(tmp_path, "parameters: {training.seed: {integer: [0, 9]}}")
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    known = "log, max, min, step, values, when"
    fault = f"unknown key parameters.training.seed.integer (known: {known}), line 1"
    assert str(caught.value) == f"{fault}, in {file}"


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("input.pool", "input.downsample"),
        ("input.eeg.pool", "input.eeg.downsample"),
        ("training.cutmix", "training.augment.cutmix"),
        ("training.stages.0.cutmix", "training.stages.0.augment.cutmix"),
    ],
)
def test_renamed_key_is_refused_with_its_new_name(tmp_path: Path, former: str, now: str) -> None:
    file = write(tmp_path, "experiment: {training: {stages: [{epochs: 1}]}}")
    with pytest.raises(ConfigError) as caught:
        load_space(file, [f"{former}=null"])
    assert f"experiment.{former} is now named experiment.{now}" in caught.value.rule


def test_former_form_of_a_space_is_refused_with_the_new_names(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
search: {training.seed: {int: [0, 9]}, training.loss: {choices: [kl, kll]}}
study: {objective: kl_4, n_trials: 3, sampler: random, sampled: 1}
""",
    )
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    rules = fault_lines(caught.value)
    assert rules[:6] == [
        "search is now named parameters, line 2",
        "study.objective is now named metric, line 3",
        "study.n_trials is now named budget.trials, line 3",
        "study.sampler is now named method, line 3",
        "search.training.seed.int is now named min and max, line 2",
        "search.training.loss.choices is now named values, line 2",
    ]
    assert rules[6].startswith("unknown key study.sampled"), "other faults too"
    with pytest.raises(ConfigError, match=r"study\.n_trials is now named budget\.trials"):
        load_space(write(tmp_path, ""), ["study.n_trials=3"])


def test_stored_space_with_former_names_is_read(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
experiment: {input: {pool: [2, 2], eeg: {pool: [4, 1]}}, training: {augment: {cutmix: {}}}}
search: {input.pool.0: {int: [1, 4]}, training.seed: {choices: {pool: 1, full: 2}}}
start: [{input.pool.0: 2, training.seed: pool}]
study: {objective: kl_4, n_trials: 7, sampler: random, startup_trials: 2, seed: 3}
""",
    )
    space = load_space(file, stored=True)
    assert space.experiment.input.downsample == (2, 2)
    assert space.experiment.input.eeg.downsample == (4, 1)
    assert space.experiment.training.augment.cutmix is not None
    assert list(space.parameters) == ["input.downsample.0", "training.seed"]
    assert space.parameters["training.seed"].values == {"pool": 1, "full": 2}, "labels stay"
    assert space.parameters["input.downsample.0"].bounds == (1, 4)
    assert space.start == [{"input.downsample.0": 2, "training.seed": "pool"}]
    assert (space.metric, space.method, space.budget.trials) == ("kl_4", "random", 7)
    assert (space.startup_trials, space.seed) == (2, 3)


def test_ranges_have_the_type_of_their_field() -> None:
    ranges = {
        "training.learning_rate": {"min": 1, "max": 3, "step": 1},
        "training.stages.0.epochs": {"min": 1, "max": 7, "step": 3},
        "input.downsample.1": {"min": 1, "max": 4},
    }
    found = validate_space({"parameters": ranges}, "x").parameters
    rate, epochs, factor = (found[path].bounds or () for path in ranges)
    assert (rate, epochs, factor) == ((1.0, 3.0), (1, 7), (1, 4))
    assert [type(bound) for bound in (*rate, *epochs, *factor)] == [float] * 2 + [int] * 4


def test_faulty_view_is_named_by_its_place(tmp_path: Path) -> None:
    file = write(tmp_path, "experiment: {input: {views: [panels, raw statistics]}}")
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    assert "experiment.input.views.1: a picture of raw must be one of signals" in str(caught.value)
    assert "got 'raw statistics'" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("input.eeg.centre_s", "{min: 10, max: 50}"),
        ("input.raw.rate_hz", "{min: 50, max: 100}"),
        ("input.eeg.band_hz.0", "{min: 0.5, max: 1.0}"),
    ],
)
def test_recipe_values_are_searched_by_values(tmp_path: Path, path: str, parameter: str) -> None:
    base = "experiment: {input: {views: [eeg panels, raw signals], eeg: {band_hz: [0.5, 20]}}}"
    file = write(tmp_path, f"{base}\nparameters: {{{path}: {parameter}}}")
    rule = f"parameters.{path}: .* must be searched by values"
    with pytest.raises(ConfigError, match=rule):
        load_space(file)
    load_space(write(tmp_path, f"{base}\nparameters: {{{path}: {{values: [10, 15]}}}}"))
    load_space(
        write(tmp_path, f"{base}\nparameters: {{input.eeg.downsample.0: {{min: 1, max: 4}}}}")
    )


@pytest.mark.parametrize(
    ("point", "rule"),
    [
        ("{training.seed: 11}", "start.0: training.seed cannot be 11"),
        ("{training.seed: 4}", "start.0: training.seed cannot be 4"),
        ("{training.seed: 3.0}", "start.0: training.seed cannot be 3.0"),
        ("{training.batch_size: 16}", "training.batch_size is not searched"),
        ("{training.seed: 3, training.sed: 1}", "training.sed is not searched (did you mean"),
    ],
)
def test_start_points_must_be_in_the_space(tmp_path: Path, point: str, rule: str) -> None:
    file = write(
        tmp_path, f"parameters: {{training.seed: {{min: 0, max: 9, step: 3}}}}\nstart: [{point}]"
    )
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    assert rule in str(caught.value)


def test_start_point_with_contradicting_values_is_refused(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
experiment: {training: {stages: [{}, {}]}}
parameters:
  training.stages: {values: {one: [{epochs: 2}], two: [{epochs: 1}, {epochs: 1}]}}
  training.stages.1.epochs: {values: [3]}
start: [{training.stages: one, training.stages.1.epochs: 3}]
""",
    )
    with pytest.raises(ConfigError, match=r"start\.0: .* from 0 to 0"):
        load_space(file)


def test_set_paths_start_in_the_experiment_or_at_a_key_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "experiment: {training: {stages: [{epochs: 2}]}}")
    space = load_space(
        file,
        ["training.seed=7", "budget.trials=3", "training.stages.0.epochs=5", "input.size=[8, 9]"],
    )
    assert space.experiment.training.seed == 7
    assert space.budget.trials == 3
    assert space.experiment.training.stages[0].epochs == 5
    assert space.experiment.input.size == (8, 9)


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("training.seed", "--set must look like a.b=c"),
        ("training.sed=1", "unknown key experiment.training.sed (did you mean seed?)"),
        ("training.stages.3.epochs=1", "must be from 0 to 0, got 3"),
        ("training.stages.\u00b2.epochs=1", "must be from 0 to 0"),
        ("name.x=1", "a dotted path must lead through mappings and lists"),
    ],
)
def test_invalid_settings_are_refused(tmp_path: Path, setting: str, rule: str) -> None:
    file = write(tmp_path, "experiment: {name: a, training: {stages: [{epochs: 2}]}}")
    with pytest.raises(ConfigError) as caught:
        load_space(file, [setting])
    assert rule.replace("a.b=c", "a.b=value") in str(caught.value)


def test_exponents_are_numbers() -> None:
    assert parse_yaml("[1e-3, 2E+4, -3.e2, .5e1, 1.0e-3]", "x") == [1e-3, 2e4, -3e2, 5.0, 1e-3]
    assert parse_yaml("[e3, 1e, '1e-3']", "x") == ["e3", "1e", "1e-3"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: 1\na: 2", "the key 'a' is repeated, in x, line 2, column 1"),
        ("a: [1", "a configuration must be valid YAML"),
        ("a: {{b}}", "a key must be text or a number, in x, line 1, column 5"),
        ("a: 2026-02-30", "must be valid YAML, got day is out of range for month, in x"),
    ],
)
def test_yaml_errors_name_line_and_column(text: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x")
    assert rule in str(caught.value)


def test_merged_mappings_are_read() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}"
    assert parse_yaml(text, "x")["more"] == {"x": 1, "y": 3}


def test_missing_file_and_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be readable, got No such file"):
        load_space(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="must be a mapping, got list"):
        load_space(write(tmp_path, "[1, 2]"))


def test_replaced_values_are_validated() -> None:
    changed = replace_values(Experiment(), {"training.loss": "kl_log_votes"})
    assert changed.training.loss == "kl_log_votes"
    assert Experiment().training.loss == "kl"
    with pytest.raises(ConfigError, match=r"training\.batch_size: input should be greater"):
        replace_values(Experiment(), {"training.batch_size": 0})


def test_order_of_replaced_values_does_not_matter() -> None:
    inside = {"training.augment.cutmix.probability": 0.7}
    outside = {"training.augment.cutmix": {"axis": "frequency"}}
    for values in (inside | outside, outside | inside):
        cutmix = replace_values(Experiment(), values).training.augment.cutmix
        assert cutmix is not None
        assert (cutmix.probability, cutmix.axis) == (0.7, "frequency")
    assert outside == {
        "training.augment.cutmix": {"axis": "frequency"}
    }  # the choice stays as it was
    for values in (
        inside | {"training.augment.cutmix": None},
        {"training.augment.cutmix": None} | inside,
    ):
        assert replace_values(Experiment(), values).training.augment.cutmix is None


@pytest.mark.parametrize(
    ("search", "rule"),
    [
        (
            {"data.unit": {"values": ["eeg", "label"]}},
            "parameters.data.unit: all trials share rows and folds",
        ),
        (
            {"training.batch_size": {"min": 8.5, "max": 64}},
            "parameters.training.batch_size with 8.5",
        ),
    ],
)
def test_invalid_search_is_refused(search: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_space({"parameters": search}, "x")
    assert rule in str(caught.value)


def test_start_point_needs_labels_of_labelled_choices() -> None:
    search = {"training.stages": {"values": {"one": [{}], "two": [{}, {}]}}}
    with pytest.raises(ConfigError, match=r"start\.0: training\.stages cannot be \[\{\}\]"):
        validate_space({"parameters": search, "start": [{"training.stages": [{}]}]}, "x")


def test_former_group_is_refused_with_its_new_name_and_read_in_stored_files(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("resources: {group: trial}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="group: trial is now named group: study"):
        load_space(file)
    assert load_space(file, stored=True).resources.group == "study"
