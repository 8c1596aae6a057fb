"""The actor that holds the queue of folds, and the fold runner of the processes that use it.

Its calls wait up to ``WAIT_S`` for an answer, in one event loop: a waiting call takes no thread,
and a caller that is lost takes nothing with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.fold_losses import NODE_NOTICED_S, Nodes
from hms_ray.distributed.group_resources import placement
from hms_ray.distributed.job import FoldEnd, GroupTimes, Job, QueueStatus, Train
from hms_ray.distributed.job_queue import JobQueue, Stop
from hms_ray.distributed.seat import Verdict
from hms_ray.errors import ResourceError, one_line
from hms_ray.experiment.fold_task import FoldTask, Report, run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import AfterFold
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.train.pulse import RankPulse

logger = logging.getLogger(__name__)

T = TypeVar("T")

WAIT_S: Final = 5.0
"""Longest time of a call; its caller then calls again."""
RANKS_AGREE_S: Final = 10.0
"""Within this time all ranks report an error that they raise together."""
LOSS_NOTICED_S: Final = NODE_NOTICED_S + 5.0
"""Within this time the loss of a rank is known that an error of another one may come from."""
MAX_CALLS: Final = 10_000
"""Calls that may wait at once: one per trial and two per worker."""
RESTART_S: Final = 1.0
MAX_RESTARTS: Final = 20
"""So many times in a row a lost queue is called again, every ``RESTART_S``."""


class _QueueActor:
    """``JobQueue`` with calls that wait."""

    def __init__(
        self, max_failures: int, one_each: bool, stall_timeout_s: float | None = None
    ) -> None:
        self._changed = asyncio.Event()
        self._queue = JobQueue(
            max_failures,
            one_each=one_each,
            stall_timeout_s=stall_timeout_s,
            # A standing group looks for itself, which costs less than to look at every call.
            stored=_stored if one_each else lambda job: False,
            lost_nodes=lost_nodes,
            on_change=self._notify,
            life=time.time_ns(),
        )

    async def _until(self, answer: Callable[[], T], wait_s: float = WAIT_S) -> T:
        """The first answer that is true, or the last one before the time is over."""
        end = time.monotonic() + wait_s
        while not (found := answer()) and (left := end - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return answer()
        return found

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Calls a method of the queue that changes it."""
        result = getattr(self._queue, name)(*arguments, **options)
        self._notify()
        return result

    async def wait(self, number: int, index: int) -> tuple[bool, Exception | None]:
        """Whether a fold of a submission has ended, and with which error."""
        if await self._until(lambda: self._queue.ended(number, index)):
            return True, self._queue.end(number, index)
        return False, None

    async def take(self, seat: int, rank: int, place: int, node: str) -> Job | Stop | None:
        """See ``JobQueue.take``."""
        found = await self._until(lambda: self._queue.take(seat, rank, place, node))
        if found is not None:
            # The other ranks take the same.
            self._notify()
        return found

    async def done(self, seat: int, rank: int, place: int, end: FoldEnd) -> Verdict:
        """See ``JobQueue.verdict``; waits for the other ranks if it must."""
        self._queue.done(seat, rank, place, end)
        self._notify()
        wait_s = RANKS_AGREE_S if end.own else LOSS_NOTICED_S
        verdict = await self._until(lambda: self._queue.verdict(seat, rank, place), wait_s)
        if verdict is None:
            verdict = self._queue.verdict(seat, rank, place, final=True)
            self._notify()
        assert verdict is not None
        return verdict

    async def to_cancel(self, seat: int, known: int, training: tuple[int, str] | None) -> int:
        """See ``JobQueue.to_cancel``; waits until it is another place than is known."""
        await self._until(lambda: self._queue.to_cancel(seat, training) != known)
        return self._queue.to_cancel(seat, training)

    async def pulse(self, seat: int, rank: int, pulse: RankPulse) -> str | None:
        """See ``JobQueue.pulse``."""
        return self._queue.pulse(seat, rank, pulse)

    async def leaves(self, seat: int) -> bool:
        """Whether a machine of a seat is lost or being drained."""
        return bool(lost_nodes(self._queue.nodes(seat)))

    async def status(self) -> QueueStatus:
        """See ``JobQueue.status``."""
        return self._queue.status()

    async def times(self) -> list[GroupTimes]:
        """See ``JobQueue.times``."""
        return self._queue.times()


def _stored(job: Job) -> bool:
    return FoldStore(job.task.results).has(job.key)


def lost_nodes(nodes: Nodes) -> Nodes:
    """Which of some machines are not alive, or are being drained."""
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return nodes - (alive - _draining())


