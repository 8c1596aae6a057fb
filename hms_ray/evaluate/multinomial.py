"""Multinomial logistic regression with soft targets, class-wise features and a ridge.

The score of class k in row i is ``s_ik = sum_j W_kj F_kji``; the prediction is the softmax of
the scores. The loss is the mean cross-entropy plus a ridge around a prior,

    ``sum_i w_i (ln sum_k exp s_ik - sum_k t_ik s_ik) + sum_kj c_kj (W_kj - W0_kj)^2 / 2``,

which is convex (Boehning, "Multinomial logistic regression algorithm", Annals of the
Institute of Statistical Mathematics 44, 1992, with gradient and Hessian). A tied feature has
one coefficient for all classes. The curvature is at least that of the ridge, so with gradient
g the loss is within ``sum g^2 / (2 c)`` of its minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from hms_ray.competition.schema import N_CLASSES
from hms_ray.evaluate.metric import Array

_MAX_FOR_HESSIAN: Final = 900
"""Largest number of coefficients with a Hessian; its cost grows with their square."""
_GRADIENT_TOLERANCE: Final = 1e-8
_MAX_ITERATIONS: Final = 200
_MAX_FIRST_ORDER: Final = 5000
_SLOW: Final = 0.4
"""A new Hessian is computed if a step leaves a larger fraction of the gradient's norm."""
_MANY_ROWS, _STRIDE = 2000, 4
"""From 2,000 rows on, the Hessian uses every 4th row: one of all rows costs as much as six
steps with 12 models and fifteen with 50, and saves one or two."""
_BLOCK: Final = 256
"""Rows per block of the Hessian; their arrays fit a core's cache."""


@dataclass(frozen=True)
class MultinomialFit:
    """Fitted coefficients.

    Attributes:
        coefficients: (6, J) float64.
        gap: upper bound of the penalised loss above its minimum, in nats.
        iterations: of the solver.
    """

    coefficients: Array
    gap: float
    iterations: int


@dataclass(frozen=True)
class Ridge:
    """Quadratic penalty around a prior.

    Attributes:
        prior: (J,) centre of the penalty of a feature's coefficients.
        strength: (J,) c above 0, in nats for half a squared unit.
        tied: (J,) bool, features with one coefficient for all classes.
    """

    prior: Array
    strength: Array
    tied: NDArray[np.bool_]

    def take(self, features: list[int]) -> Ridge:
        """The ridge of some of the features."""
        return Ridge(self.prior[features], self.strength[features], self.tied[features])


def fit_multinomial(
    features: Array,
    targets: Array,
    row_weights: Array,
    ridge: Ridge,
    start: Array | None = None,
    offset: Array | float = 0.0,
) -> MultinomialFit:
    """The coefficients of the lowest penalised loss; inputs are not checked.

    SciPy's trust-region method with a dense Hessian (Conn, Gould and Toint, "Trust
    Region Methods", 2000, section 7.3), that of ``Problem.curvature``; L-BFGS-B where it
    would be too large. Starts must not come from fits on other rows, so that not even
    rounding leaks from held-out patients.

    Args:
        features: (6, J, n) float64, by class.
        targets: (n, 6) float64 vote shares.
        row_weights: (n,) float64, at least 0; they are divided by their sum here.
        ridge: of the J features.
        start: (6, J) initial coefficients (default: the prior).
        offset: (6, n) added to the scores.
    """
    problem = Problem(features, targets, row_weights / row_weights.sum(), ridge, offset)
    first = problem.prior if start is None else problem.free(start)
    if problem.n_free <= _MAX_FOR_HESSIAN:
        found = optimize.minimize(
            problem.loss,
            first,
            jac=True,
            hess=problem.curvature,
            method="trust-exact",
            options={"gtol": _GRADIENT_TOLERANCE, "maxiter": _MAX_ITERATIONS},
        )
    else:
        found = optimize.minimize(
            problem.loss,
            first,
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": _GRADIENT_TOLERANCE, "maxiter": _MAX_FIRST_ORDER},
        )
    gap = 0.5 * float(np.sum(found.jac**2 / problem.strength))
    return MultinomialFit(problem.spread(found.x), gap, int(found.nit))


def softmax_scores(features: Array, coefficients: Array) -> Array:
    """The predictions, (n, 6) float64: softmax of the scores.

    Args:
        features: (6, J, n).
        coefficients: (6, J).
    """
    return softmax(_scores(features, coefficients))[0].T


