"""The blend of a study's trials that serves as a frozen reference for gains.

Two methods are compared by nested KL: the best model alone, and exact simplex weights of all
models. The one-standard-error rule decides, so that a blend must be clearly better than its
best member. Leave-one-fold-out, as for gains (see ``blend_gain``).

A trial that is a member cannot add to the blend; its gain is measured against the reference
without it. Otherwise all earlier trials would have gains of about 0, because an exact blend of
them leaves nothing to gain from any of them, and a search could learn nothing from them.
"""

from __future__ import annotations

from collections.abc import Callable
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
    scored = np.unique(rows.rows)
    fits = {"best_single": _best_single(rows, models), "simplex": _simplex(rows, models)}
    scores = np.stack(
        [
            rows.by_row(-rows.shares * np.log(predict_folds(rows, models, by_fold)))[scored]
            for _, by_fold in fits.values()
        ]
    )
    # Simplest first.
    _, chosen, _ = simplest_within_one_se(scores, patients[scored])
    name = list(fits)[chosen]
    return ReferenceFit(name, *fits[name])


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


def _by_fold(rows: GainRows, products: Callable[[slice], Array]) -> tuple[Array, Array]:
    """Sums (M,) over all entries, and (K, M) over those outside each fold.

    Args:
        rows: the scored rows.
        products: of the entries of a slice, summed (M,).
    """
    inside = np.stack([products(rows.inside(fold)) for fold in range(rows.n_folds)])
    total = inside.sum(axis=0)
    return total, total - inside


def _best_single(rows: GainRows, models: Array) -> tuple[Array, Array]:
    """Weights (M,) and (K, M) of the model with the largest likelihood alone."""
    total, outside = _by_fold(rows, lambda part: np.log(models[:, part]) @ rows.shares[part])
    one = np.eye(len(models))
    return one[total.argmax()], one[outside.argmax(axis=1)]


def _simplex(rows: GainRows, models: Array) -> tuple[Array, Array]:
    """Weights (M,) of all scored rows, and (K, M) of those outside each fold.

    Most rows are outside each fold, so its weights are near those of all rows. The solver starts
    from these, with the models that have weight or a gradient above 1; at its optimum, further
    models join until no gradient is above 1, which proves the optimum of all models.
    """
    shares = rows.shares / rows.shares.sum()
    columns = np.concatenate([models, models.mean(axis=0, keepdims=True)])
    whole = solve_mixture(columns, shares, _GAP, MAX_ITERATIONS)[0]
    slopes = shares / (whole @ models)
    _, gradients = _by_fold(rows, lambda part: models[:, part] @ slopes[part])
    by_fold = np.zeros((rows.n_folds, len(models)))
    for fold in range(rows.n_folds):
        inside = rows.inside(fold)
        kept = 1 - shares[inside].sum()
        active = (whole > 0) | (gradients[fold] > kept)
        by_fold[fold] = _without_fold(models, shares / kept, inside, whole, active)
    return whole, by_fold


def _without_fold(
    models: Array, shares: Array, inside: slice, start: Array, active: NDArray[np.bool_]
) -> Array:
    """Simplex weights (M,) of the entries outside a fold.

    Args:
        models: (M, R), all entries.
        shares: (R,) sum 1 outside the fold.
        inside: entries of the fold.
        start: (M,) weights to start from.
        active: (M,) models that may have weight at first.
    """
    parts = slice(0, inside.start), slice(inside.stop, len(shares))
    outside = np.concatenate([shares[part] for part in parts])
    weights = start
    while True:
        columns = np.empty((active.sum() + 1, len(outside)))
        np.concatenate([models[active, part] for part in parts], axis=1, out=columns[:-1])
        np.mean(columns[:-1], axis=0, out=columns[-1])
        own = weights[active] / weights[active].sum()
        own = solve_mixture(columns, outside, _GAP, MAX_ITERATIONS, start=own)[0]
        weights = np.zeros(len(models))
        weights[active] = own
        slopes = outside / (own @ columns[:-1])
        n_before = inside.start
        gradient = models[:, parts[0]] @ slopes[:n_before] + models[:, parts[1]] @ slopes[n_before:]
        joining = (gradient > 1 + _GAP) & ~active
        if not joining.any():
            return weights
        active = active | joining
