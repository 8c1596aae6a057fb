"""A ladder's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.step_scores import STAGE_2, StepScores

ORACLES: Final[Mapping[str, str]] = {
    "perfect": "the oracle, which knows who voted",
    "tier_unknown": "an oracle that does not know who voted",
}
"""Key in ``about["floors"]`` -> the oracle with that KL."""

START: Final = "class_mean"
"""Progress towards an oracle starts at the KL of the class means."""

StepKind = Literal["experiment", "fixed_blend", "optimised_blend"]
Checkpoint = Literal["last", "best"]
PublishedRows = Literal["all", "stage_2"]
"""Rows that a published figure is on: all, or those of the published second stage."""


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What a step is, what it cost, and what was published of it.

    Attributes:
        name: short and unique within its ladder.
        chain: which chain it belongs to, such as ``published`` or ``one_factor``.
        change: what the step changes against its baseline, in a few words.
        before: its baseline, the name of another step; None for a first step.
        kind: an experiment, or a blend of other steps.
        optimistic: whether checkpoints of any member were chosen on the scored rows.
        weights: of a blend, member -> weight (fitted on all patients if optimised).
        fold_minutes: training minutes of all its folds, or of those of a blend's members.
        saved_minutes: minutes of these that stages reused from the fold store saved.
        published_cv: published out-of-fold KL, of the best evaluations; None if unpublished.
        published_lb: published public leaderboard KL; None if unpublished.
        published_rows: the rows that ``published_cv`` and ``published_last`` are on.
        published_last: out-of-fold KL of the last evaluations in the published log; None
            without a log.
        checkpoint: which weights were kept, ``last`` or ``best``; None for a blend of both.
    """

    name: str
    chain: str
    change: str
    before: str | None
    kind: StepKind
    optimistic: bool
    weights: dict[str, float] | None
    fold_minutes: float
    saved_minutes: float
    published_cv: float | None
    published_lb: float | None
    published_rows: PublishedRows = "all"
    published_last: float | None = None
    checkpoint: Checkpoint | None = "last"

    @property
    def published_group(self) -> str | None:
        """The group of rows that the published figure is on; None without one."""
        if self.published_cv is None:
            return None
        return STAGE_2 if self.published_rows == "stage_2" else "kl_all"

    @property
    def published_like(self) -> float | None:
        """The published KL of the same checkpoint as ours; None if unpublished."""
        return {"last": self.published_last, "best": self.published_cv, None: None}[self.checkpoint]


@dataclass(frozen=True, kw_only=True)
class StepLine(StepFacts):
    """One step and its scores.

    ``same_as`` is an earlier experiment with exactly the same predictions: under an
    overlay, experiments that differ at full size may be one.
    """

    same_as: str | None
    scores: StepScores

    def interval(self, group: str) -> Interval | None:
        """Mean KL on a group of rows with its interval; None without rows."""
        score = self.scores.get(group)
        return None if score is None else score.kl

    def kl(self, group: str) -> float | None:
        """Mean KL on a group of rows; None without rows."""
        interval = self.interval(group)
        return None if interval is None else interval.mean


@dataclass(frozen=True)
class OracleDistance:
    """How far a score is from that of an oracle.

    Attributes:
        above: KL minus that of the oracle, nats.
        share: of the way from the class means, 1 at the oracle; None if the class means
            are not above the oracle.
    """

    above: float
    share: float | None


@dataclass(frozen=True)
class LadderReport:
    """A ladder's steps with their scores, and facts of the run.

    Attributes:
        steps: in the ladder's order.
        about: keys of ``ladder.folder.ABOUT_KEYS``.
    """

    steps: tuple[StepLine, ...]
    about: dict[str, Any]

    @property
    def simulated(self) -> bool:
        """Whether the data are simulated."""
        return bool(self.about["simulated"])

    def n_rows(self, group: str) -> int:
        """Rows of a group."""
        interval = self.steps[0].interval(group)
        return 0 if interval is None else interval.n_rows

    def n_patients(self) -> int:
        """Patients of all rows."""
        return self.steps[0].scores["kl_all"].kl.n_patients

    def trained_minutes(self) -> tuple[float, float]:
        """Fold-minutes of all experiments, each counted once, and minutes that sharing saved."""
        experiments = [
            step for step in self.steps if step.kind == "experiment" and step.same_as is None
        ]
        return (
            sum(step.fold_minutes for step in experiments),
            sum(step.saved_minutes for step in experiments),
        )

    def same_experiments(self) -> list[list[str]]:
        """Names of the steps that share one experiment, for each such experiment."""
        names: dict[str, list[str]] = {}
        for step in self.steps:
            if step.same_as is not None:
                names.setdefault(step.same_as, [step.same_as]).append(step.name)
        return list(names.values())

    @property
    def failed(self) -> dict[str, str]:
        """Steps without a result, and why."""
        return dict(self.about.get("failed") or {})

    def oracle_distance(self, step: StepLine, oracle: str, group: str) -> OracleDistance | None:
        """Distance of a step to an oracle on a group of rows; None if unknown."""
        oracles = self.about["floors"] or {}
        lowest = oracles.get(oracle, {}).get(group)
        score = step.kl(group)
        if lowest is None or score is None:
            return None
        start = oracles.get(START, {}).get(group)
        share = None
        if start is not None and start > lowest:
            share = (start - score) / (start - lowest)
        return OracleDistance(score - lowest, share)
