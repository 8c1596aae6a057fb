"""The gain of a model: how much a frozen reference blend improves if the model is added.

With q the reference's out-of-sample probabilities of a row, p those of the model (both clipped
as the metric clips them) and t the target shares, the blend of both is ``(1 - w) q + w p``
with one weight w from 0 to 1. The gain of row i, whose fold is k, is

    g_i = KL(t_i, q_i) - KL(t_i, (1 - w_k) q_i + w_k p_i)
    w_k = argmin over w of the summed KL of the blend over the rows of all folds but k

and the model's gain is the mean of g_i over the scored rows, in nats: reference KL minus nested
KL of the blend. A fold's weight never sees that fold, so a model without use gains 0 (w is 0)
or slightly less than 0; the reference itself gains exactly 0.

One weight, rather than new weights for all members of the reference: it is a convex problem in
one number, which takes milliseconds, and it measures the model alone. A new fit of all members
would credit the model with corrections of the others' weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import N_CLASSES
from hms_ray.ensemble.selection import simplest_within_one_se
from hms_ray.ensemble.simplex import MAX_ITERATIONS
from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import CLIP, Array

_WEIGHT_TOLERANCE: Final = 1e-9
"""Of the mixing weight; the error of the gain is of its square."""
_MAX_STEPS: Final = 60
_GAP: Final = 1e-8
"""Duality gap in nats of a reference's weights."""


@dataclass(frozen=True)
class Gain:
    """The gain of a model.

    Attributes:
        mean: over the scored rows, in nats; above 0 the blend with the model is better.
        rows: (n,) gain of each row; 0 for rows that are not scored.
        weights: (K,) weight of the model in each fold, fitted on the other folds.
    """

    mean: float
    rows: Array
    weights: Array


