"""``hms-ray space``: what it explains, and the schema for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hms_ray.cli.main import main
from hms_ray.config.loading import load_space, validate_space
from hms_ray.config.space import Space
from hms_ray.display.space_table import render_space
from hms_ray.search.explain import explain_space, first_trials, schema
from hms_ray.search.outcomes import Proposal
from hms_ray.search.proposals import Proposals
from tests.unit.test_config_file import SPACES

RATE = "training.learning_rate"


def make_space(**others: Any) -> Space:
    return validate_space(
        {
            "experiment": {"training": {"stages": [{"rows": "below_threshold"}, {}]}},
            "parameters": {
                "training.loss": {"values": ["kl", "kl_log_votes"]},
                RATE: {"min": 1e-4, "max": 1e-2, "log": True, "when": {"training.loss": "kl"}},
                "training.stage_threshold": {"min": 4, "max": 8, "step": 2},
            },
            **others,
        },
        "test",
    )


def test_parameters_size_and_first_trials_are_explained() -> None:
    space = make_space(start=[{"training.loss": "kl", "training.stage_threshold": 6}])
    facts = explain_space(space, "one", 3, lambda experiment: experiment.training.stage_threshold)
    rows = {row.path: row for row in facts.parameters}
    assert (rows[RATE].kind, rows[RATE].own) == ("number", "0.001")
    assert rows[RATE].values == "0.0001 to 0.01, log scale"
    assert rows[RATE].condition == "loss = kl"
    assert rows["training.stage_threshold"].own == "another value"
    assert rows["training.stage_threshold"].values == "4 to 8 in steps of 2"
    assert facts.n_points is None
    assert facts.draws[0] == (
        "start",
        {"training.loss": "kl", RATE: 1e-3, "training.stage_threshold": 6},
    )
    assert [origin for origin, _ in facts.draws[1:]] == ["random", "random"]
    assert facts.visits is not None
    assert 4 <= facts.visits[0] < facts.visits[1] < facts.visits[2] <= 8
    text = render_space(facts)
    assert "tpe after 5 random trials, minimise KL >=10" in text
    assert "budget: 20 trials" in text
    assert "pruning: paired, after 3 finished trials, at the earliest after 1 fold of 5" in text


def test_draws_that_depend_on_results_are_not_shown() -> None:
    facts = explain_space(make_space(startup_trials=4), "one", 9)
    assert [origin for origin, _ in facts.draws] == ["random"] * 4
    assert "Later draws depend on results." in render_space(facts)
    assert len(explain_space(make_space(method="random"), "one", 9).draws) == 9


def test_first_trials_are_those_of_a_new_study(tmp_path: Path) -> None:
    space = make_space(method="random", seed=3)
    proposals = Proposals(space, tmp_path / "journal")
    expected = [one.point for one in (proposals.next() for _ in range(4)) if type(one) is Proposal]
    assert [trial.point for _, trial in first_trials(space, 4)] == expected


def test_different_and_invalid_experiments_of_a_small_space_are_counted() -> None:
    space = validate_space(
        {
            "parameters": {
                # A threshold matters with two stages only; one value of each pair is invalid.
                "training.stages": {
                    "values": {"one": [{}], "two": [{"rows": "below_threshold"}, {}]}
                },
                "training.stage_threshold": {"values": [4, 5, 6]},
            },
            "method": "grid",
        },
        "test",
    )
    facts = explain_space(space, "one", 0)
    assert (facts.n_points, facts.n_experiments, facts.n_invalid) == (6, 4, 0)
    assert "size: 6 points, 4 different experiments" in render_space(facts)


def test_command_prints_the_next_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "demo", "--draws", "2", "--set", "seed=4"]) == 0
    printed = capsys.readouterr().out
    assert "training.learning_rate" in printed
    assert printed.splitlines()[-1] == "next: hms-ray sweep demo --data DIR --set seed=4"


def test_schema_is_printed_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
    assert main(["space"]) != 0
    assert "space needs a file" in capsys.readouterr().err


def test_schema_describes_the_fields_and_accepts_every_shipped_file() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    for file in SPACES:
        validator.validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        validator.validate(load_space(file).model_dump(mode="json"))
    validator.validate({"prune": "median", "parameters": {"training.loss": None}})
    for fault in (
        {"prune": "often"},
        {"parametres": {}},
        {"method": "bayes"},
        {"experiment": {"training": {"los": "kl"}}},
        {"budget": {"trials": "many"}},
    ):
        assert not validator.is_valid(fault), fault
    for name, field in made["properties"].items():
        reference = field.get("$ref", "").rsplit("/", 1)[-1]
        assert field.get("description") or made["$defs"][reference]["description"], name
    parameter = made["$defs"]["Parameter"]["properties"]
    assert all(field["description"] for field in parameter.values())
