"""The gain of a model: how much a frozen reference blend improves if the model is added.

With q the reference's out-of-sample probabilities of a row, p those of the model (both clipped
as the metric clips them) and t the target shares, the blend of both is ``(1 - w) q + w p``
with one weight w from 0 to 1. The gain of row i, whose fold is k, is

    g_i = KL(t_i, q_i) - KL(t_i, (1 - w_k) q_i + w_k p_i)
    w_k = argmin over w of the summed KL of the blend over the scored rows outside fold k

and the model's gain is the mean of g_i over the scored rows, in nats: KL of the reference minus
nested KL of the blend. A fold's weight never sees that fold, so a useless model gains 0 (its
weight is 0) or slightly less; a model equal to the reference gains exactly 0.

Why one weight, and not new weights of all members: it is a convex problem in one number, which
takes a millisecond, and it measures the model alone. A new fit would credit the model with
corrections of the other weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import N_CLASSES
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import CLIP, Array

_WEIGHT_TOLERANCE: Final = 1e-9
"""Of the weight; the error of a gain is of the order of its square."""
_MAX_STEPS: Final = 100
"""Bisection alone needs 30; Newton's method takes 4 to 6."""


@dataclass(frozen=True)
class Gain:
    """The gain of a model.

    Attributes:
        mean: over the scored rows, in nats; above 0 the model improves the reference.
        rows: (n,) gain of each row; 0 for rows that are not scored.
        weights: (K,) the model's weight in each fold, fitted on the other folds.
    """

    mean: float
    rows: Array
    weights: Array


@dataclass(frozen=True)
class GainRows:
    """Scored rows as entries: pairs of a row and a class with a positive target.

    All other entries leave a KL unchanged. Entries are in the order of folds.

    Attributes:
        n_rows: rows of the predictions, n, scored or not.
        n_scored: scored rows.
        entries: (R,) position of each entry in the flat (n, 6) predictions.
        shares: (R,) target shares divided by ``n_scored``.
        starts: (K,) first entry of each fold that has scored rows.
    """

    n_rows: int
    n_scored: int
    entries: NDArray[np.intp]
    shares: Array
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, targets: Array, folds: NDArray[np.integer], scored: NDArray[np.bool_]) -> GainRows:
        """The entries of the scored rows.

        Args:
            targets: (n, 6) vote shares.
            folds: (n,) fold of each row; folds must not share patients.
            scored: (n,) which rows count.

        Raises:
            PredictionError: if the scored rows are of fewer than two folds.
        """
        known = np.unique(folds[scored])
        if len(known) < 2:
            raise PredictionError(
                "a gain needs scored rows in at least two folds",
                got=f"{int(scored.sum())} row(s) in {len(known)} fold(s)",
                fix="Use more data or the rows of another score.",
            )
        order = np.argsort(folds, kind="stable")
        order = order[scored[order]]
        rows, classes = np.nonzero(targets[order] > 0)
        entries = order[rows] * N_CLASSES + classes
        shares = targets.reshape(-1)[entries] / len(order)
        starts = np.searchsorted(folds[order][rows], known)
        return cls(len(targets), len(order), entries, shares, starts)

    @property
    def n_folds(self) -> int:
        """K, the folds that have scored rows."""
        return len(self.starts)

    @property
    def rows(self) -> NDArray[np.intp]:
        """(R,) row of each entry."""
        return self.entries // N_CLASSES

    def inside(self, fold: int) -> slice:
        """The entries of a fold, by its position from 0 to K - 1."""
        ends = [*self.starts[1:], len(self.entries)]
        return slice(int(self.starts[fold]), int(ends[fold]))

    def outside(self, fold: int) -> NDArray[np.bool_]:
        """Mask (R,) of the entries outside a fold."""
        mask = np.ones(len(self.entries), dtype=np.bool_)
        mask[self.inside(fold)] = False
        return mask

    def probabilities(self, predictions: NDArray[np.floating]) -> Array:
        """(R,) clipped probabilities of the entries, from predictions (n, 6)."""
        return np.clip(predictions.reshape(-1)[self.entries].astype(np.float64), CLIP, 1 - CLIP)

    def by_row(self, terms: Array) -> Array:
        """(n,) sums over each row's entries of ``terms`` (R,)."""
        sums = np.bincount(self.rows, weights=terms, minlength=self.n_rows)
        return sums.astype(np.float64)

    def gain(self, reference: Array, model: Array) -> Gain:
        """The gain of a model; for the formula see the module.

        Args:
            reference: (R,) clipped probabilities of the entries by the reference.
            model: (R,) by the model.
        """
        ratios = model / reference - 1
        guess = mixing_weight(self.shares, ratios)
        weights, terms = np.empty(self.n_folds), np.empty(len(ratios))
        for fold in range(self.n_folds):
            outside, inside = self.outside(fold), self.inside(fold)
            weights[fold] = mixing_weight(self.shares[outside], ratios[outside], guess)
            terms[inside] = np.log1p(weights[fold] * ratios[inside])
        terms *= self.shares
        return Gain(float(terms.sum()), self.by_row(terms) * self.n_scored, weights)


def mixing_weight(shares: Array, ratios: Array, guess: float = 0.5) -> float:
    """The w from 0 to 1 that maximises ``shares @ ln(1 + w * ratios)``, a concave function.

    Newton's method; a step that leaves the bracket is replaced by bisection.

    Args:
        shares: (R,) above 0.
        ratios: (R,) p / q - 1, above -1.
        guess: where to start.
    """
    if shares @ ratios <= 0:
        return 0.0
    if shares @ (ratios / (1 + ratios)) >= 0:
        return 1.0
    low, high = 0.0, 1.0
    weight = min(max(guess, 0.0), 1.0)
    for _ in range(_MAX_STEPS):
        slopes = ratios / (1 + weight * ratios)
        slope = float(shares @ slopes)
        low, high = (weight, high) if slope > 0 else (low, weight)
        moved = weight + slope / float(shares @ slopes**2)
        if not low < moved < high:
            moved = (low + high) / 2
        if abs(moved - weight) <= _WEIGHT_TOLERANCE:
            break
        weight = moved
    return weight
