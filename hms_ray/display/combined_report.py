"""Ladders combined over seeds, with published differences and a control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from hms_ray.display.ladder_report import Checkpoint
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.evaluate.step_scores import GROUPS, STAGE_2, StepDifference, StepScores

Outcome = Literal["reproduces", "opposite", "tie", "no published figure", "not comparable"]

COMPARED: Final[Mapping[str, tuple[str, ...]]] = {"kl_all": tuple(OBJECTIVES), STAGE_2: (STAGE_2,)}
"""Rows of a published difference -> groups on which its sign is looked for."""


@dataclass(frozen=True)
class CombinedStep:
    """One step against its baseline, over all ladders.

    Attributes:
        name: of the step.
        before: its baseline, an earlier step.
        change: what it changes.
        optimistic: whether checkpoints were chosen on the scored rows, in any ladder.
        published: published out-of-fold KL minus that of the baseline; None if either is
            missing or the two are on different rows.
        published_of: whether it is between the last or the best evaluations.
        published_group: group of rows of the published difference; None without one.
        other_rows: whether both figures were published, but on different rows.
        ours: scores over all ladders.
        control: scores over all ladders of the negative control; None without one.
        by_ladder: group -> mean difference in each ladder (None without rows).
    """

    name: str
    before: str
    change: str
    optimistic: bool
    published: float | None
    published_of: Checkpoint | None
    published_group: str | None
    other_rows: bool
    ours: StepScores
    control: StepScores | None
    by_ladder: Mapping[str, tuple[float | None, ...]]

    def difference(
        self, group: str, *, recalibrated: bool = False, control: bool = False
    ) -> StepDifference | None:
        """Ours or the control's difference on a group of rows; None without rows."""
        scores = self.control if control else self.ours
        score = None if scores is None else scores.get(group)
        if score is None:
            return None
        return score.recalibrated_difference if recalibrated else score.difference

    def outcome(
        self, group: str, *, recalibrated: bool = False, control: bool = False
    ) -> Outcome | None:
        """Whether the published sign reproduces on a group of rows; None without rows.

        It reproduces if the interval excludes 0 on the published side; a tie has no sign.
        """
        found = self.difference(group, recalibrated=recalibrated, control=control)
        if found is None:
            return None
        if self.other_rows:
            return "not comparable"
        if self.published is None or self.published_group is None:
            return "no published figure"
        if group not in COMPARED[self.published_group]:
            return "not comparable"
        if found.tie:
            return "tie"
        same = (found.mean < 0) == (self.published < 0)
        return "reproduces" if same else "opposite"

    def lines(self) -> list[dict[str, Any]]:
        """Plain data: one mapping per group of rows, as predicted and recalibrated."""
        return [
            {
                "step": self.name,
                "before": self.before,
                "change": self.change,
                "optimistic": self.optimistic,
                "group": group,
                "recalibrated": recalibrated,
                "published": self.published,
                "published_of": self.published_of,
                "published_group": self.published_group,
                "outcome": self.outcome(group, recalibrated=recalibrated),
                **self._difference_line("", group, recalibrated, control=False),
                "control_outcome": self.outcome(group, recalibrated=recalibrated, control=True),
                **self._difference_line("control_", group, recalibrated, control=True),
            }
            for group in GROUPS
            for recalibrated in (False, True)
        ]

    def _difference_line(
        self, prefix: str, group: str, recalibrated: bool, control: bool
    ) -> dict[str, Any]:
        scores = self.control if control else self.ours
        score = None if scores is None else scores.get(group)
        found = self.difference(group, recalibrated=recalibrated, control=control)
        plain = {} if found is None else found.to_json()
        line = {
            prefix + ("difference" if name == "mean" else name): plain.get(name)
            for name in ("mean", "low", "high", "verdict", "detectable")
        }
        line[f"{prefix}rows"] = 0 if score is None else score.kl.n_rows
        line[f"{prefix}patients"] = 0 if score is None else score.kl.n_patients
        return line


@dataclass(frozen=True)
class CombinedReport:
    """Several ladders with the same steps as one.

    Attributes:
        steps: those that have a baseline, in the ladder's order.
        ladders: name of a ladder -> facts of its run.
        controls: the same of the negative control; empty without one.
        n_rows: rows of each group over all ladders.
        n_patients: patients of all rows; those of different data sets differ.
        n_data_sets: number of different row tables; ladders on the same rows differ in the
            training seed.
    """

    steps: tuple[CombinedStep, ...]
    ladders: Mapping[str, dict[str, Any]]
    controls: Mapping[str, dict[str, Any]]
    n_rows: Mapping[str, int]
    n_patients: int
    n_data_sets: int

    @property
    def seeds_priced(self) -> bool:
        """Whether intervals include the variance of the training seeds."""
        found = [step.difference("kl_all") for step in self.steps]
        return any(one is not None and one.priced for one in found)

    @property
    def has_published(self) -> bool:
        """Whether any step has a published difference."""
        return any(step.published is not None or step.other_rows for step in self.steps)

    @property
    def simulated(self) -> bool:
        """Whether the ladders are on simulated data (never mixed)."""
        return all(about["simulated"] for about in self.ladders.values())

    def counts(
        self, group: str, *, recalibrated: bool = False, control: bool = False
    ) -> dict[str, int]:
        """How many steps have each outcome on a group of rows, here or in the control."""
        outcomes = [
            step.outcome(group, recalibrated=recalibrated, control=control) for step in self.steps
        ]
        return {one: outcomes.count(one) for one in get_args(Outcome) if one in outcomes}

    def verdicts(
        self, group: str, *, recalibrated: bool = False, control: bool = False
    ) -> dict[str, int]:
        """How many steps are better or worse than their baselines, or a tie."""
        found = [
            step.difference(group, recalibrated=recalibrated, control=control)
            for step in self.steps
        ]
        verdicts = [one.verdict for one in found if one is not None]
        return {one: verdicts.count(one) for one in ("better", "worse", "tie") if one in verdicts}
