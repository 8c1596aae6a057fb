"""Units of folds run from threads, without Ray."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hms_ray.config.experiment import Experiment
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.ladder_trainer import run_units
from hms_ray.errors import TrainingError
from hms_ray.experiment.fold_task import FoldTask, Report
from hms_ray.storage.fold_store import FoldStore


def task(results: Path, name: str, fold: int) -> FoldTask:
    prepared = Prepared(results / "rows.parquet", {}, "", "", 3)
    key = f"{name}{fold}" * 20
    return FoldTask(Experiment(name=name), fold, key, prepared, results, {})


def silent(record: dict[str, Any]) -> None:
    pass


@dataclass
class Runner:
    """Stores its tasks, up to the first fold that must fail."""

    failing: Sequence[tuple[str, int]]
    calls: list[list[tuple[str, int]]] = field(default_factory=list)
    error: Callable[[], BaseException] = lambda: TrainingError("a loss must be finite")

    def __call__(self) -> "Runner":
        self.calls.append([])
        return self

    def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
        self.calls[-1].extend((task.experiment.name, task.fold) for task in tasks)
        for one in tasks:
            if (one.experiment.name, one.fold) in self.failing:
                raise self.error()
            FoldStore(one.results).write(one.key, pd.DataFrame({"a": [1]}), {}, Path.touch)


def test_unit_continues_without_a_failed_experiment(tmp_path: Path) -> None:
    share = [task(tmp_path, name, fold) for name in "abc" for fold in range(2)]
    runner, events = Runner([("b", 0)]), list[dict[str, Any]]()
    failed = run_units([share], 1, runner, events.append)
    assert failed == {"b": "a loss must be finite"}
    assert runner.calls == [
        [(name, fold) for name in "abc" for fold in range(2)],
        [("c", 0), ("c", 1)],
    ]
    (event,) = events
    assert (event["event"], event["experiment"]) == ("step_failed", "b")
    assert "TrainingError" in event["traceback"]
    stored = [one for one in share if FoldStore(tmp_path).has(one.key)]
    assert {one.experiment.name for one in stored} == {"a", "c"}


def test_failed_experiment_is_skipped_in_later_units(tmp_path: Path) -> None:
    units = [[task(tmp_path, "a", 0)], [task(tmp_path, "a", 1)], [task(tmp_path, "b", 0)]]
    runner = Runner([("a", 0)])
    failed = run_units(units, 1, runner, silent)
    assert list(failed) == ["a"]
    assert runner.calls == [[("a", 0)], [("b", 0)]]


def test_error_after_the_last_fold_fails_no_experiment(tmp_path: Path) -> None:
    share = [task(tmp_path, "a", 0)]

    class Late(Runner):
        def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
            super().run(tasks, report)
            raise RuntimeError("a node left")

    assert run_units([share], 1, Late([]), silent) == {}


def test_as_many_units_run_at_once_as_requested(tmp_path: Path) -> None:
    units = [[task(tmp_path, name, 0)] for name in "abcd"]
    meeting = threading.Barrier(2, timeout=20)

    class Meeting:
        def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
            meeting.wait()
            for one in tasks:
                FoldStore(one.results).write(one.key, pd.DataFrame({"a": [1]}), {}, Path.touch)

    assert run_units(units, 2, Meeting, silent) == {}
    assert all(FoldStore(tmp_path).has(one.key) for unit in units for one in unit)


def test_error_that_belongs_to_no_fold_ends_the_command(tmp_path: Path) -> None:
    units = [[task(tmp_path, name, 0)] for name in "ab"]
    runner = Runner([("a", 0)], error=SystemExit)
    with pytest.raises(SystemExit):
        run_units(units, 1, runner, silent)
    assert not FoldStore(tmp_path).has(units[1][0].key)
