import os
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pandas as pd
import pytest
import torch

from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.worker_group import WorkerGroupRunner
from hms_ray.errors import TrainingError
from hms_ray.experiment.fold_task import run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import plan_folds, run_experiment
from hms_ray.storage.fold_store import FoldStore
from hms_ray.train.device_memory import TRAINING_FIX
from hms_ray.train.step import Step
from tests.ray.worker_groups import EXPERIMENT, EventFile, make_runner

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]


def oof_of(runner: WorkerGroupRunner, two_folds: Prepared, results: Path):
    result = run_experiment(EXPERIMENT, two_folds, results, runner)
    assert result.reused == ()
    return result.oof


def test_group_per_fold_and_group_per_trial_predict_the_same(
    two_folds: Prepared, tmp_path: Path
) -> None:
    fold = make_runner(tmp_path, workers=2, group="fold")
    trial = make_runner(tmp_path, workers=2, group="trial")
    assert fold.placement == trial.placement == Placement(world_size=2)
    first = oof_of(fold, two_folds, tmp_path / "fold")
    second = oof_of(trial, two_folds, tmp_path / "trial")
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert len(first) == len(two_folds.rows())


def fill_memory_on_rank_one(task, process) -> None:
    attempt(task, process)
    assert process.windows == "streamed"
    if process.rank == 1:

        def full(self, batch, image) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")

        Step.__call__ = full
    run_task(task, process)


def attempt(task, process) -> None:
    """Leaves a mark of every attempt."""
    folder = task.results / "attempts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task.fold}-{process.rank}-{os.getpid()}").touch()


def attempts(results: Path, fold: int, rank: int = 0) -> int:
    return len(list((results / "attempts").glob(f"{fold}-{rank}-*")))


def run_folds(runner: WorkerGroupRunner, two_folds: Prepared, results: Path) -> None:
    runner.run(plan(two_folds, results, runner), lambda record: None)


def plan(two_folds: Prepared, results: Path, runner: WorkerGroupRunner):
    return plan_folds(EXPERIMENT, two_folds, results, runner.placement)


def test_full_memory_is_final_and_one_error(two_folds: Prepared, tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path, workers=2, max_failures=2, windows="streamed", train=fill_memory_on_rank_one
    )
    with pytest.raises(TrainingError) as caught:
        run_folds(runner, two_folds, tmp_path)
    assert str(caught.value) == (
        "a fold must fit into the memory of its device, got a request for 2.50 GiB more, in "
        f"fold 0, stage {EXPERIMENT.training.stages[0].name}. {TRAINING_FIX}"
    )
    assert attempts(tmp_path, fold=0, rank=1) == 1


def die_once_in_the_second_fold(task, process) -> None:
    attempt(task, process)
    if task.fold == 1 and process.rank == 0 and attempts(task.results, 1) == 1:
        os._exit(1)
    run_task(task, process)


def test_group_that_lost_a_worker_resumes_at_the_lost_fold(
    two_folds: Prepared, tmp_path: Path
) -> None:
    runner = make_runner(
        tmp_path, workers=2, group="trial", max_failures=1, train=die_once_in_the_second_fold
    )
    run_folds(runner, two_folds, tmp_path)
    tasks = plan(two_folds, tmp_path, runner)
    assert all(FoldStore(tmp_path).has(task.key) for task in tasks)
    assert attempts(tmp_path, fold=0) == 1
    assert attempts(tmp_path, fold=1) == 2


def run_out_of_memory(task, process) -> None:
    attempt(task, process)
    raise RuntimeError("first line\nCUDA out of memory")


def test_other_errors_restart_the_group_and_are_one_line(
    two_folds: Prepared, tmp_path: Path
) -> None:
    runner = make_runner(tmp_path, workers=1, max_failures=1, train=run_out_of_memory)
    with pytest.raises(TrainingError, match="a worker group must finish its folds") as caught:
        run_folds(runner, two_folds, tmp_path)
    assert "got RuntimeError: CUDA out of memory, in test-fold-0" in str(caught.value)
    assert attempts(tmp_path, fold=0) == 2


def test_experiments_of_one_group_share_their_stages(two_folds: Prepared, tmp_path: Path) -> None:
    stages = EXPERIMENT.training.stages
    cuts = {"both": stages, "first": stages[:1], "other": (stages[0], stages[0])}
    runner = make_runner(tmp_path, workers=2, group="trial")
    tasks = []
    for name, some in cuts.items():
        training = EXPERIMENT.training.model_copy(update={"stages": some})
        experiment = EXPERIMENT.model_copy(update={"name": name, "training": training})
        tasks += plan_folds(experiment, two_folds, tmp_path, runner.placement, [1])
    file = EventFile(tmp_path / "events")
    runner.run(tasks, file)
    store = FoldStore(tmp_path)
    assert all(store.has(task.key) for task in tasks)
    events = file.events()
    both, first, other = tasks
    assert {(e["experiment"], e["key"]) for e in events} == {
        ("both", both.key),
        ("other", other.key),
    }
    ends = [(e["event"], e["experiment"]) for e in events if e["event"] != "evaluation"]
    assert ends == [
        ("fold_started", "both"),
        ("fold_ended", "both"),
        ("fold_started", "other"),
        ("stages_reused", "other"),
        ("fold_ended", "other"),
    ]
    assert store.record(other.key)["reused_stages"] == {"names": ["noisy"], "key": first.key}
    shared = store.read(both.key).oof
    off = make_runner(tmp_path / "off", workers=2, group="fold", share_stages=False)
    (alone,) = plan_folds(EXPERIMENT, two_folds, tmp_path / "off", off.placement, [1])
    off.run([alone], lambda record: None)
    pd.testing.assert_frame_equal(shared, FoldStore(tmp_path / "off").read(alone.key).oof)
    assert not FoldStore(tmp_path / "off").has(first.key)


def test_environment_is_restored_after_a_run(
    two_folds: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit() -> None:
        raise AssertionError(f"saw {os.environ['RAY_TRAIN_HEALTH_CHECK_INTERVAL_S']}")

    trainer = MagicMock(return_value=SimpleNamespace(fit=fit))
    monkeypatch.setattr("hms_ray.distributed.worker_group.TorchTrainer", trainer)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "9")
    before = dict(os.environ)
    with pytest.raises(AssertionError, match=r"saw 0\.2"):
        run_folds(make_runner(tmp_path), two_folds, tmp_path)
    assert dict(os.environ) == before
