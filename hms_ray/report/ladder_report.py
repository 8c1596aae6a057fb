"""A ladder's report as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.evaluate.step_scores import GROUPS, STAGE_2, StepScores

ORACLES: Final[Mapping[str, str]] = {
    "perfect": "the perfect model, which knows the probability of every vote",
    "tier_unknown": "a model that knows everything but who voted",
}
"""Key in ``about["floors"]`` -> the oracle with that KL."""

START: Final = "class_mean"
"""Progress towards an oracle starts at the KL of the class means."""


def published_group(published_cv: float | None, published_rows: str) -> str | None:
    """The group of rows that a published figure is on; None without one.

    Args:
        published_cv: the figure, nats.
        published_rows: ``stage_2`` if it is on the rows of the second stage alone, as
            the notebooks of two-stage models score them.
    """
    if published_cv is None:
        return None
    return STAGE_2 if published_rows == "stage_2" else "kl_all"


@dataclass(frozen=True)
class StepLine:
    """One step (see ``ladder.result.StepResult``) and its scores.

    ``same_as`` is an earlier experiment with exactly the same predictions: under an
    overlay, experiments that differ at full size may be one.
    """

    name: str
    chain: str
    change: str
    before: str | None
    kind: str
    optimistic: bool
    weights: dict[str, float] | None
    fold_minutes: float
    saved_minutes: float
    published_cv: float | None
    published_lb: float | None
    published_rows: str
    same_as: str | None
    scores: StepScores

    @property
    def published_group(self) -> str | None:
        """The group of rows that the published figure is on; None without one."""
        return published_group(self.published_cv, self.published_rows)

    def interval(self, group: str) -> Interval | None:
        """Mean KL on a group of rows with its interval; None without rows."""
        score = self.scores[group]
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
        score = self.steps[0].scores[group]
        return 0 if score is None else score.kl.n_rows

    def n_patients(self) -> int:
        """Patients of all rows."""
        score = self.steps[0].scores["kl_all"]
        return 0 if score is None else score.kl.n_patients

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

    def to_json(self) -> dict[str, Any]:
        """Plain data without NaN and infinity."""
        return {
            "about": self.about,
            "rows": {group: self.n_rows(group) for group in GROUPS},
            "patients": self.n_patients(),
            "steps": [self._step_json(step) for step in self.steps],
        }

    def _step_json(self, step: StepLine) -> dict[str, Any]:
        plain = {name: value for name, value in vars(step).items() if name != "scores"}
        return {
            **plain,
            "published_group": step.published_group,
            "scores": {
                group: None if score is None else score.to_json()
                for group, score in step.scores.items()
            },
            "floors": {
                oracle: {
                    group: None if distance is None else vars(distance)
                    for group in OBJECTIVES
                    for distance in [self.oracle_distance(step, oracle, group)]
                }
                for oracle in ORACLES
            },
        }
