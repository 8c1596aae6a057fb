"""Searched vote thresholds that select the same rows are named before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.cli.main import main
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.experiment.same_rows import same_rows_notes
from hms_ray.sweep import command

THRESHOLD, UNANIMOUS = "training.stage_threshold", "training.unanimous_from"
REPEAT = " Trials that differ in it alone repeat each other: search one of these values."


def rows_of(*votes: int, unanimous: tuple[int, ...] = ()) -> pd.DataFrame:
    """Two rows of each number of votes; those of some numbers are unanimous."""
    total = np.repeat(votes, 2)
    rows = pd.DataFrame({"total_votes": total, "fold": np.tile([0, 1], len(votes))})
    shares = np.where(np.isin(total, unanimous)[:, None], np.eye(6)[0], np.full(6, 1 / 6))
    rows[list(TARGET_COLUMNS)] = shares
    return rows


def space_of(parameters: dict[str, Any], **training: Any) -> Space:
    stages = [{"rows": "below_threshold"}, {"rows": "at_least_threshold"}]
    experiment = {"training": {"stages": stages, **training}}
    return validate_space({"experiment": experiment, "parameters": parameters}, "test")


COMPETITION = rows_of(1, 3, 4, 5, 6, 7, 10, 12, 15)
"""As in the competition: no row has 8 or 9 votes."""


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"values": [4, 8, 10, 9]}, "8, 10, 9 select the same rows, since no row has 8 or 9 votes"),
        ({"values": [9, 10]}, "9, 10 select the same rows, since no row has 9 votes"),
        ({"min": 6, "max": 10}, "8, 9, 10 select the same rows, since no row has 8 or 9 votes"),
        ({"min": 6, "max": 10, "step": 2}, "8, 10 select the same rows, since no row has 8 or 9"),
    ],
)
def test_thresholds_that_select_the_same_rows_are_named(values: Any, named: str) -> None:
    (note,) = same_rows_notes(space_of({THRESHOLD: values}), COMPETITION)
    assert note.startswith(f"warning: {THRESHOLD}: the values {named}")
    assert note.endswith(REPEAT)


@pytest.mark.parametrize(
    "parameters", [{THRESHOLD: {"values": [4, 5, 6, 10]}}, {"training.seed": {"values": [8, 9]}}]
)
def test_thresholds_that_differ_have_no_note(parameters: Any) -> None:
    assert same_rows_notes(space_of(parameters), COMPETITION) == []


def test_every_group_of_equal_thresholds_has_its_note() -> None:
    notes = same_rows_notes(space_of({THRESHOLD: {"values": [4, 5, 8, 9]}}), rows_of(3, 7, 12))
    assert [note.split("values ")[1].split(" select")[0] for note in notes] == ["4, 5", "8, 9"]


def test_unanimous_rows_make_thresholds_equal_and_different() -> None:
    rows = rows_of(3, 5, 7, 12, unanimous=(5,))
    search = {THRESHOLD: {"values": [5, 6]}}
    assert same_rows_notes(space_of(search), rows) == []
    (note,) = same_rows_notes(space_of(search, unanimous_from=4), rows)
    assert "the values 5, 6 select the same rows. Trials" in note
    both = {**search, UNANIMOUS: {"values": [4, 5, None]}}
    (note,) = same_rows_notes(space_of(both), rows)
    assert note.startswith(f"warning: {UNANIMOUS}: the values 4, 5 select the same rows. Trials")


def test_sweep_and_space_print_the_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    searched = space_of({THRESHOLD: {"values": [8, 10]}})
    for name in ("check_study", "preflight", "require_disk_space"):
        monkeypatch.setattr(command, name, lambda *_: None)
    command._check(searched, tmp_path, "one", tmp_path, None, 0, COMPETITION)
    wanted = f"warning: {THRESHOLD}: the values 8, 10 select the same rows"
    assert wanted in capsys.readouterr().out
    monkeypatch.setattr("hms_ray.dataset.prepare.rows_with_folds", lambda *_: COMPETITION)
    file = tmp_path / "searched.yaml"
    search = f"parameters: {{{THRESHOLD}: {{values: [8, 10]}}}}\n"
    file.write_text(f"base: loss_norm_threshold\nstart: []\n{search}")
    assert main(["space", str(file), "--data", str(tmp_path)]) == 0
    assert wanted in " ".join(capsys.readouterr().out.split())
