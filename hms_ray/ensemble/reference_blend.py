"""The blend of a study's trials that serves as a frozen reference for gains.

Two methods are compared by nested KL: the best model alone, and exact simplex weights of all
models. The one-standard-error rule decides, so that a blend must be clearly better than its
best member. Leave-one-fold-out, as for gains (see ``blend_gain``).

A trial that is a member cannot add to the blend; its gain is measured against the reference
without it. Otherwise all earlier trials would have gains of about 0, because an exact blend of
them leaves nothing to gain from any of them, and a search could learn nothing from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.ensemble.blend_gain import GainRows
from hms_ray.ensemble.selection import simplest_within_one_se
from hms_ray.ensemble.simplex import MAX_ITERATIONS
from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.evaluate.metric import CLIP, Array

_GAP: Final = 1e-8
"""Duality gap in nats; the solver's own 1e-10 takes longer and changes no gain."""
_ALL_WEIGHT: Final = 1e-6
"""A member whose weight is closer to 1 is the whole blend: the others are lost in rounding."""

Fit = Callable[[Array, Array], Array]
"""Columns (M + 1, R) with their mean last, and shares (R,) of sum 1, to weights (M,)."""


@dataclass(frozen=True)
class ReferenceFit:
    """A fitted reference.

    Attributes:
        method: ``best_single`` or ``simplex``.
        weights: (M,) fitted on all scored rows.
        by_fold: (K, M) fitted on the scored rows outside each fold; they give the
            out-of-sample predictions.
    """

    method: str
    weights: Array
    by_fold: Array

    @property
    def members(self) -> NDArray[np.intp]:
        """Positions of the models that have a weight in some fit."""
        return np.flatnonzero((self.weights > 0) | (self.by_fold > 0).any(axis=0))


def fit_reference(rows: GainRows, models: Array, patients: NDArray[Any]) -> ReferenceFit:
    """Fits the reference of M models.

    Args:
        rows: the scored rows.
        models: (M, R) clipped probabilities of the entries.
        patients: (n,) patient of each row.
    """
    columns = _with_mean(models)
    scored = np.unique(rows.rows)
    by_fold = {name: _fit_folds(rows, columns, fit) for name, fit in _METHODS.items()}
    scores = np.stack(
        [
            rows.by_row(-rows.shares * np.log(predict_folds(rows, models, weights)))[scored]
            for weights in by_fold.values()
        ]
    )
    _, chosen, _ = simplest_within_one_se(scores, patients[scored])
    name = list(_METHODS)[chosen]
    weights = _METHODS[name](columns, rows.shares / rows.shares.sum())
    return ReferenceFit(name, weights, by_fold[name])


def predict_folds(rows: GainRows, models: Array, by_fold: Array) -> Array:
    """(R,) probabilities of the entries by weights (K, M), one set of weights per fold."""
    predicted = np.empty(len(rows.entries))
    for fold, weights in enumerate(by_fold):
        used, inside = np.flatnonzero(weights), rows.inside(fold)
        predicted[inside] = weights[used] @ models[used, inside]
    return predicted


def predict_without(rows: GainRows, reference: Array, model: Array, weights: Array) -> Array:
    """The reference without one member: the other members with their weights scaled to sum 1.

    In a fold where the member has all weight, the reference itself.

    Args:
        rows: the scored rows.
        reference: (R,) probabilities of the entries by the reference.
        model: (R,) by the member.
        weights: (K,) weight of the member in each fold's blend.

    Returns:
        (R,) clipped probabilities of the entries.
    """
    found = reference.copy()
    for fold, weight in enumerate(weights):
        if weight < 1 - _ALL_WEIGHT:
            inside = rows.inside(fold)
            found[inside] = (reference[inside] - weight * model[inside]) / (1 - weight)
    # The difference of two close numbers may round to 0 or less.
    return np.clip(found, CLIP, 1 - CLIP)


def _with_mean(models: Array) -> Array:
    return np.concatenate([models, models.mean(axis=0, keepdims=True)])


def _fit_folds(rows: GainRows, columns: Array, fit: Fit) -> Array:
    """(K, M) weights, each fitted on the entries outside one fold."""
    found = np.empty((rows.n_folds, len(columns) - 1))
    for fold in range(rows.n_folds):
        outside = rows.outside(fold)
        shares = rows.shares[outside]
        found[fold] = fit(columns[:, outside], shares / shares.sum())
    return found


def _best_single(columns: Array, shares: Array) -> Array:
    weights = np.zeros(len(columns) - 1)
    weights[np.argmax(np.log(columns[:-1]) @ shares)] = 1.0
    return weights


def _simplex(columns: Array, shares: Array) -> Array:
    return solve_mixture(columns, shares, _GAP, MAX_ITERATIONS)[0]


_METHODS: Final[Mapping[str, Fit]] = {"best_single": _best_single, "simplex": _simplex}
"""Simplest first."""
