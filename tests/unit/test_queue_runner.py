"""The fold runner without Ray, when the actor of its queue is lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed import queue_actor, submissions
from hms_ray.distributed.job_queue import JobQueue
from hms_ray.distributed.queue_actor import MAX_RESTARTS, WAIT_S, QueueRunner, _QueueActor
from hms_ray.errors import ResourceError
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.storage.run_log import WorkerLogs
from tests.refused import refusal
from tests.unit.test_job_queue import HERE, TRAINED, Group, job


class Actor:
    """A queue with a group that trains each fold that is waited for; ``lose`` restarts it."""

    def __init__(self) -> None:
        self.submitted: list[list[int]] = []
        self.lose_at: tuple[str, int] | None = None
        self._restart()
        for name in ("call", "wait"):
            method: Callable[..., Any] = getattr(self, f"_{name}")
            setattr(self, name, type("Method", (), {"remote": staticmethod(method)}))

    def _restart(self) -> None:
        self.queue = JobQueue()
        self.group = Group(self.queue, "g")

    def _lost(self, name: str, index: int) -> bool:
        if self.lose_at != (name, index):
            return False
        self.lose_at = None
        self._restart()
        return True

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        if name == "submit":
            self.submitted.append([one.task.fold for one in arguments[0]])
        if name == "decided" and self._lost(name, arguments[1]):
            return ActorDiedError()
        return getattr(self.queue, name)(*arguments, **options)

    def _wait(self, number: int, index: int) -> Any:
        if self._lost("wait", index):
            return ActorDiedError()
        assert self.group.take() is not None
        self.group.done(TRAINED)
        assert self.queue.ended(number, index)
        return True, self.queue.end(number, index)


def get(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    monkeypatch.setattr(queue_actor.ray, "get", get)
    monkeypatch.setattr(queue_actor, "RESTART_S", 0.0)
    monkeypatch.setattr(queue_actor.FoldStore, "wait_for", lambda self, keys: None)
    return Actor()


@pytest.mark.parametrize(
    ("lose_at", "again"), [(("wait", 1), [1, 2]), (("decided", 1), [2]), (("decided", 2), None)]
)
def test_folds_after_a_lost_queue_are_submitted_again_and_none_is_decided_twice(
    actor: Actor, lose_at: tuple[str, int], again: list[int] | None
) -> None:
    actor.lose_at = lose_at
    asked: list[int] = []

    def continues(task: FoldTask) -> bool:
        asked.append(task.fold)
        return True

    runner = QueueRunner(actor, ResourcesConfig(), logs=WorkerLogs(HERE), trial=7)
    runner.run([job("a", fold).task for fold in range(3)], print, continues)
    assert actor.lose_at is None
    assert asked == [0, 1, 2]
    assert actor.submitted == [[0, 1, 2]] + ([again] if again else [])


def test_a_queue_that_is_lost_for_good_is_an_error(
    actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_calls = 0

    def dead(*arguments: Any, **options: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        return ActorDiedError()

    monkeypatch.setattr(actor.call, "remote", dead)
    runner = QueueRunner(actor, ResourcesConfig(), logs=WorkerLogs(HERE))
    with refusal(
        ResourceError,
        "the queue of folds must be reachable",
        got="The actor died unexpectedly",
        fix="Run the same command again",
    ):
        runner.run([job("a", 0).task], print)
    assert n_calls == MAX_RESTARTS


def test_a_decision_to_stop_ends_the_run(actor: Actor) -> None:
    runner = QueueRunner(actor, ResourcesConfig(), logs=WorkerLogs(HERE))
    runner.run([job("a", fold).task for fold in range(3)], print, lambda task: task.fold < 1)
    assert actor.submitted == [[0, 1, 2]]
    assert actor.queue.status().n_waiting == 0


def test_the_fold_of_a_lost_caller_is_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "NOT_SEEN_S", 0.05)

    async def place_to_cancel() -> int:
        queue = _QueueActor(1, one_each=False)
        await queue.call("submit", [job("a", 0)], trial=1)
        seat = await queue.call("sit", "g", 1)
        taken = await queue.take(seat, 0, 0, "node")
        waiting = asyncio.create_task(queue.to_cancel(seat, -1, (0, taken.key)))
        await asyncio.sleep(0.1)
        await queue.status()
        return await asyncio.wait_for(waiting, WAIT_S / 5)

    assert asyncio.run(place_to_cancel()) == 0


def test_a_restarted_actor_gives_out_other_numbers() -> None:
    async def life() -> int:
        return (await _QueueActor(1, one_each=False).status()).life

    assert asyncio.run(life()) < asyncio.run(life())
