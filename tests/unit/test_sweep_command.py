from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from hms_ray.config.loading import validate_space
from hms_ray.errors import DataError, FoldError
from hms_ray.sweep import command
from hms_ray.sweep.command import _resumed
from hms_ray.sweep.study_result import StudyResult


class Ready:
    """Stands in for ``prepare``; records the folds that it gets."""

    def __init__(self, fault: DataError | None = None) -> None:
        self.fault = fault
        self.given: list[pd.DataFrame | None] = []

    def __call__(self, folds: pd.DataFrame | None = None) -> Any:
        self.given.append(folds)
        if folds is not None and self.fault is not None:
            raise self.fault
        return len(self.given)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folds = {"row_id": ["1-0", "2-0"], "patient_id": [1, 2], "fold": [0, 1]}
    pd.DataFrame(folds).to_parquet(tmp_path / "rows.parquet")
    return tmp_path


def test_resumed_study_keeps_its_folds(study: Path) -> None:
    (study / "trials").mkdir()
    ready = Ready()
    assert _resumed(ready, study) == 1
    assert ready.given[0] is not None
    assert ready.given[0]["fold"].tolist() == [0, 1]


def test_study_without_an_ended_trial_draws_folds_anew(study: Path) -> None:
    ready = Ready()
    _resumed(ready, study)
    assert ready.given == [None]


def test_stored_folds_that_no_longer_fit_are_left_to_the_study_to_refuse(study: Path) -> None:
    (study / "trials").mkdir()
    ready = Ready(FoldError("folds must fit the rows"))
    assert _resumed(ready, study) == 2
    assert ready.given[1] is None


def test_fault_of_the_data_of_a_resumed_study_is_raised_at_once(study: Path) -> None:
    (study / "trials").mkdir()
    ready = Ready(DataError("recordings must have a signal"))
    with pytest.raises(DataError, match="must have a signal"):
        _resumed(ready, study)
    assert len(ready.given) == 1


@pytest.mark.parametrize(
    ("n_finished", "n_failed", "status"),
    [(3, 0, 0), (3, 2, 0), (2, 0, 0), (2, 3, 1)],
    ids=["all", "others instead", "a small space", "too many failed"],
)
def test_sweep_cut_short_by_failures_exits_with_one(
    n_finished: int,
    n_failed: int,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    folder, board = SimpleNamespace(path=tmp_path), SimpleNamespace(text=str)
    run = StudyResult(
        folder=folder,  # type: ignore[arg-type]
        leaderboard=board,  # type: ignore[arg-type]
        best=None,  # type: ignore[arg-type]
        n_finished=n_finished,
        n_failed=n_failed,
        n_trained=0,
        n_reused=0,
        limit="budget.hours is used up",
    )
    prepared = SimpleNamespace(notes=())
    monkeypatch.setattr(command, "prepare", lambda *_, **__: prepared)
    monkeypatch.setattr(command, "run_study", lambda *_, **__: run)
    space = validate_space(
        {"parameters": {"training.seed": {"values": [0, 1, 2]}}, "budget": {"trials": 3}}, "test"
    )
    assert command.sweep(space, tmp_path, tmp_path, "first") == status
    output = capsys.readouterr()
    assert "budget.hours is used up" in output.out
    printed = output.err
    assert ("2 of 3 trials finished, 3 failed" in printed) == (status == 1)
    assert printed.count("\n") == status
    # Another run would end in the same way.
    assert command.sweep(space, tmp_path, tmp_path, "first", exit_zero=True) == 0
    assert ("exit status 0, by --exit-zero-when-final" in capsys.readouterr().err) == (status == 1)
