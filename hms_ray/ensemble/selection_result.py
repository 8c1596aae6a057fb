"""What a choice of a pool tells: a row a candidate, the choice, its worth elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hms_ray.config.space import Objective
from hms_ray.evaluate.intervals import Difference, Interval
from hms_ray.evaluate.metric import Array


@dataclass(frozen=True)
class Rated:
    """What a candidate is worth on the scored rows, in nats.

    Attributes:
        name: of the candidate.
        nested: mean KL, fitted on other patients, over the splits of all seeds.
        by_seed: (S) the same for the splits of each seed.
        in_sample: mean KL of a fit on all patients.
        by_objective: nested mean KL on the rows of each objective (None without rows).
        to_best: nested, this one minus the best one, clustered by patient.
        standard_error: of ``to_best``.
        to_reference: nested, this one minus the reference; None without a reference.
        seconds: of one fit on all patients.
        to_others: alternative -> nested, this one minus the alternative.
    """

    name: str
    nested: float
    by_seed: tuple[float, ...]
    in_sample: float
    by_objective: dict[str, float | None]
    to_best: Difference
    standard_error: float
    to_reference: Difference | None
    seconds: float
    to_others: dict[str, Difference] = field(default_factory=dict)

    @property
    def optimism(self) -> float:
        """Nested minus in-sample KL: what fitting on the scored rows would hide."""
        return self.nested - self.in_sample

    @property
    def within(self) -> bool:
        """Whether the best one is at most one standard error better."""
        return self.to_best.mean <= self.standard_error

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        reference = self.to_reference
        return {
            "name": self.name,
            "nested": self.nested,
            "by_seed": list(self.by_seed),
            "in_sample": self.in_sample,
            "optimism": self.optimism,
            "by_objective": self.by_objective,
            "minus_best": interval_json(self.to_best),
            "standard_error": self.standard_error,
            "within_one_standard_error": self.within,
            "minus_reference": None if reference is None else interval_json(reference),
            "minus_others": {
                name: interval_json(difference) for name, difference in self.to_others.items()
            },
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Choice:
    """The choice and everything that it was made by.

    Attributes:
        objective: whose rows are scored.
        rated: the candidates in the order of simplicity.
        best: position of the one with the lowest nested KL.
        chosen: position of the simplest one within one standard error of it.
        reference: name that ``to_reference`` compares with, or None.
        n_rows: rows scored.
        n_patients: of the scored rows.
        seeds: of the splits.
        n_splits: by patient.
    """

    objective: Objective
    rated: tuple[Rated, ...]
    best: int
    chosen: int
    reference: str | None
    n_rows: int
    n_patients: int
    seeds: tuple[int, ...]
    n_splits: int

    @property
    def name(self) -> str:
        """Of the chosen candidate."""
        return self.rated[self.chosen].name

    def to_json(self) -> dict[str, Any]:
        """Plain data; it says that the choice saw the scored rows."""
        return {
            "objective": self.objective,
            "chosen": self.name,
            "best": self.rated[self.best].name,
            "reference": self.reference,
            "chosen_on_the_scored_rows": True,
            "rows": self.n_rows,
            "patients": self.n_patients,
            "seeds": list(self.seeds),
            "splits": self.n_splits,
            "candidates": [rated.to_json() for rated in self.rated],
        }


@dataclass(frozen=True)
class ChoiceEstimate:
    """What choosing is worth on patients that had no part in the choice.

    Attributes:
        nested: mean KL of what was chosen and fitted on other patients, in nats.
        to_reference: the same minus the reference, fitted on the same patients.
        taken: name -> how many of the choices took it; one choice a split.
        n_inner: splits by patient that each choice was made by; the fewer, the less
            steady is what is chosen.
        probabilities: (n, 6) what was chosen and fitted on other patients predicts.
    """

    nested: Interval
    to_reference: Difference
    taken: dict[str, int]
    n_inner: int
    probabilities: Array

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "nested": interval_json(self.nested),
            "minus_reference": interval_json(self.to_reference),
            "taken": self.taken,
            "choices": sum(self.taken.values()),
            "splittings_a_choice": self.n_inner,
        }


def interval_json(interval: Interval) -> dict[str, float | str]:
    """Plain data of a finite interval; a difference tells its verdict too."""
    told: dict[str, float | str] = {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
    }
    return {**told, "verdict": interval.verdict} if isinstance(interval, Difference) else told