@dataclass(frozen=True)
class GainRows:
    """The scored rows, as entries: the pairs of row and class with a positive target.

    The other entries do not change a KL. Entries are in the order of folds.

    Attributes:
        n_rows: rows of the predictions, scored or not.
        entries: (R,) position of each entry in the flat (n, 6) predictions.
        shares: (R,) target shares divided by the number of scored rows.
        starts: (K,) first entry of each fold with scored rows.
        log_shares: sum of ``shares * ln(target)``.
        n_scored: scored rows.
    """

    n_rows: int
    entries: NDArray[np.intp]
    shares: Array
    starts: NDArray[np.intp]
    log_shares: float
    n_scored: int

    @classmethod
    def of(cls, targets: Array, folds: NDArray[np.integer], scored: NDArray[np.bool_]) -> GainRows:
        """The entries of the scored rows.

        Args:
            targets: (n, 6) vote shares.
            folds: (n,) fold of each row.
            scored: (n,) which rows count.

        Raises:
            PredictionError: if the scored rows are of fewer than two folds.
        """
        known = np.unique(folds[scored])
        if len(known) < 2:
            raise PredictionError(
                "a gain needs scored rows in at least two folds",
                got=f"{int(scored.sum())} row(s) of {len(known)} fold(s)",
            )
        order = np.argsort(folds, kind="stable")
        order = order[scored[order]]
        rows, classes = np.nonzero(targets[order] > 0)
        entries = order[rows] * N_CLASSES + classes
        values = targets.reshape(-1)[entries]
        shares = values / len(order)
        starts = np.searchsorted(folds[order][rows], known)
        return cls(len(targets), entries, shares, starts, float(shares @ np.log(values)), len(order))

    def probabilities(self, predictions: NDArray[np.floating]) -> Array:
        """(R,) clipped probabilities of the entries, from predictions (n, 6)."""
        return np.clip(predictions.reshape(-1)[self.entries].astype(np.float64), CLIP, 1 - CLIP)

    def kl(self, probabilities: Array) -> float:
        """Mean KL of the scored rows, from the probabilities (R,) of the entries."""
        return self.log_shares - float(self.shares @ np.log(probabilities))

    def by_row(self, terms: Array) -> Array:
        """(n,) sums of terms (R,) over the entries of each row."""
        return np.bincount(self.entries // N_CLASSES, weights=terms, minlength=self.n_rows)

    def outside(self, fold: int) -> NDArray[np.bool_]:
        """Mask (R,) of the entries outside the fold in this position."""
        mask = np.ones(len(self.entries), dtype=np.bool_)
        mask[self._slice(fold)] = False
        return mask

    def _slice(self, fold: int) -> slice:
        last = fold + 1 == len(self.starts)
        return slice(self.starts[fold], None if last else self.starts[fold + 1])

    def gain(self, reference: Array, model: Array) -> Gain:
        """The gain of a model, from the probabilities (R,) of the entries; see the module."""
        ratios = model / reference - 1
        guess = _mixing_weight(self.shares, ratios, 0.5)
        weights, terms = np.empty(len(self.starts)), np.empty(len(ratios))
        for fold in range(len(self.starts)):
            outside, inside = self.outside(fold), self._slice(fold)
            weights[fold] = _mixing_weight(self.shares[outside], ratios[outside], guess)
            terms[inside] = np.log1p(weights[fold] * ratios[inside])
        terms *= self.shares
        return Gain(float(terms.sum()), self.by_row(terms) * self.n_scored, weights)

    def fit_reference(self, columns: Array, patients: NDArray[np.generic]) -> ReferenceFit:
        """A reference blend of M models: the best one, or exact simplex weights of all.

        Both are scored on folds that their fit did not see; the simplex is used if its nested
        KL is lower by more than one standard error (see ``simplest_within_one_se``).

        Args:
            columns: (M + 1, R) probabilities of the entries; the last row is overwritten.
            patients: (n,) patient of each row.
        """
        models = columns[:-1]
        columns[-1] = models.mean(axis=0)
        counted = np.unique(self.entries // N_CLASSES)
        candidates = {"best_single": _best_single, "simplex": _simplex}
        by_fold = {name: [] for name in candidates}
        scores = np.empty((len(candidates), len(counted)))
        for fold in range(len(self.starts)):
            outside = self.outside(fold)
            training, shares = columns[:, outside], self.shares[outside]
            for name, fit in candidates.items():
                by_fold[name].append(fit(training, shares / shares.sum()))
        for position, fits in enumerate(by_fold.values()):
            terms = np.empty(len(self.entries))
            for fold, weights in enumerate(fits):
                inside = self._slice(fold)
                terms[inside] = -np.log(weights @ models[:, inside])
            scores[position] = self.by_row(self.shares * terms)[counted]
        _, chosen, _ = simplest_within_one_se(scores, patients[counted])
        name = list(candidates)[chosen]
        weights = candidates[name](columns, self.shares / self.shares.sum())
        return ReferenceFit(name, weights, np.stack(by_fold[name]))


@dataclass(frozen=True)
class ReferenceFit:
    """A fitted reference blend.

    Attributes:
        method: ``best_single`` or ``simplex``.
        weights: (M,) fitted on all folds.
        by_fold: (K, M) fitted on all folds but one.
    """

    method: str
    weights: Array
    by_fold: Array


def _best_single(columns: Array, shares: Array) -> Array:
    weights = np.zeros(len(columns) - 1)
    weights[np.argmax(np.log(columns[:-1]) @ shares)] = 1.0
    return weights


def _simplex(columns: Array, shares: Array) -> Array:
    return solve_mixture(columns, shares, _GAP, MAX_ITERATIONS)[0]


def _mixing_weight(shares: Array, ratios: Array, guess: float) -> float:
    """The w from 0 to 1 that maximises ``shares @ ln(1 + w * ratios)``, a concave function.

    Newton's method, with bisection where a step leaves the bracket.

    Args:
        shares: (R,) above 0.
        ratios: (R,) model / reference - 1, above -1.
        guess: first w.
    """
    low, high, w = 0.0, 1.0, guess
    if shares @ ratios <= 0:
        return 0.0
    if shares @ (ratios / (1 + ratios)) >= 0:
        return 1.0
    for _ in range(_MAX_STEPS):
        slopes = ratios / (1 + w * ratios)
        slope = float(shares @ slopes)
        low, high = (w, high) if slope > 0 else (low, w)
        step = slope / float(shares @ slopes**2)
        moved = w + step
        if not low < moved < high:
            moved = (low + high) / 2
        if abs(moved - w) < _WEIGHT_TOLERANCE:
            return moved
        w = moved
    return w
