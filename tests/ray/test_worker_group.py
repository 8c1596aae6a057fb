import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from hms_ray.config.experiment import Experiment
from hms_ray.config.loading import validate_space
from hms_ray.config.space import ResourcesConfig
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.distributed.cluster import session
from hms_ray.distributed.worker_group import WorkerGroupRunner
from hms_ray.errors import TrainingError
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import plan_folds, run_experiment, run_task
from hms_ray.storage.fold_store import FoldStore
from tests.competition_folder import write_competition_folder

pytestmark = pytest.mark.ray

EXPERIMENT = validate_space(
    {
        "experiment": {
            "data": {"n_folds": 2},
            "input": {"downsample": [10, 10], "normalisation": "global"},
            "model": {"name": "test_efficientnet", "pretrained": False},
            "training": {
                "batch_size": 16,
                "augment": {"cutmix": {"probability": 1.0}},
                "stages": [
                    {"name": "noisy", "rows": "below_threshold", "epochs": 1},
                    {"name": "good", "rows": "at_least_threshold", "epochs": 2},
                ],
            },
        }
    },
    "test",
).experiment


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    base = tmp_path_factory.mktemp("data")
    data = write_competition_folder(base / "data", 12)
    return prepare(data, EXPERIMENT, base / "results")


@pytest.fixture(scope="module", autouse=True)
def connected() -> Iterator[None]:
    with session():
        yield


def make_runner(scratch: Path, **resources: object) -> WorkerGroupRunner:
    train = resources.pop("train", run_task)
    return WorkerGroupRunner(
        ResourcesConfig(health_check_interval_s=0.2, **resources),
        name="test",
        scratch=scratch / "scratch",
        train=train,
    )


def oof_of(runner: WorkerGroupRunner | InProcessRunner, prepared: Prepared, results: Path):
    result = run_experiment(EXPERIMENT, prepared, results, runner)
    assert result.reused == ()
    return result.oof


def test_group_per_fold_and_group_per_trial_predict_the_same(
    prepared: Prepared, tmp_path: Path
) -> None:
    fold = make_runner(tmp_path, workers=2, group="fold")
    trial = make_runner(tmp_path, workers=2, group="trial")
    assert fold.placement == trial.placement == Placement(world_size=2)
    first = oof_of(fold, prepared, tmp_path / "fold")
    second = oof_of(trial, prepared, tmp_path / "trial")
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert len(first) == len(prepared.rows())


def test_one_worker_predicts_what_this_process_predicts(prepared: Prepared, tmp_path: Path) -> None:
    here = InProcessRunner()
    if here.device.type != "cpu":
        pytest.skip("this machine's GPU rounds otherwise than a worker's CPU")
    worker = make_runner(tmp_path, workers=1, group="trial")
    assert worker.placement == here.placement
    first = oof_of(worker, prepared, tmp_path / "worker")
    second = oof_of(here, prepared, tmp_path / "here")
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def refuse_on_rank_one(task, process) -> None:
    attempt(task, process)
    if process.rank == 1:
        raise TrainingError("a loss must be finite", got="nan", where="step 3")
    import torch.distributed

    torch.distributed.barrier()


def attempt(task, process) -> None:
    """Leaves a mark of every attempt."""
    folder = task.results / "attempts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task.fold}-{process.rank}-{os.getpid()}").touch()


def attempts(results: Path, fold: int, rank: int = 0) -> int:
    return len(list((results / "attempts").glob(f"{fold}-{rank}-*")))


def run_folds(runner: WorkerGroupRunner, prepared: Prepared, results: Path) -> None:
    runner.run(plan(prepared, results, runner), lambda record: None)


def plan(prepared: Prepared, results: Path, runner: WorkerGroupRunner):
    return plan_folds(EXPERIMENT, prepared, results, runner.placement)


def test_hms_ray_error_is_final_and_unchanged(prepared: Prepared, tmp_path: Path) -> None:
    runner = make_runner(tmp_path, workers=2, max_failures=2, train=refuse_on_rank_one)
    with pytest.raises(TrainingError) as caught:
        run_folds(runner, prepared, tmp_path)
    assert str(caught.value) == "a loss must be finite, got nan, in step 3"
    assert attempts(tmp_path, fold=0, rank=1) == 1


