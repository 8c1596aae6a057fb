"""A fold whose worker has no memory left: packs of earlier folds make room."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import ActorDiedError

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed import worker_loop
from hms_ray.distributed.job import FoldEnd, Job
from hms_ray.distributed.worker_loop import _Cancelled, _end_of
from hms_ray.errors import TrainingError, one_line
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.train.device_memory import device_memory
from hms_ray.train.process import Process
from hms_ray.train.windows import OpenedPacks
from tests.refused import refusal
from tests.unit.test_opened_packs import META, pack


class Worker:
    """A worker whose device holds ``n_packs`` of earlier folds, and one of the fold that it trains.

    Args:
        n_allowed: packs that leave room for the fold.
    """

    def __init__(self, folder: Path, n_packs: int, n_allowed: int) -> None:
        self.packs = OpenedPacks(META, lambda device: 10_000)
        for number in range(n_packs):
            self.packs.open({"raw": pack(str(number), 80)})
        self.n_allowed, self.n_attempts = n_allowed, 0
        task: Any = SimpleNamespace(
            experiment=SimpleNamespace(name="x"), fold=0, key="a" * 64, results=folder
        )
        self.job = Job(task, lambda record: None, self.train, WorkerLogs(folder))

    def train(self, task: Any, process: Process) -> None:
        self.n_attempts += 1
        with device_memory("fold 0"):
            self.packs.open({"raw": pack("own", 80)})
            if len(self.packs._resident) > self.n_allowed:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def end(self, process: Process | None = None) -> FoldEnd:
        process = replace(process or Process(), packs=self.packs)
        return _end_of(self.job, process, ResourcesConfig())


def test_a_fold_without_memory_is_tried_again_without_the_packs_of_earlier_ones(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, n_packs=2, n_allowed=1)
    assert worker.end() == FoldEnd("trained")
    assert worker.n_attempts == 2
    assert len(worker.packs._resident) == 1


@pytest.mark.parametrize(("n_packs", "n_attempts"), [(0, 1), (2, 2)])
def test_a_fold_that_cannot_fit_fails_after_one_more_attempt_at_most(
    tmp_path: Path, n_packs: int, n_attempts: int
) -> None:
    worker = Worker(tmp_path, n_packs, n_allowed=0)
    end = worker.end()
    assert (end.kind, worker.n_attempts) == ("failed", n_attempts)
    assert "a fold must fit into the memory of its device" in str(end.error)


def test_several_ranks_start_again_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "call_on_rank0", lambda self, function: function())
    two = Process(rank=0, world_size=2)
    end = Worker(tmp_path, n_packs=1, n_allowed=1).end(two)
    assert end.kind == "broken"
    assert "memory was full beside 1 pack of earlier folds" in end.reason
    # Without such packs, a new group would fail as well.
    assert Worker(tmp_path, n_packs=0, n_allowed=0).end(two).kind == "failed"


class Failing(Worker):
    """A worker whose fold raises an error."""

    def __init__(self, folder: Path, error: Exception) -> None:
        super().__init__(folder, 0, 0)
        self.error = error

    def train(self, task: Any, process: Process) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "own"), [(KeyError("x"), True), (RuntimeError("first\nConnection closed"), False)]
)
def test_an_unexpected_error_is_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, own: bool
) -> None:
    monkeypatch.setattr(Process, "call_on_rank0", lambda self, function: function())
    worker = Failing(tmp_path, error)
    for process, certain in ((Process(), True), (Process(rank=1, world_size=2), own)):
        end = worker.end(process)
        assert (end.kind, end.own, end.in_step, end.reusable) == ("failed", certain, False, False)
        with refusal(
            TrainingError,
            "without an unexpected error",
            got=one_line(error),
            where="fold 0 of x",
            fix=f"Read the traceback in {worker.job.logs.file}",
        ):
            assert end.error is not None
            raise end.error
    assert type(error).__name__ in worker.job.logs.file.read_text()


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("an uncorrectable error of the memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        torch.distributed.DistNetworkError("a peer is gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fault_of_device_or_connection_is_a_loss(tmp_path: Path, error: Exception) -> None:
    end = Failing(tmp_path, error).end()
    assert (end.kind, end.error) == ("broken", None)
    assert end.reason.startswith(type(error).__name__)


def test_cancellations_are_followed_again_after_a_loss_of_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Any, ...]] = []
    answers: list[Any] = [-1, ActorDiedError(), 3, RuntimeError("the run ends")]

    def get(call: tuple[Any, ...]) -> Any:
        calls.append(call)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(worker_loop.ray, "get", get)
    monkeypatch.setattr(worker_loop, "RETRY_S", 0.0)
    monkeypatch.setattr(worker_loop.threading.Thread, "start", lambda thread: None)
    queue = SimpleNamespace(to_cancel=SimpleNamespace(remote=lambda *words: words))
    cancelled = _Cancelled(queue, 8)
    cancelled.training = 3, "key"
    cancelled._follow()
    assert cancelled.holds(3)
    assert calls == [(8, known, (3, "key")) for known in (-1, -1, -1, 3)]
