"""Multinomial logistic regression with soft targets, class-wise features and a ridge.

Row i scores class k with ``s_ik = sum_j W_kj F_kij``; the prediction is the softmax of
the scores. Minimised is the mean cross-entropy plus a ridge around a prior,

    ``sum_i w_i (ln sum_k exp s_ik - sum_k t_ik s_ik) + sum_kj c_kj (W_kj - W0_kj)^2 / 2``,

which is convex (Boehning, "Multinomial logistic regression algorithm", Annals of the
Institute of Statistical Mathematics 44, 1992: gradient and Hessian there). A tied
feature has one coefficient for all classes. The curvature is at least that of the
ridge, so a gradient g proves the loss to be within ``sum g^2 / (2 c)`` of its minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from hms_ray.competition.schema import N_CLASSES
from hms_ray.evaluate.metric import Array

_MOST_FOR_HESSIAN: Final = 900
"""Coefficients up to which the exact Hessian is made; its cost grows with their square."""
_GRADIENT_TOLERANCE: Final = 1e-8
_MAX_ITERATIONS: Final = 200
_MAX_FIRST_ORDER: Final = 5000


@dataclass(frozen=True)
class MultinomialFit:
    """Coefficients and how good they are.

    Attributes:
        coefficients: (6, J) float64.
        gap: the penalised loss is at most so far above its minimum, in nats.
        iterations: of the solver.
    """

    coefficients: Array
    gap: float
    iterations: int


@dataclass(frozen=True)
class Ridge:
    """Where coefficients are drawn to, and how strongly.

    Attributes:
        prior: (J,) value that a feature's coefficients are drawn to.
        strength: (J,) c above 0, in nats for half a squared unit.
        tied: (J,) bool, features with one coefficient for all classes.
    """

    prior: Array
    strength: Array
    tied: NDArray[np.bool_]


def fit_multinomial(
    features: Array, targets: Array, row_weights: Array, ridge: Ridge
) -> MultinomialFit:
    """The coefficients of the lowest penalised loss; nothing is checked.

    SciPy's trust-region Newton method with the exact Hessian (Conn, Gould and Toint,
    "Trust Region Methods", 2000, section 7.3); L-BFGS-B where that would be too large.

    Args:
        features: (6, n, J) float64, by class.
        targets: (n, 6) float64 vote shares.
        row_weights: (n,) float64, at least 0; they are divided by their sum here.
        ridge: of the J features.
    """
    problem = Problem(features, targets, row_weights / row_weights.sum(), ridge)
    if problem.n_free <= _MOST_FOR_HESSIAN:
        found = optimize.minimize(
            problem.loss,
            problem.start,
            jac=True,
            hess=problem.hessian,
            method="trust-exact",
            options={"gtol": _GRADIENT_TOLERANCE, "maxiter": _MAX_ITERATIONS},
        )
    else:
        found = optimize.minimize(
            problem.loss,
            problem.start,
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": _GRADIENT_TOLERANCE, "maxiter": _MAX_FIRST_ORDER},
        )
    gap = 0.5 * float(np.sum(found.jac**2 / problem.strength))
    return MultinomialFit(problem.spread(found.x), gap, int(found.nit))


def softmax_scores(features: Array, coefficients: Array) -> Array:
    """The predictions, (n, 6) float64: softmax of the scores.

    Args:
        features: (6, n, J).
        coefficients: (6, J).
    """
    return _softmax(np.matmul(features, coefficients[:, :, None])[:, :, 0])[0].T


class Problem:
    """The penalised loss with its exact derivatives, in free coefficients.

    Attributes:
        start: (P,) the prior.
        strength: (P,) the ridge.
        n_free: P; a tied feature counts once.
    """

    def __init__(self, features: Array, targets: Array, row_weights: Array, ridge: Ridge) -> None:
        self._features, self._weights = features, row_weights
        # Sums within the metric's tolerance of 1 must not bend the loss.
        self._targets = np.ascontiguousarray((targets / targets.sum(axis=1, keepdims=True)).T)
        n_features = len(ridge.prior)
        n_tied = int(ridge.tied.sum())
        untied = n_features - n_tied
        self._place = np.empty((N_CLASSES, n_features), dtype=np.int64)
        self._place[:, ridge.tied] = np.arange(n_tied)
        self._place[:, ~ridge.tied] = n_tied + np.arange(N_CLASSES * untied).reshape(
            N_CLASSES, untied
        )
        self.n_free = n_tied + N_CLASSES * untied
        self.start, self.strength = np.empty(self.n_free), np.empty(self.n_free)
        self.start[self._place] = ridge.prior
        self.strength[self._place] = ridge.strength

    def spread(self, free: Array) -> Array:
        """The (6, J) coefficients of P free ones."""
        return free[self._place]

    def loss(self, free: Array) -> tuple[float, Array]:
        """The penalised loss, up to a constant, and its gradient (P,); nats."""
        scores = np.matmul(self._features, self.spread(free)[:, :, None])[:, :, 0]
        predicted, logs = _softmax(scores)
        residuals = self._weights * (predicted - self._targets)
        value = self._weights @ (logs - (self._targets * scores).sum(axis=0))
        by_class = np.matmul(residuals[:, None, :], self._features)[:, 0, :]
        change = free - self.start
        gradient = np.bincount(self._place.ravel(), weights=by_class.ravel(), minlength=self.n_free)
        penalty = 0.5 * float(self.strength @ change**2)
        return float(value) + penalty, gradient + self.strength * change

    def hessian(self, free: Array) -> Array:
        """The (P, P) Hessian, positive definite."""
        scores = np.matmul(self._features, self.spread(free)[:, :, None])[:, :, 0]
        predicted, _ = _softmax(scores)
        curvature = np.diag(self.strength)
        for first in range(N_CLASSES):
            for second in range(first, N_CLASSES):
                rows = self._weights * predicted[first] * ((first == second) - predicted[second])
                left = (self._features[first] * rows[:, None]).T
                block = left @ self._features[second]
                places = np.ix_(self._place[first], self._place[second])
                np.add.at(curvature, places, block)
                if first != second:
                    np.add.at(curvature, (places[1].T, places[0].T), block.T)
        return curvature


def _softmax(scores: Array) -> tuple[Array, Array]:
    """Softmax (6, n) of scores over the classes, and the log of its denominator (n,)."""
    highest = scores.max(axis=0)
    odds = np.exp(scores - highest)
    sums = odds.sum(axis=0)
    return odds / sums, np.log(sums) + highest