def die_once_in_the_second_fold(task, process) -> None:
    attempt(task, process)
    if task.fold == 1 and process.rank == 0 and attempts(task.results, 1) == 1:
        os._exit(1)
    run_task(task, process)


def test_group_that_lost_a_worker_resumes_at_the_lost_fold(
    prepared: Prepared, tmp_path: Path
) -> None:
    runner = make_runner(
        tmp_path, workers=2, group="trial", max_failures=1, train=die_once_in_the_second_fold
    )
    run_folds(runner, prepared, tmp_path)
    tasks = plan(prepared, tmp_path, runner)
    assert all(FoldStore(tmp_path).has(task.key) for task in tasks)
    assert attempts(tmp_path, fold=0) == 1
    assert attempts(tmp_path, fold=1) == 2


def run_out_of_memory(task, process) -> None:
    attempt(task, process)
    raise RuntimeError("first line\nCUDA out of memory")


def test_other_errors_restart_the_group_and_are_one_line(
    prepared: Prepared, tmp_path: Path
) -> None:
    runner = make_runner(tmp_path, workers=1, max_failures=1, train=run_out_of_memory)
    with pytest.raises(TrainingError, match="a worker group must finish its folds") as caught:
        run_folds(runner, prepared, tmp_path)
    assert "got RuntimeError: CUDA out of memory, in test-fold-0" in str(caught.value)
    assert attempts(tmp_path, fold=0) == 2


def test_what_workers_report_has_its_fold(prepared: Prepared, tmp_path: Path) -> None:
    runner = make_runner(tmp_path, workers=1, group="trial", train=pretend)
    file = tmp_path / "events"
    runner.run(plan(prepared, tmp_path, runner), WriteDown(file))
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [f"{event['event']} {event['fold']}" for event in events] == [
        "fold_started 0",
        "evaluation 0",
        "fold_ended 0",
        "fold_started 1",
        "evaluation 1",
        "fold_ended 1",
    ]
    keys = {task.fold: task.key for task in plan(prepared, tmp_path, runner)}
    assert all(event["key"] == keys[event["fold"]] for event in events)
    assert {event["experiment"] for event in events} == {"experiment"}


def pretend(task, process) -> None:
    process.report({"kl_all": 1.0, "progress": 1.0})


class WriteDown:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, record: dict) -> None:
        with self.file.open("a") as stream:
            print(json.dumps(record), file=stream)


def test_experiments_of_one_group_share_their_stages(prepared: Prepared, tmp_path: Path) -> None:
    stages = EXPERIMENT.training.stages
    cuts = {"both": stages, "first": stages[:1], "other": (stages[0], stages[0])}
    runner = make_runner(tmp_path, workers=2, group="trial")
    tasks = []
    for name, some in cuts.items():
        training = EXPERIMENT.training.model_copy(update={"stages": some})
        experiment = EXPERIMENT.model_copy(update={"name": name, "training": training})
        tasks += plan_folds(experiment, prepared, tmp_path, runner.placement, [1])
    file = tmp_path / "events"
    runner.run(tasks, WriteDown(file))
    store = FoldStore(tmp_path)
    assert all(store.has(task.key) for task in tasks)
    events = [json.loads(line) for line in file.read_text().splitlines()]
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
    (alone,) = plan_folds(EXPERIMENT, prepared, tmp_path / "off", off.placement, [1])
    off.run([alone], lambda record: None)
    pd.testing.assert_frame_equal(shared, FoldStore(tmp_path / "off").read(alone.key).oof)
    assert not FoldStore(tmp_path / "off").has(first.key)


def test_environment_is_restored_after_a_run(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hms_ray.distributed.worker_group.TorchTrainer", FailingTrainer)
    before = dict(os.environ)
    with pytest.raises(AssertionError, match=r"saw 0\.2"):
        run_folds(make_runner(tmp_path), prepared, tmp_path)
    assert dict(os.environ) == before


class FailingTrainer:
    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def fit(self) -> None:
        raise AssertionError(f"saw {os.environ['RAY_TRAIN_HEALTH_CHECK_INTERVAL_S']}")


def test_experiment_of_these_tests_uses_randomness() -> None:
    # Equal predictions would prove little without dropout, drop path and CutMix.
    assert isinstance(EXPERIMENT, Experiment)
    assert EXPERIMENT.model.dropout > 0
    assert EXPERIMENT.model.drop_path > 0
    assert EXPERIMENT.training.augment.cutmix is not None
