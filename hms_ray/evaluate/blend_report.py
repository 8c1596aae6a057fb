"""What a blend of given models is worth: best single, equal weights, simplex weights.

Each is scored in sample and nested by patient, on all vote tiers, and the nested
blend is compared row by row with the alternatives that a person would use instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.config import Objective
from hms_ray.errors import PredictionError
from hms_ray.evaluate.blend import (
    SimplexFit,
    blend_probabilities,
    check_models,
    simplex_weights,
)
from hms_ray.evaluate.comparison import Comparison, compare
from hms_ray.evaluate.honest import model_scores, nested_blend, nested_choice
from hms_ray.evaluate.metric import (
    OBJECTIVES,
    Array,
    check_distributions,
    kl_by_class,
    kl_by_tier,
    mean_by_objective,
    row_sums,
)

BEST_SINGLE: Final = "best single"
EQUAL: Final = "equal weights"
SIMPLEX: Final = "simplex weights"
BEST_TRIAL: Final = "best single trial"
"""The trial a person would pick from the leaderboard, that is, chosen in sample."""

Scores = dict[str, float | None]


@dataclass(frozen=True)
class MethodScores:
    """Mean KL of one way to combine models, by objective (None without rows).

    Attributes:
        name: ``best single``, ``equal weights`` or ``simplex weights``.
        in_sample: chosen or fitted on the rows that are scored.
        nested: chosen or fitted on other patients; equal weights fit nothing, so
            theirs are the same.
    """

    name: str
    in_sample: Scores
    nested: Scores


@dataclass(frozen=True)
class BlendReport:
    """Everything that is told about a blend.

    Attributes:
        names: the M models.
        optimistic: (M) whether a model's checkpoints were chosen on the scored rows,
            which makes every figure that it enters optimistic.
        fit_rows: objective whose rows the weights are fitted on.
        n_rows: rows of each objective.
        n_patients: patients of all rows.
        n_splits: splits by patient of each nested estimate.
        n_repeats: nested estimates, over whose row scores the mean is taken.
        fit: weights fitted on all patients, with their certificate.
        nested_weights: (repeats * splits, M) weights of the nested fits.
        best: position of the best single model, in sample.
        nested_best: model position -> share of nested choices that took it.
        methods: best single, equal weights, simplex weights.
        by_tier: mean KL of the nested blend by vote tier (None without rows).
        by_class: each class's part of the nested blend's KL on all rows.
        comparisons: with the best single trial, the nested best single, equal weights.
    """

    names: tuple[str, ...]
    optimistic: tuple[bool, ...]
    fit_rows: Objective
    n_rows: dict[str, int]
    n_patients: int
    n_splits: int
    n_repeats: int
    fit: SimplexFit
    nested_weights: Array
    best: int
    nested_best: dict[int, float]
    methods: tuple[MethodScores, ...]
    by_tier: Scores
    by_class: Scores
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data: weights by name, certificate, scores and intervals."""
        return {
            "fit_rows": self.fit_rows,
            "rows": self.n_rows,
            "patients": self.n_patients,
            "splits": self.n_splits,
            "repeats": self.n_repeats,
            "weights": dict(zip(self.names, self.fit.weights.tolist(), strict=True)),
            "objective": self.fit.objective,
            "gap": self.fit.gap,
            "iterations": self.fit.iterations,
            "best_single": self.names[self.best],
            "optimistic": [
                name for name, marked in zip(self.names, self.optimistic, strict=True) if marked
            ],
            "methods": {
                method.name: {"in_sample": method.in_sample, "nested": method.nested}
                for method in self.methods
            },
            "nested_blend": {"by_tier": self.by_tier, "by_class": self.by_class},
            "nested_blend_minus": {
                comparison.against: comparison.to_json() for comparison in self.comparisons
            },
        }


def blend_report(
    targets: ArrayLike,
    probabilities: ArrayLike,
    names: Sequence[str],
    patients: ArrayLike,
    total_votes: ArrayLike,
    *,
    fit_rows: Objective = "kl_10",
    optimistic: Sequence[bool] | None = None,
    n_splits: int = 5,
    n_repeats: int = 5,
    seed: int = 0,
) -> BlendReport:
    """Fits the best blend and estimates honestly what it is worth.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) out-of-fold predictions on the same rows.
        names: (M,) different names.
        patients: (n,) patient of each row.
        total_votes: (n,) votes of each row.
        fit_rows: rows that weights and choices are made on; all rows are scored.
        optimistic: (M,) models to be marked; none where absent.
        n_splits: splits by patient; as many as there are patients, if fewer.
        n_repeats: nested estimates with the seeds ``seed``, ``seed + 1``, ...
        seed: of the first estimate's splits and of the bootstrap.

    Raises:
        PredictionError: where inputs do not fit, are no distributions, or the rows
            with enough votes for ``fit_rows`` are not of two patients at least.
    """
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    marks = tuple(map(bool, [False] * len(models) if optimistic is None else optimistic))
    votes, owners = np.asarray(total_votes, np.float64), np.asarray(patients)
    _check_inputs(names, marks, votes, owners, models)
    chosen = _chosen(fit_rows, votes, owners).astype(np.float64)
    n_splits = min(n_splits, len(np.unique(owners)))
    rows = _row_scores(checked, models, owners, chosen, (n_splits, n_repeats, seed))
    comparisons = tuple(
        compare(name, rows.nested_blend, other, owners, votes, fit_rows, seed)
        for name, other in (
            (BEST_TRIAL, rows.singles[rows.best]),
            (BEST_SINGLE, rows.nested_single),
            (EQUAL, rows.equal),
        )
    )
    pairs = (
        (BEST_SINGLE, rows.singles[rows.best], rows.nested_single),
        (EQUAL, rows.equal, rows.equal),
        (SIMPLEX, rows.blend, rows.nested_blend),
    )
    return BlendReport(
        names=tuple(names),
        optimistic=marks,
        fit_rows=fit_rows,
        n_rows={name: int((votes >= fewest).sum()) for name, fewest in OBJECTIVES.items()},
        n_patients=len(np.unique(owners)),
        n_splits=n_splits,
        n_repeats=n_repeats,
        fit=rows.fit,
        nested_weights=rows.nested_weights,
        best=rows.best,
        nested_best=rows.nested_best,
        methods=tuple(
            MethodScores(name, mean_by_objective(inside, votes), mean_by_objective(nested, votes))
            for name, inside, nested in pairs
        ),
        by_tier=_mean_of([kl_by_tier(checked, blend, votes) for blend in rows.nested]),
        by_class=_mean_of([kl_by_class(checked, blend) for blend in rows.nested]),
        comparisons=comparisons,
    )


