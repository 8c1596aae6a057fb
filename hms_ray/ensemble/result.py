"""The result of a blend: its method, weights and scores, and comparisons with alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.config.space import Objective
from hms_ray.ensemble.methods.arithmetic import Equal, FittedMean, Simplex
from hms_ray.ensemble.methods.base import FittedMethod, Method
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.selection_result import Selection, SelectionEstimate
from hms_ray.evaluate.intervals import (
    Difference,
    Interval,
    Verdict,
    paired_difference,
    patient_bootstrap,
)
from hms_ray.evaluate.metric import OBJECTIVES, Array

EQUAL: Final = Equal().name
BEST_SINGLE: Final = BestSingle().name
SIMPLEX: Final = Simplex().name
BEST_IN_SAMPLE: Final = "best_single_in_sample"
"""The model that tops the leaderboard: chosen on the scored rows."""

BASELINES: Final[tuple[Method, ...]] = (Equal(), BestSingle(), Simplex())
"""Methods that every method is compared with, simplest first."""

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """The nested blend against an alternative.

    Attributes:
        against: name of the alternative.
        differences: objective -> nested blend minus alternative (None without rows).
        fitted: the difference on the rows that the blend is fitted on.
        bootstrap: ``fitted`` with a bootstrap interval over patients, as a check.
    """

    against: str
    differences: dict[str, Difference | None]
    fitted: Difference
    bootstrap: Interval

    @property
    def verdict(self) -> Verdict:
        """Whether the blend is better, on the rows that it is fitted on."""
        return self.fitted.verdict

    def to_json(self) -> dict[str, Any]:
        """JSON data: verdict, differences by objective, bootstrap; None for infinity."""
        return {
            "verdict": self.verdict,
            **{
                name: None if difference is None else difference.to_json()
                for name, difference in self.differences.items()
            },
            "bootstrap": self.bootstrap.to_json(),
        }


def compare(
    against: str,
    blend: Array,
    other: Array,
    patients: NDArray[Any],
    votes: Array,
    fit_rows: Objective,
    seed: int,
) -> Comparison:
    """Compares two predictions by their row scores.

    Args:
        against: name of the second prediction.
        blend: (n,) KL of each row under the first prediction.
        other: (n,) KL of each row under the second prediction.
        patients: (n,) patient of each row.
        votes: (n,) votes of each row.
        fit_rows: objective of the verdict; it must have rows.
        seed: of the bootstrap.
    """
    differences: dict[str, Difference | None] = {}
    for name, fewest in OBJECTIVES.items():
        scored = votes >= fewest
        differences[name] = (
            paired_difference(blend[scored], other[scored], patients[scored])
            if scored.any()
            else None
        )
    scored = votes >= OBJECTIVES[fit_rows]
    first, second, owners = blend[scored], other[scored], patients[scored]
    (bootstrap,) = patient_bootstrap([first - second], owners, np.random.default_rng(seed))
    return Comparison(against, differences, paired_difference(first, second, owners), bootstrap)


@dataclass(frozen=True)
class NestedEstimate:
    """Estimated out-of-sample KL of a method, in nats.

    Attributes:
        probabilities: (n, 6) float64, predictions fitted on other patients (and selected
            there, if the method was selected); those of the first seed for a given method.
        weights: (repeats * splits, M) weights of the fits if a given method is a weighted
            mean; else None.
        scores: mean KL by objective (None without rows), over all repeats.
        interval: mean KL of the scored rows with its clustered interval.
        bootstrap: the same with a bootstrap interval over patients, as a check.
        by_tier: mean KL by vote tier (None without rows).
        by_class: each class's part of the KL of all rows.
        comparisons: with the best single model (in-sample and nested), equal weights, and
            simplex weights unless they are the method.
    """

    probabilities: Array
    weights: Array | None
    scores: Scores
    interval: Interval
    bootstrap: Interval
    by_tier: Scores
    by_class: dict[str, float]
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON data without predictions and weights."""
        return {
            "nested": self.scores,
            "nested_interval": self.interval.to_json(),
            "nested_bootstrap": self.bootstrap.to_json(),
            "nested_by_tier": self.by_tier,
            "nested_by_class": self.by_class,
            "nested_minus": {
                comparison.against: comparison.to_json() for comparison in self.comparisons
            },
        }


@dataclass(frozen=True)
class BlendReport:
    """A blend of M models on n rows, with all its estimates.

    Attributes:
        names: the models.
        optimistic: (M) whether a model's checkpoints or weights were chosen on the scored
            rows, which makes every score that it enters optimistic.
        n_rows: rows of each objective.
        n_patients: of all rows.
        selection: all methods side by side on the rows of one objective; its chosen method
            is used only if ``selection_estimate`` is set.
        method: name of the method that is used.
        selection_estimate: nested estimate of the selection; None for a given method.
        fitted: the method, fitted on all patients.
        in_sample: (n, 6) float64, its predictions of the rows that it was fitted on.
        in_sample_scores: mean KL of ``in_sample`` by objective (None without rows).
        nested: estimated out-of-sample KL, selection included.
        best: position of the model with the lowest in-sample KL on the scored rows.
    """

    names: tuple[str, ...]
    optimistic: tuple[bool, ...]
    n_rows: dict[str, int]
    n_patients: int
    selection: Selection
    method: str
    selection_estimate: SelectionEstimate | None
    fitted: FittedMethod
    in_sample: Array
    in_sample_scores: Scores
    nested: NestedEstimate
    best: int

    @property
    def weights(self) -> Array | None:
        """(M,) weights of the models if the method is a weighted mean."""
        return self.fitted.weights if isinstance(self.fitted, FittedMean) else None

    @property
    def gap(self) -> float | None:
        """Duality gap of the fit in nats, if the method has one."""
        if isinstance(self.fitted, FittedMean):
            return self.fitted.facts.get("gap")
        return getattr(self.fitted, "gap", None)

    def to_json(self) -> dict[str, Any]:
        """JSON data of the estimates, without predictions and the fitted method."""
        estimate = self.selection_estimate
        return {
            "fit_rows": self.selection.objective,
            "rows": self.n_rows,
            "patients": self.n_patients,
            "splits": self.selection.n_splits,
            "repeats": len(self.selection.seeds),
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
            "methods": self.selection.to_json(),
            "chosen_by_nested_kl": estimate is not None,
            "selection": None if estimate is None else estimate.to_json(),
        }

    def _by_name(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.names, values, strict=True))
