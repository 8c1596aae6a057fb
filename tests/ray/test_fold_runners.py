"""The contract of fold runners: equal numbers and events in one process and in Ray's workers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray.dataset.prepare import Prepared
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import ExperimentResult, FoldRunner, collect, plan_folds
from hms_ray.storage.fold_store import FoldStore
from hms_ray.train.history import MEASURED
from hms_ray.train.process import Process
from tests.ray.worker_groups import EXPERIMENT, EventFile, Groups, standing_groups

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]

RUNNERS = ("in process", "fold 1", "study 1", "fold 2", "study 2")
"""``resources.group`` and number of ranks."""


@dataclass(frozen=True)
class Run:
    """Folds, and a task that equals the first stages of the first one."""

    tasks: list[FoldTask]
    covered: FoldTask
    events: list[dict[str, Any]]

    def folds(self) -> set[int]:
        return {task.fold for task in self.tasks}

    def result(self, fold: int) -> ExperimentResult:
        return collect([self.tasks[fold]], trained=[fold])


@pytest.fixture(scope="module")
def runs(two_folds: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    made = {}
    for name in RUNNERS:
        folder = tmp_path_factory.mktemp("run")
        if name == "in process":
            made[name] = train(InProcessRunner(device="cpu"), two_folds, folder)
            continue
        group, workers = name.split()
        # On two CPUs.
        max_groups = 2 if name == "fold 1" else 1
        resources = {"group": group, "workers": int(workers), "max_groups": max_groups}
        with standing_groups(folder, **resources) as groups:
            if group == "study":
                # The folds come to a process that is not as it started.
                leave_traces(groups, two_folds, folder / "traces")
            # Each group of two takes long to start: one fold shows the same.
            folds = [0] if name == "fold 2" else [0, 1]
            made[name] = train(groups.runner(), two_folds, folder, folds)
            n_groups = len(groups.standing.times())
        assert n_groups == (1 if group == "study" else len(folds))
    return made


def train(
    runner: FoldRunner, two_folds: Prepared, folder: Path, folds: Sequence[int] = (0, 1)
) -> Run:
    tasks = plan_folds(EXPERIMENT, two_folds, folder / "results", runner.placement, folds)
    file = EventFile(folder / "events")
    runner.run([*tasks, tasks[0].truncated(1)], file)
    return Run(tasks, tasks[0].truncated(1), file.events())


def leave_traces(groups: Groups, two_folds: Prepared, results: Path) -> None:
    runner = groups.runner(train=change_state)
    tasks = plan_folds(EXPERIMENT, two_folds, results, runner.placement, [0])
    runner.run(tasks, lambda record: None)
    assert len(list(results.iterdir())) == groups.resources.workers


def change_state(task: FoldTask, process: Process) -> None:
    """Changes what one fold could leave to the next one."""
    task.results.mkdir(parents=True, exist_ok=True)
    (task.results / f"rank-{process.rank}").touch()
    torch.set_num_threads(3)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state is what this is about
    random.seed(5)
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("medium")


def test_equal_world_sizes_have_equal_cache_keys_and_predictions(runs: dict[str, Run]) -> None:
    for names in (RUNNERS[:3], RUNNERS[3:]):
        first, *others = (runs[name] for name in names)
        for other in others:
            for fold in first.folds() & other.folds():
                assert first.tasks[fold].key == other.tasks[fold].key
                one, same = first.result(fold), other.result(fold)
                pd.testing.assert_frame_equal(one.oof, same.oof, check_exact=True)
                assert one.scores == same.scores
    assert runs["study 1"].tasks[0].key != runs["study 2"].tasks[0].key


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
        return [{k: v for k, v in event.items() if k not in MEASURED} for event in run.events]

    assert comparable(runs["in process"]) == comparable(runs["study 1"])
