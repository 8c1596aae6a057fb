"""Losses of folds: which of them count, and when a fold fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hms_ray.distributed.job import Job
from hms_ray.errors import TrainingError
from hms_ray.text import counted

Nodes = frozenset[str]

NODE_NOTICED_S: Final = 15.0
"""Ray notices a lost machine within this time; until then a lost fold is not judged."""


@dataclass(frozen=True)
class Loss:
    """A fold whose worker group was lost.

    Attributes:
        at: when, in seconds of a monotonic clock.
        nodes: machines of the group, by Ray's ids.
        reason: one line.
        alive: whether a worker reported it itself, so that its machine was alive.
    """

    at: float
    nodes: Nodes
    reason: str
    alive: bool


class LossLimit:
    """Counts the losses of a fold in which all machines stayed alive.

    Args:
        max_failures: one more loss fails the fold.
        lost_nodes: which of some machines are lost or being drained.
        clock: as that of ``Loss.at``.
    """

    def __init__(
        self, max_failures: int, lost_nodes: Callable[[Nodes], Nodes], clock: Callable[[], float]
    ) -> None:
        self._max_failures, self._lost_nodes, self._clock = max_failures, lost_nodes, clock

    def allows(self, losses: Sequence[Loss]) -> bool:
        """Whether a fold may be trained again now."""
        return len(losses) <= self._max_failures or len(self._counted(losses)) <= self._max_failures

    def failure(self, job: Job, losses: Sequence[Loss]) -> TrainingError | None:
        """The error of a fold that ``allows`` refuses; None if it cannot be judged yet."""
        last = self._counted(losses)[-1]
        if not last.alive and self._clock() - last.at < NODE_NOTICED_S:
            return None
        times = counted(self._max_failures + 1, "time")
        return TrainingError(
            f"a worker group must finish a fold before it is lost {times}",
            got=last.reason,
            where=f"fold {job.task.fold} of {job.task.experiment.name}",
            fix="Debug the fold without Ray: hms-ray train FILE --local --fold "
            f"{job.task.fold}. Allow more losses with --set resources.max_failures=N",
        )

    def _counted(self, losses: Sequence[Loss]) -> list[Loss]:
        nodes = frozenset(node for loss in losses if not loss.alive for node in loss.nodes)
        gone = self._lost_nodes(nodes) if nodes else frozenset()
        return [loss for loss in losses if loss.alive or not loss.nodes & gone]
