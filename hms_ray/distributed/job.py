"""A fold as a job of a worker group, how it ended, and states of groups and queue: plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hms_ray.errors import HmsRayError
from hms_ray.experiment.fold_task import FoldTask, Report
from hms_ray.storage.run_log import WorkerLogs

if TYPE_CHECKING:
    from hms_ray.train.process import Process

Train = Callable[[FoldTask, "Process"], None]
"""Trains one fold in a worker; called by all ranks."""


@dataclass(frozen=True)
class Job:
    """A fold to train, and for whom.

    Attributes:
        task: the fold.
        report: gets the records of its training, in the worker of rank 0.
        train: trains it.
        logs: where its workers log.
    """

    task: FoldTask
    report: Report
    train: Train
    logs: WorkerLogs

    @property
    def key(self) -> str:
        """The cache key of the fold."""
        return self.task.key


@dataclass(frozen=True)
class FoldEnd:
    """How a rank ended a job.

    Attributes:
        kind: ``trained``; ``cancelled``; ``failed`` with an error that a repetition would raise
            again; ``broken``: the device or the connection of the ranks failed, so that the
            fold is lost; or ``moved``: a machine is about to leave, and others continue.
        error: of a failed fold.
        reason: of a broken or moved one, one line.
        in_step: whether all ranks raise the error at the same place.
        own: whether the error is certainly this rank's; if not, it may come from the loss of
            another rank, which Ray reports within seconds.
        reusable: whether the process may train another fold.
    """

    kind: Literal["trained", "cancelled", "failed", "broken", "moved"]
    error: HmsRayError | None = None
    reason: str = ""
    in_step: bool = True
    own: bool = True
    reusable: bool = True


@dataclass
class GroupTimes:
    """When a worker group was started and how long it trained; times are seconds since 1970.

    Attributes:
        group: its name.
        requested: when its resources were requested.
        started: when its workers could take a first fold; None: they never did.
        first_job: when they took it; None: they got none.
        ended: when the group ended; None: it still runs.
        busy_s: seconds with a fold, lost ones included.
        n_folds: folds that it took.
        n_restarts: starts of its workers after the first one.
    """

    group: str
    requested: float
    started: float | None = None
    first_job: float | None = None
    ended: float | None = None
    busy_s: float = 0.0
    n_folds: int = 0
    n_restarts: int = 0

    @property
    def startup_s(self) -> float | None:
        """Seconds from the request to the start of the workers."""
        return None if self.started is None else self.started - self.requested


@dataclass(frozen=True)
class QueueStatus:
    """What the supervisor of worker groups has to know.

    Attributes:
        life: differs after a restart of the queue, which then knows nothing.
        n_waiting: folds that free groups would get now.
        idle_s: group with workers -> seconds without a fold; None while it trains.
        losses: a text for every loss since the last call.
        times: of groups that have not ended, as of now.
    """

    life: int
    n_waiting: int
    idle_s: dict[str, float | None]
    losses: tuple[str, ...]
    times: tuple[GroupTimes, ...]