class Problem:
    """The penalised loss with its exact derivatives, in free coefficients.

    Attributes:
        prior: (P,) centre of the penalty.
        strength: (P,) the ridge.
        n_free: P; a tied feature counts once.
    """

    def __init__(
        self,
        features: Array,
        targets: Array,
        row_weights: Array,
        ridge: Ridge,
        offset: Array | float = 0.0,
    ) -> None:
        self._features, self._weights, self._offset = features, row_weights, offset
        # Sums may differ from 1 within the metric's tolerance; the loss assumes exactly 1.
        self._targets = np.ascontiguousarray((targets / targets.sum(axis=1, keepdims=True)).T)
        n_features = len(ridge.prior)
        self._tied = np.flatnonzero(ridge.tied)
        self._untied = np.flatnonzero(~ridge.tied)
        n_tied, untied = len(self._tied), len(self._untied)
        self._place = np.empty((N_CLASSES, n_features), dtype=np.int64)
        self._place[:, self._tied] = np.arange(n_tied)
        self._place[:, self._untied] = n_tied + np.arange(N_CLASSES * untied).reshape(
            N_CLASSES, untied
        )
        self.n_free = n_tied + N_CLASSES * untied
        self.prior, self.strength = np.empty(self.n_free), np.empty(self.n_free)
        self.prior[self._place] = ridge.prior
        self.strength[self._place] = ridge.strength
        self._first_losses: Array | None = None
        self._here: _Point | None = None
        self._before: _Point | None = None
        self._kept = np.empty((0, 0))
        some = len(row_weights) >= _MANY_ROWS and bool(row_weights[::_STRIDE].any())
        self._stride = _STRIDE if some else 1

    def spread(self, free: Array) -> Array:
        """The (6, J) coefficients of P free ones."""
        return free[self._place]

    def free(self, coefficients: Array) -> Array:
        """The P free coefficients of (6, J) ones; the inverse of ``spread``."""
        free = np.empty(self.n_free)
        free[self._place] = coefficients
        return free

    def loss(self, free: Array) -> tuple[float, Array]:
        """The penalised loss, up to a constant, and its gradient (P,); nats."""
        here = self._at(free)
        return here.loss, here.gradient

    def curvature(self, free: Array) -> Array:
        """Approximate Hessian (P, P) for the next step; recomputed if the gradient falls slowly.

        It is computed from some of the rows (Byrd, Chin, Neveitt and Nocedal, SIAM Journal on
        Optimization 21, 2011). While the gradient falls fast, it is updated by BFGS instead
        (Nocedal and Wright, "Numerical Optimization", 2006, formula 6.19). Loss and gradient
        use all rows, so only the path to the minimum depends on the approximation. SciPy also
        requests a Hessian at the end, where no step follows.
        """
        here, before = self._at(free), self._before
        if before is None:
            self._kept = self.hessian(free, self._stride)
        elif here.length > max(_SLOW * before.length, _GRADIENT_TOLERANCE):
            # After a step that was too long, the sampled rows are not representative.
            grew = here.length > before.length
            self._kept = self.hessian(free, 1 if grew else self._stride)
        else:
            step, bend = here.free - before.free, here.gradient - before.gradient
            expected = self._kept @ step
            if step @ bend > 0:
                self._kept = self._kept + np.outer(bend, bend / (step @ bend))
                self._kept -= np.outer(expected, expected / (step @ expected))
        self._before = here
        return self._kept

    def hessian(self, free: Array, stride: int = 1) -> Array:
        """The (P, P) Hessian, positive definite, from every ``stride``-th row.

        With f_k the features of class k at the positions of their coefficients, it is the
        mean of ``sum_k p_k f_k f_k' - (sum_k p_k f_k)(sum_k p_k f_k)'`` and the ridge.
        """
        predicted = self._at(free).predicted
        size = self._place.shape[1]
        within, between = np.zeros((N_CLASSES, size, size)), np.diag(self.strength)
        scaled = np.empty((N_CLASSES, size, _BLOCK))
        weights = self._weights / self._weights[::stride].sum()
        for first in range(0, len(weights), _BLOCK * stride):
            block = slice(first, first + _BLOCK * stride, stride)
            roots = np.sqrt(predicted[:, block])
            scaled = scaled[:, :, : roots.shape[1]]
            weighted = roots * np.sqrt(weights[block])
            np.multiply(self._features[:, :, block], weighted[:, None], out=scaled)
            within += np.matmul(scaled, scaled.transpose(0, 2, 1))
            scaled *= roots[:, None]
            means = self._gathered(scaled)
            between -= means @ means.T
        for place, part in zip(self._place, within, strict=True):
            between[np.ix_(place, place)] += part
        return between

    def _gathered(self, by_class: Array) -> Array:
        """(P, n) from (6, J, n): the six rows of a tied feature are summed."""
        n_rows = by_class.shape[2]
        if not len(self._tied):
            return by_class.reshape(self.n_free, n_rows)
        untied = by_class[:, self._untied].reshape(self.n_free - len(self._tied), n_rows)
        return np.concatenate([by_class[:, self._tied].sum(axis=0), untied])

    def _at(self, free: Array) -> _Point:
        """Values at a point, computed once for the loss and the Hessian."""
        if self._here is None or not np.array_equal(self._here.free, free):
            self._here = self._made(free.copy())
        return self._here

    def _made(self, free: Array) -> _Point:
        scores = _scores(self._features, self.spread(free)) + self._offset
        predicted, logs = softmax(scores)
        losses = logs - np.einsum("kn,kn->n", self._targets, scores)
        # Losses relative to those of the first point: the last steps gain less than the
        # rounding of a mean of absolute losses.
        if self._first_losses is None:
            self._first_losses = losses
        value = float(self._weights @ (losses - self._first_losses))
        residuals = predicted - self._targets
        residuals *= self._weights
        by_class = np.matmul(self._features, residuals[:, :, None])[:, :, 0]
        change = free - self.prior
        gradient = np.bincount(self._place.ravel(), weights=by_class.ravel(), minlength=self.n_free)
        slope = gradient + self.strength * change
        return _Point(free, predicted, value + 0.5 * float(self.strength @ change**2), slope)


@dataclass(frozen=True)
class _Point:
    """Predictions (6, n), loss and gradient (P,) at the coefficients (P,)."""

    free: Array
    predicted: Array
    loss: float
    gradient: Array

    @property
    def length(self) -> float:
        """Norm of the gradient."""
        return float(np.linalg.norm(self.gradient))


def _scores(features: Array, coefficients: Array) -> Array:
    """(6, n) scores of (6, J, n) features."""
    return np.asarray(np.matmul(coefficients[:, None, :], features)[:, 0, :])


def softmax(scores: Array) -> tuple[Array, Array]:
    """Softmax (6, n) of scores over the classes, and the log of its denominator (n,)."""
    highest = scores.max(axis=0)
    odds = np.exp(scores - highest)
    sums = odds.sum(axis=0)
    odds /= sums
    return odds, np.log(sums) + highest
