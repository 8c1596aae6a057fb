"""Losses of workers, controllers and trial processes: what is trained again, and what is not.

One worker group of two ranks serves all tests, restarted and replaced as they go.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import torch

from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.queue_actor import QueueRunner
from hms_ray.errors import FoldCancelled, TrainingError
from hms_ray.experiment.fold_task import FoldTask, run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import collect, plan_folds
from hms_ray.storage.fold_store import FoldStore
from hms_ray.train.device_memory import TRAINING_FIX
from hms_ray.train.process import Process
from hms_ray.train.step import Step
from tests.ray.leftovers import nothing_left
from tests.ray.worker_groups import EXPERIMENT, EventFile, Groups, process_of, standing_groups

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]

TIMEOUT_S = 60.0
STALL_S = 6.0
GOAL_S = 20.0
"""Until the next step after the loss of a process, on two cores."""


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Groups]:
    folder = tmp_path_factory.mktemp("groups")
    resources: dict[str, Any] = {"workers": 2, "max_groups": 1, "stall_timeout_s": STALL_S}
    with standing_groups(folder, **resources, windows="streamed") as groups:
        yield groups


@pytest.fixture(scope="module")
def undisturbed(
    groups: Groups, two_folds: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    """Out-of-fold predictions of a run without losses."""
    tasks = plan(two_folds, tmp_path_factory.mktemp("undisturbed"))
    groups.runner().run(tasks, quiet)
    return collect(tasks, trained=[0, 1]).oof


def quiet(record: dict[str, Any]) -> None:
    pass


def plan(two_folds: Prepared, results: Path) -> list[FoldTask]:
    return plan_folds(EXPERIMENT, two_folds, results, Placement(world_size=2))


def attempt(task: FoldTask, process: Process) -> int:
    """Leaves a mark of every attempt of a rank; returns how many there are."""
    folder = task.results / "attempts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task.fold}-{process.rank}-{time.time_ns()}").touch()
    return attempts(task.results, task.fold, process.rank)


def marks(results: Path, name: str) -> list[int]:
    """Times of marks in nanoseconds, the first one first."""
    found = (results / "attempts").glob(f"{name}-*")
    return sorted(int(mark.name.rpartition("-")[2]) for mark in found)


def attempts(results: Path, fold: int, rank: int = 0) -> int:
    return len(marks(results, f"{fold}-{rank}"))


def run_with_mark(task: FoldTask, process: Process) -> None:
    """Trains a fold and leaves a mark of its first step."""
    left = ["the first one"]

    def mark() -> None:
        if left:
            left.pop()
            (task.results / "attempts" / f"step-{time.time_ns()}").touch()

    run_task(task, replace(process, on_step=mark))


def seconds_to_step(results: Path, mark: str) -> float:
    """Seconds from a rank's first mark, right before it was lost, to the next step of any."""
    lost = marks(results, mark)[0]
    return (next(at for at in marks(results, "step") if at > lost) - lost) / 1e9


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def kill_worker_once(task: FoldTask, process: Process) -> None:
    if attempt(task, process) == 1 and (task.fold, process.rank) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    run_with_mark(task, process)


def kill_controller_once(task: FoldTask, process: Process) -> None:
    if attempt(task, process) == 1 and (task.fold, process.rank) == (1, 0):
        (pid,) = siblings("ray::TrainController")
        os.kill(pid, signal.SIGKILL)
        time.sleep(TIMEOUT_S)
    run_with_mark(task, process)