def _draining() -> set[str]:
    """Machines that will be gone soon. Ray has no public call for it."""
    try:
        from ray._private.state import state

        return set(state.get_draining_nodes())
    except (ImportError, AttributeError):
        # In a version without it such losses are counted until the machine is gone.
        return set()


def start_queue(resources: ResourcesConfig) -> Any:
    """Starts the actor on this machine, whose end is that of the run anyway.

    Args:
        resources: of the run's worker groups.

    Returns:
        Its handle; an actor that was lost is restarted with an empty queue.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(
        num_cpus=0, max_concurrency=MAX_CALLS, max_restarts=-1, scheduling_strategy=here
    )(_QueueActor)
    one_each = resources.group == "fold"
    return actor.remote(resources.max_failures, one_each, resources.stall_timeout_s)


class QueueRunner:
    """Trains folds by the worker groups that take them from a queue.

    Args:
        queue: handle of the queue's actor, see ``StandingGroups``.
        resources: of a worker group.
        logs: where workers log.
        trial: number that the queue knows this caller by.
        bfloat16: whether every device has it; see ``Placement``.
        train: trains one fold in a worker, called by all ranks.
    """

    def __init__(
        self,
        queue: Any,
        resources: ResourcesConfig,
        *,
        logs: WorkerLogs,
        trial: int | None = None,
        bfloat16: bool = False,
        train: Train = run_task,
    ) -> None:
        self._queue, self._resources, self._logs = queue, resources, logs
        self._trial, self._bfloat16, self._train = trial, bfloat16, train

    @property
    def placement(self) -> Placement:
        """World size and device class of the groups."""
        return placement(self._resources, self._bfloat16)

    def run(
        self, tasks: Sequence[FoldTask], report: Report, after_fold: AfterFold | None = None
    ) -> None:
        """Trains every task; see ``FoldRunner``.

        Args:
            tasks: folds to train, of one experiment or of several.
            report: called in the worker of rank 0, hence picklable; gets what
                ``train_fold`` reports, and before and after each fold the events
                ``fold_started`` and ``fold_ended``, all with the task's ``fold``, ``key``
                and ``experiment``.
            after_fold: see ``FoldRunner``.

        Raises:
            HmsRayError: the one that the workers raised.
            TrainingError: if a fold was lost too often, see ``resources.max_failures``.
            ResourceError: if the queue was lost for good.
            FoldCancelled: if the trial or the run is stopped.
        """
        resources = self._resources
        set_up = partial(
            replace,
            share_stages=resources.share_stages,
            checkpoint_every_s=resources.checkpoint_every_s,
            local_cache=resources.local_cache,
        )
        left = [Job(set_up(task), report, self._train, self._logs) for task in tasks]
        while left:
            try:
                self._run(left, after_fold)
            except _QueueLostError:
                logger.warning("the queue of folds was lost; the folds are submitted again")
                time.sleep(RESTART_S)
                # What has ended meanwhile is in the store; its task is skipped by its worker.

    def _run(self, left: list[Job], after_fold: AfterFold | None) -> None:
        """Runs jobs in order; takes each from the list that needs no second look."""
        number = self._submit(left, decides=after_fold is not None)
        try:
            for index in range(len(left)):
                self._wait(number, index)
                task = left.pop(0).task
                if after_fold is None:
                    continue
                FoldStore(task.results).wait_for([task.key])
                if not after_fold(task):
                    left.clear()
                    return
                self._call("decided", number, index)
        finally:
            self._queue.call.remote("close", number)

    def _submit(self, jobs: Sequence[Job], *, decides: bool) -> int:
        for _ in range(MAX_RESTARTS):
            try:
                number: int = self._call("submit", list(jobs), trial=self._trial, decides=decides)
                return number
            except _QueueLostError as error:
                lost = error
                time.sleep(RESTART_S)
        raise ResourceError(
            "the queue of folds must be reachable",
            got=one_line(lost.__cause__ or lost),
            fix="Run the same command again; it resumes. Read Ray's logs, in "
            "/tmp/ray/session_latest/logs on the machine of the command.",
        ) from lost

    def _wait(self, number: int, index: int) -> None:
        while True:
            try:
                ended, error = ray.get(self._queue.wait.remote(number, index))
            except RayActorError as lost:
                raise _QueueLostError from lost
            except KeyError as unknown:
                raise _QueueLostError from unknown
            if error is not None:
                raise error
            if ended:
                return

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return ray.get(self._queue.call.remote(name, *arguments, **options))
        except RayActorError as lost:
            raise _QueueLostError from lost


class _QueueLostError(Exception):
    """The queue's actor was lost, with what it knew."""
