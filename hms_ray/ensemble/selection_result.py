"""The result of a selection: one score per candidate, the chosen one, the nested estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hms_ray.config.space import Objective
from hms_ray.evaluate.intervals import Difference, Interval
from hms_ray.evaluate.metric import Array


@dataclass(frozen=True)
class CandidateScore:
    """Scores of one candidate on the scored rows, in nats.

    Attributes:
        name: of the candidate.
        nested: mean nested KL over the splits of all seeds.
        by_seed: (S) the same for each seed.
        in_sample: mean KL of a fit on all patients.
        by_objective: mean nested KL on the rows of each objective (None without rows).
        minus_best: nested KL minus that of the best candidate, clustered by patient.
        minus_reference: nested KL minus that of the reference.
        minus_others: alternative -> nested KL minus that of the alternative.
        fit_seconds: duration of one fit on all patients.
    """

    name: str
    nested: float
    by_seed: tuple[float, ...]
    in_sample: float
    by_objective: dict[str, float | None]
    minus_best: Difference
    minus_reference: Difference
    minus_others: dict[str, Difference]
    fit_seconds: float

    @property
    def optimism(self) -> float:
        """Nested minus in-sample KL."""
        return self.nested - self.in_sample

    @property
    def within_one_se(self) -> bool:
        """Whether the best candidate is at most one standard error better."""
        return self.minus_best.mean <= self.minus_best.standard_error

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "name": self.name,
            "nested": self.nested,
            "by_seed": list(self.by_seed),
            "in_sample": self.in_sample,
            "optimism": self.optimism,
            "by_objective": self.by_objective,
            "minus_best": self.minus_best.to_json(),
            "standard_error": self.minus_best.standard_error,
            "within_one_standard_error": self.within_one_se,
            "minus_reference": self.minus_reference.to_json(),
            "minus_others": {
                name: difference.to_json() for name, difference in self.minus_others.items()
            },
            "fit_seconds": self.fit_seconds,
        }


@dataclass(frozen=True)
class Selection:
    """All candidates and the chosen one.

    Attributes:
        objective: whose rows are scored.
        candidates: simplest first.
        best: position of the candidate with the lowest nested KL.
        chosen: position of the simplest one within one standard error of the best.
        reference: name of the candidate behind ``minus_reference``.
        n_rows: rows scored.
        n_patients: of the scored rows.
        seeds: of the splits.
        n_splits: by patient, for each seed.
    """

    objective: Objective
    candidates: tuple[CandidateScore, ...]
    best: int
    chosen: int
    reference: str
    n_rows: int
    n_patients: int
    seeds: tuple[int, ...]
    n_splits: int

    @property
    def name(self) -> str:
        """Name of the chosen candidate."""
        return self.candidates[self.chosen].name

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "objective": self.objective,
            "chosen": self.name,
            "best": self.candidates[self.best].name,
            "reference": self.reference,
            "chosen_on_the_scored_rows": True,
            "rows": self.n_rows,
            "patients": self.n_patients,
            "seeds": list(self.seeds),
            "splits": self.n_splits,
            "candidates": [candidate.to_json() for candidate in self.candidates],
        }


@dataclass(frozen=True)
class SelectionEstimate:
    """Estimated out-of-sample KL of selecting a method, on patients without part in it.

    Attributes:
        nested: mean KL of what other patients selected and fitted, in nats.
        minus_reference: the same minus the reference, fitted on the same patients.
        times_chosen: name -> number of outer splits that selected it.
        inner_repeats: partitions of the patients behind each selection; with few, the
            selected method varies more.
        probabilities: (n, 6) predictions of what other patients selected and fitted.
    """

    nested: Interval
    minus_reference: Difference
    times_chosen: dict[str, int]
    inner_repeats: int
    probabilities: Array

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "nested": self.nested.to_json(),
            "minus_reference": self.minus_reference.to_json(),
            "times_chosen": self.times_chosen,
            "inner_repeats": self.inner_repeats,
        }