@dataclass(frozen=True)
class _RowScores:
    """KL of each row (n,) under every method, and what was fitted on the way.

    ``nested`` has the nested blend's probabilities (n, 6), one array a repeat.
    """

    singles: Array
    best: int
    equal: Array
    fit: SimplexFit
    blend: Array
    nested: list[Array]
    nested_blend: Array
    nested_single: Array
    nested_weights: Array
    nested_best: dict[int, float]


def _row_scores(
    targets: Array,
    models: NDArray[np.floating],
    patients: NDArray[Any],
    chosen: Array,
    splits: tuple[int, int, int],
) -> _RowScores:
    n_splits, n_repeats, seed = splits
    singles = model_scores(targets, models)
    equal = blend_probabilities(models, np.full(len(models), 1 / len(models)))
    fit = simplex_weights(targets, models, chosen)
    blends, nested_singles, weights, choices = [], [], [], []
    for repeat in range(n_repeats):
        nested = nested_blend(targets, models, patients, n_splits, seed + repeat, chosen)
        choice = nested_choice(singles, nested.split, chosen)
        blends.append(nested.probabilities)
        nested_singles.append(singles[choice[nested.split], np.arange(len(targets))])
        weights.append(nested.weights)
        choices.append(choice)
    models_taken, counts = np.unique(np.concatenate(choices), return_counts=True)
    shares = (counts / counts.sum()).tolist()
    return _RowScores(
        singles=singles,
        best=int(np.argmin(singles @ chosen)),
        equal=row_sums(targets, equal),
        fit=fit,
        blend=row_sums(targets, blend_probabilities(models, fit.weights)),
        nested=blends,
        nested_blend=np.mean([row_sums(targets, blended) for blended in blends], axis=0),
        nested_single=np.mean(nested_singles, axis=0),
        nested_weights=np.concatenate(weights),
        nested_best=dict(zip(models_taken.tolist(), shares, strict=True)),
    )


def _mean_of(repeats: Sequence[Mapping[str, float | None]]) -> Scores:
    """Means by name; what is None is so in every repeat, for their rows are the same."""
    means: Scores = {}
    for name in repeats[0]:
        known = [value for scores in repeats if (value := scores[name]) is not None]
        means[name] = float(np.mean(known)) if known else None
    return means


def _chosen(fit_rows: Objective, votes: Array, patients: NDArray[Any]) -> NDArray[np.bool_]:
    """The (n,) rows to fit on; nested estimates need two patients among them."""
    chosen: NDArray[np.bool_] = votes >= OBJECTIVES[fit_rows]
    if not chosen.any():
        raise PredictionError(
            f"a blend for {fit_rows} needs rows of at least {OBJECTIVES[fit_rows]} votes",
            got="none",
            fix="Fit on the rows of another objective.",
        )
    if len(np.unique(patients[chosen])) < 2:
        raise PredictionError(
            f"a blend for {fit_rows} needs rows of at least two patients",
            got="one patient",
            fix="What one patient's rows choose must be scored on another's: use more data"
            " or the rows of another objective.",
        )
    return chosen


def _check_inputs(
    names: Sequence[str],
    marks: Sequence[bool],
    votes: Array,
    patients: NDArray[Any],
    models: NDArray[np.floating],
) -> None:
    n_models, n_rows = models.shape[:2]
    if len(names) != n_models or len(marks) != n_models:
        raise PredictionError(
            "there must be one name and one mark a model",
            got=f"{len(names)} names and {len(marks)} marks for {n_models} models",
        )
    if len(set(names)) != n_models:
        raise PredictionError("models must have different names", got=", ".join(names))
    if votes.shape != (n_rows,) or patients.shape != (n_rows,):
        raise PredictionError(
            f"there must be one patient and one number of votes for each of {n_rows} rows",
            got=f"{patients.shape} and {votes.shape}",
        )
