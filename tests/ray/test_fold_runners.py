"""The contract of fold runners: equal numbers and events in one process and in Ray's workers."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest

from hms_ray.dataset.prepare import Prepared
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import collect, plan_folds
from hms_ray.storage.fold_store import FoldStore
from tests.ray.worker_groups import EXPERIMENT, EventFile, make_runner

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]

RUNNERS = ("in_process", "worker_group")


@dataclass(frozen=True)
class Run:
    """Two folds, and a task that equals the first stages of one of them."""

    tasks: list[FoldTask]
    covered: FoldTask
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def runs(two_folds: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    made = {}
    for name in RUNNERS:
        folder = tmp_path_factory.mktemp(name)
        runner = InProcessRunner(device="cpu")
        if name == "worker_group":
            runner = make_runner(folder, workers=1, group="trial")
        tasks = plan_folds(EXPERIMENT, two_folds, folder / "results", runner.placement)
        covered = tasks[0].truncated(1)
        file = EventFile(folder / "events")
        runner.run([*tasks, covered], file)
        made[name] = Run(tasks, covered, file.events())
    return made


def test_equal_world_sizes_have_equal_cache_keys_and_predictions(runs: dict[str, Run]) -> None:
    here, there = (runs[name] for name in RUNNERS)
    assert [task.key for task in here.tasks] == [task.key for task in there.tasks]
    first, second = (collect(run.tasks, trained=[0, 1]) for run in (here, there))
    pd.testing.assert_frame_equal(first.oof, second.oof, check_exact=True)
    assert first.scores == second.scores


@pytest.mark.parametrize("name", RUNNERS)
def test_each_fold_is_stored_and_reported_from_start_to_end(
    runs: dict[str, Run], name: str
) -> None:
    run = runs[name]
    for task in run.tasks:
        assert FoldStore(task.results).has(task.key)
        events = [event for event in run.events if event["fold"] == task.fold]
        kinds = [event["event"] for event in events]
        assert kinds == ["fold_started", *["evaluation"] * (len(kinds) - 2), "fold_ended"]
        assert len(kinds) > 4
        assert events[-2]["progress"] == 1
        assert all(event["key"] == task.key for event in events)
        assert all(event["experiment"] == "experiment" for event in events)


@pytest.mark.parametrize("name", RUNNERS)
def test_task_stored_by_an_earlier_one_is_skipped(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    assert FoldStore(run.covered.results).has(run.covered.key)
    assert run.covered.key not in {event["key"] for event in run.events}


def test_both_report_the_same_records(runs: dict[str, Run]) -> None:
    def comparable(run: Run) -> list[dict[str, Any]]:
        return [{k: v for k, v in event.items() if k != "seconds"} for event in run.events]

    assert comparable(runs["in_process"]) == comparable(runs["worker_group"])
