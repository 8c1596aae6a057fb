"""Which evaluation of a stage is kept; without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from hms_ray.config.training import ResolvedStage

State = TypeVar("State")


class EvaluationSelection(Generic[State]):
    """Selects one evaluation of one stage: the last, or the best outside mosaic epochs.

    Args:
        stage: a new selection is made for each stage, so that no stage is compared with an
            earlier one.

        best: score of the evaluation selected before a resume.
        kept: its state; both together.

    Attributes:
        best: score of the selected evaluation; infinity if there is none, or if the last one
            is selected.
        kept: state of the selected evaluation, once there is one.
    """

    def __init__(
        self, stage: ResolvedStage, best: float = float("inf"), kept: State | None = None
    ) -> None:
        self._stage = stage
        self.best, self.kept = best, kept

    def update(
        self, epoch: int, score: float | None, state: Callable[[], State], *, ends: bool
    ) -> float | None:
        """Offers an evaluation; call it for all of a stage, in their order.

        Args:
            epoch: of the stage, from 0, also for the evaluation in its middle.
            score: KL by the stage's criterion, finite; None if it has none.
            state: makes the state to keep; called only if the evaluation is selected.
            ends: whether it is the last evaluation of the stage.

        Returns:
            The score if it counts: None in a mosaic epoch, or if the last evaluation is kept.
        """
        if self._stage.checkpoint == "last":
            if ends:
                self.kept = state()
            return None
        if score is None or not self._stage.can_choose(epoch):
            return None
        if score < self.best:
            self.best, self.kept = score, state()
        return score


def kept_record(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The record of the evaluation whose weights a fold keeps.

    Args:
        history: records of ``train_fold``, at least one.
    """
    last = history[-1]
    counted = [
        record
        for record in history
        if record["stage_index"] == last["stage_index"] and record.get("criterion") is not None
    ]
    return min(counted, key=lambda record: float(record["criterion"]), default=last)
