"""What is told about a blend: its method, weights, scores, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hms_ray.ensemble.comparison import Comparison
from hms_ray.ensemble.methods.arithmetic import Equal, FittedMean, Simplex
from hms_ray.ensemble.methods.base import FittedPool, Pool
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.selection_result import Choice, ChoiceEstimate, interval_json
from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.metric import Array

EQUAL: Final = Equal().name
BEST_SINGLE: Final = BestSingle().name
SIMPLEX: Final = Simplex().name
BEST_IN_SAMPLE: Final = "best_single_in_sample"
"""The model that a person would pick from the leaderboard: chosen on the scored rows."""

YARDSTICKS: Final[tuple[Pool, ...]] = (Equal(), BestSingle(), Simplex())
"""What every method is compared with, from the simplest on."""

Scores = dict[str, float | None]


@dataclass(frozen=True)
class NestedEstimate:
    """What a method is worth on patients that it was not fitted on, in nats.

    Attributes:
        probabilities: (n, 6) float64, fitted, and chosen where it was, on other patients;
            of a given method the first estimate's.
        weights: (repeats * splits, M) weights of the fits, where a given method is a mean
            with weights; None of others.
        scores: mean KL by objective (None without rows), over all estimates.
        interval: mean KL of the scored rows with its clustered interval.
        bootstrap: the same with the interval of a bootstrap over patients, a check.
        by_tier: mean KL by vote tier (None without rows).
        by_class: each class's part of the KL of all rows.
        comparisons: with the best single model in sample and nested, equal weights, and
            the simplex where it is not the method.
    """

    probabilities: Array
    weights: Array | None
    scores: Scores
    interval: Interval
    bootstrap: Interval
    by_tier: Scores
    by_class: Scores
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; predictions and weights are left to the caller."""
        return {
            "nested": self.scores,
            "nested_interval": interval_json(self.interval),
            "nested_bootstrap": interval_json(self.bootstrap),
            "nested_by_tier": self.by_tier,
            "nested_by_class": self.by_class,
            "nested_minus": {
                comparison.against: comparison.to_json() for comparison in self.comparisons
            },
        }


@dataclass(frozen=True)
class BlendReport:
    """Everything that is told about a blend of M models on n rows.

    Attributes:
        names: the models.
        optimistic: (M) whether a model's checkpoints or weights were chosen on the scored
            rows, which makes every figure that it enters optimistic.
        n_rows: rows of each objective.
        n_patients: of all rows.
        choice: all methods side by side, on the rows of one objective; which of them it
            would choose is of use only where ``worth`` is there.
        method: name of the one that is used.
        worth: what choosing is worth on other patients; None where the method was given.
        fitted: the method, fitted on all patients.
        in_sample: (n, 6) float64, what it predicts of the rows that it was fitted on.
        in_sample_scores: mean KL of ``in_sample`` by objective (None without rows).
        nested: what it is worth on other patients, choosing included.
        best: position of the best single model on the scored rows, in sample.
    """

    names: tuple[str, ...]
    optimistic: tuple[bool, ...]
    n_rows: dict[str, int]
    n_patients: int
    choice: Choice
    method: str
    worth: ChoiceEstimate | None
    fitted: FittedPool
    in_sample: Array
    in_sample_scores: Scores
    nested: NestedEstimate
    best: int

    @property
    def weights(self) -> Array | None:
        """(M,) weights of the models, where the method is a mean with weights."""
        return self.fitted.weights if isinstance(self.fitted, FittedMean) else None

    @property
    def gap(self) -> float | None:
        """Nats that the fit can be above its optimum, where the method certifies it."""
        if isinstance(self.fitted, FittedMean):
            return self.fitted.facts.get("gap")
        return getattr(self.fitted, "gap", None)

    def to_json(self) -> dict[str, Any]:
        """Plain data of the estimates; predictions and the pool are left to the caller."""
        return {
            "fit_rows": self.choice.objective,
            "rows": self.n_rows,
            "patients": self.n_patients,
            "splits": self.choice.n_splits,
            "repeats": len(self.choice.seeds),
            "weights": None if self.weights is None else self._by_name(self.weights.tolist()),
            "nested_weights": None
            if self.nested.weights is None
            else self._by_name([[column.min(), column.max()] for column in self.nested.weights.T]),
            "gap": self.gap,
            "best_single": self.names[self.best],
            "optimistic": [
                name for name, marked in zip(self.names, self.optimistic, strict=True) if marked
            ],
            "in_sample": self.in_sample_scores,
            **self.nested.to_json(),
            "methods": self.choice.to_json(),
            "chosen_by_nested_kl": self.worth is not None,
            "choosing": None if self.worth is None else self.worth.to_json(),
        }

    def _by_name(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.names, values, strict=True))