def siblings(title: str) -> list[int]:
    """Other processes of this Ray's node, by the start of their title."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The title may hold spaces: the parent follows its closing bracket and the state.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getppid() and (folder / "cmdline").read_text().startswith(title):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("train", [kill_worker_once, kill_controller_once])
def test_killed_process_costs_the_fold_in_training_and_changes_no_prediction(
    groups: Groups,
    two_folds: Prepared,
    tmp_path: Path,
    undisturbed: pd.DataFrame,
    train: Callable[[FoldTask, Process], None],
) -> None:
    tasks, n_said = plan(two_folds, tmp_path), len(groups.said)
    groups.runner(train, trial=7).run(tasks, quiet)
    assert (attempts(tmp_path, fold=0), attempts(tmp_path, fold=1)) == (1, 2)
    oof = collect(tasks, trained=[0, 1]).oof
    pd.testing.assert_frame_equal(oof, undisturbed, check_exact=True)
    until(lambda: any("trial 0007 fold 1 was lost" in text for text in groups.said[n_said:]))
    seconds = seconds_to_step(tmp_path, f"1-{int(train is kill_worker_once)}")
    print(f"{train.__name__}: {seconds:.1f} s to the next step")
    assert seconds < 2 * GOAL_S, "tests of other modules may run beside"
    nothing_left(tmp_path, groups=1, workers=2)


def hang_once(task: FoldTask, process: Process) -> None:
    if attempt(task, process) == 1 and process.rank == 1:

        def sleep_in_step(self: Step, *arguments: object, **options: object) -> None:
            time.sleep(TIMEOUT_S)

        Step.__call__ = sleep_in_step  # type: ignore[assignment, method-assign]
    run_task(task, process)


def test_a_rank_that_hangs_is_named_and_its_group_starts_again(
    groups: Groups, two_folds: Prepared, tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    tasks, n_said = plan(two_folds, tmp_path)[:1], len(groups.said)
    groups.runner(hang_once, trial=12).run(tasks, quiet)
    assert (attempts(tmp_path, fold=0), attempts(tmp_path, fold=0, rank=1)) == (2, 2)
    oof = FoldStore(tmp_path).read(tasks[0].key).oof.set_index("row_id")
    expected = undisturbed.set_index("row_id").loc[oof.index, oof.columns]
    pd.testing.assert_frame_equal(oof, expected, check_exact=True)
    (line,) = [text for text in groups.said[n_said:] if "trial 0012 fold 0 was lost" in text]
    assert f"no step for {STALL_S:.0f} s, rank 1 is behind the others; its stacks are in " in line
    log = Path(line.partition("stacks are in ")[2]).read_text()
    assert "in sleep_in_step" in log
    assert "rank 1] no step for" in log
    nothing_left(tmp_path, groups=1, workers=2)


@ray.remote(num_cpus=0)
class TrialProcess:
    def run(self, runner: QueueRunner, tasks: list[FoldTask], report: EventFile) -> None:
        runner.run(tasks, report)


def train_slowly(task: FoldTask, process: Process) -> None:
    attempt(task, process)
    if task.fold == 0:
        time.sleep(3)
    run_task(task, process)


def test_fold_of_a_killed_trial_process_is_trained_once(
    groups: Groups, two_folds: Prepared, tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    tasks, runner = plan(two_folds, tmp_path), groups.runner(train_slowly, trial=8)
    file = EventFile(tmp_path / "events")
    killed = TrialProcess.remote()
    killed.run.remote(runner, tasks, file)
    until(lambda: attempts(tmp_path, 0) == 1)
    ray.kill(killed)
    ray.get(TrialProcess.remote().run.remote(runner, tasks, file), timeout=TIMEOUT_S)
    assert (attempts(tmp_path, fold=0), attempts(tmp_path, fold=1)) == (1, 1)
    oof = collect(tasks, trained=[0, 1]).oof
    pd.testing.assert_frame_equal(oof, undisturbed, check_exact=True)
    nothing_left(tmp_path, groups=1, workers=2)


def test_a_killed_queue_costs_no_fold(
    groups: Groups, two_folds: Prepared, tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    tasks, runner = plan(two_folds, tmp_path), groups.runner(train_slowly, trial=10)
    before = groups.standing.times()
    thread = threading.Thread(target=runner.run, args=(tasks, quiet))
    thread.start()
    until(lambda: attempts(tmp_path, 0) == 1)
    os.kill(process_of(groups.standing.queue), signal.SIGKILL)
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert (attempts(tmp_path, fold=0), attempts(tmp_path, fold=1)) == (1, 1)
    oof = collect(tasks, trained=[0, 1]).oof
    pd.testing.assert_frame_equal(oof, undisturbed, check_exact=True)
    after = groups.standing.times()
    assert [times.requested for times in after[: len(before)]] == [
        times.requested for times in before
    ]
    assert sum(times.n_folds for times in after) > sum(times.n_folds for times in before)
    nothing_left(tmp_path, groups=1, workers=2)


def fill_memory_on_rank_one(task: FoldTask, process: Process) -> None:
    attempt(task, process)
    assert process.windows == "streamed"
    if process.rank == 1:

        def full(self: Step, *arguments: object, **options: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")

        Step.__call__ = full  # type: ignore[assignment, method-assign]
    run_task(task, process)


def fail_in_step_of_rank_one(task: FoldTask, process: Process) -> None:
    attempt(task, process)
    if process.rank == 1:
        Step.__call__ = None  # type: ignore[assignment, method-assign]
    run_task(task, process)


def test_unexpected_error_of_one_rank_fails_the_fold_at_once(
    groups: Groups, two_folds: Prepared, tmp_path: Path
) -> None:
    n_said = len(groups.said)
    with pytest.raises(TrainingError, match="must be trained without an unexpected") as caught:
        groups.runner(fail_in_step_of_rank_one).run(plan(two_folds, tmp_path)[:1], quiet)
    assert "got TypeError: 'NoneType' object is not callable, in fold 0" in str(caught.value)
    assert attempts(tmp_path, fold=0, rank=1) == 1
    assert groups.said[n_said:] == [], "no loss"
    nothing_left(tmp_path, groups=1, workers=2)


def test_error_of_one_rank_is_final_and_restarts_its_group(
    groups: Groups, two_folds: Prepared, tmp_path: Path
) -> None:
    tasks, runner = plan(two_folds, tmp_path), groups.runner(fill_memory_on_rank_one)
    with pytest.raises(TrainingError) as caught:
        runner.run(tasks[:1], quiet)
    assert str(caught.value) == (
        "a fold must fit into the memory of its device, got a request for 2.50 GiB more, in "
        f"fold 0, stage {EXPERIMENT.training.stages[0].name}. {TRAINING_FIX}"
    )
    assert attempts(tmp_path, fold=0, rank=1) == 1
    # In the process that is left ``Step`` would fail.
    groups.runner().run(tasks[:1], quiet)
    assert FoldStore(tmp_path).has(tasks[0].key)


def fail_oddly(task: FoldTask, process: Process) -> None:
    attempt(task, process)
    raise RuntimeError("first line\nCUDA error: an illegal memory access")


def test_fold_that_always_breaks_its_group_fails_after_one_repetition(
    groups: Groups, two_folds: Prepared, tmp_path: Path
) -> None:
    runner = groups.runner(fail_oddly)
    with pytest.raises(TrainingError, match="must finish a fold before it is lost 2") as caught:
        runner.run(plan(two_folds, tmp_path)[:1], quiet)
    assert "got RuntimeError: CUDA error: an illegal memory access, in fold 0" in str(caught.value)
    assert attempts(tmp_path, fold=0) == 2


def wait_until_cancelled(task: FoldTask, process: Process) -> None:
    attempt(task, process)

    def wait() -> None:
        until(process.should_stop)

    process.call_on_rank0(wait)
    raise FoldCancelled


def test_cancelled_trial_ends_within_seconds_and_its_group_goes_on(
    groups: Groups, two_folds: Prepared, tmp_path: Path
) -> None:
    tasks = plan(two_folds, tmp_path)
    runner = groups.runner(wait_until_cancelled, trial=9)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            runner.run(tasks, quiet)
        except FoldCancelled as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: attempts(tmp_path, 0) == 1)
    n_restarts = sum(times.n_restarts for times in groups.standing.times())
    started = time.monotonic()
    ray.get(groups.standing.queue.call.remote("cancel", 9))
    thread.join(TIMEOUT_S)
    assert len(ended) == 1
    groups.runner(attempt).run(tasks[1:], quiet)
    assert time.monotonic() - started < 5
    assert sum(times.n_restarts for times in groups.standing.times()) == n_restarts


def train_the_first_fold(task: FoldTask, process: Process) -> None:
    (run_task if task.fold == 0 else wait_until_cancelled)(task, process)


def test_folds_after_the_last_one_needed_are_cancelled(
    groups: Groups, two_folds: Prepared, tmp_path: Path
) -> None:
    tasks, asked = plan(two_folds, tmp_path), list[int]()

    def after_fold(task: FoldTask) -> bool:
        assert FoldStore(tmp_path).has(task.key)
        # An idle group starts the next fold before this one is decided about.
        until(lambda: attempts(tmp_path, 1) == 1)
        asked.append(task.fold)
        return False

    groups.runner(train_the_first_fold).run(tasks, quiet, after_fold)
    started = time.monotonic()
    # Of another experiment: a fold that is wanted again is not cancelled.
    others = [replace(task, key=f"other-{task.key}") for task in plan(two_folds, tmp_path / "next")]
    groups.runner(attempt).run(others, quiet)
    assert time.monotonic() - started < 5
    assert asked == [0]


def test_experiments_of_one_group_share_their_stages(
    groups: Groups, two_folds: Prepared, tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    stages = EXPERIMENT.training.stages
    cuts = {"both": stages, "first": stages[:1], "other": (stages[0], stages[0])}
    tasks = []
    for name, some in cuts.items():
        training = EXPERIMENT.training.model_copy(update={"stages": some})
        experiment = EXPERIMENT.model_copy(update={"name": name, "training": training})
        tasks += plan_folds(experiment, two_folds, tmp_path, Placement(world_size=2), [1])
    file = EventFile(tmp_path / "events")
    groups.runner().run(tasks, file)
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
    shared = store.read(both.key).oof.set_index("row_id")
    alone = undisturbed.set_index("row_id").loc[shared.index, shared.columns]
    pd.testing.assert_frame_equal(shared, alone, check_exact=True)
