"""What a search proposes, and how a trial ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hms_ray.config.experiment import Experiment
from hms_ray.search.distributions import (
    Point,
)
from hms_ray.search.journal import Scores
from hms_ray.search.pruner import FoldReport

STOP_REASON: Final = "stopped by hms-ray stop"
"""Reason of trials that a user has stopped; they are not repeated."""


@dataclass(frozen=True)
class Pruned:
    """How a trial ended that has no score and teaches the sampler nevertheless.

    Attributes:
        reason: in one line.
        diverged: whether its loss was no longer finite, which ranks it last; else it was
            stopped by the pruning rule.
    """

    reason: str
    diverged: bool = False


RecoverScores = Callable[[int], Scores | Pruned | None]


Reports = Callable[[int], Sequence[FoldReport]]


Outcome = Scores | Pruned | str
"""How a trial ended: its scores, as pruned, or why it failed, in one line."""


@dataclass(frozen=True)
class Proposal:
    """A point to try.

    Attributes:
        number: Optuna's number of the trial.
        point: value or label of every searched path.
        experiment: what the point resolves to.
    """

    number: int
    point: Point
    experiment: Experiment


@dataclass(frozen=True)
class Exhausted:
    """No point is left to train.

    Attributes:
        reason: one sentence for the user.
    """

    reason: str


Next = Proposal | Exhausted | Literal["wait"]
