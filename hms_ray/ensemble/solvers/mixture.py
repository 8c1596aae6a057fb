"""Maximum-likelihood mixture proportions: the solver behind exact blend weights.

Minimises ``-sum_r y_r ln(sum_m w_m A_mr)`` over the simplex, with y at least 0 and of sum 1,
and A at least 0. The columns of A are probabilities of models or of whole blends. For the
algorithm and the duality gap, see ``ensemble.simplex``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.ensemble.solvers.quadratic import minimise_quadratic
from hms_ray.evaluate.metric import Array

_ENTERING: Final = 32
"""Models that may always join a step; beyond that, at most as many as have weight."""
_MAX_DECREASE: Final = 0.9
_STARVED: Final = 1e-3
_LIFT: Final = 0.1
_NEGLIGIBLE: Final = 1e-7
_ROUNDING: Final = 1e-15
_IDLE_STEPS: Final = 10
"""Steps within rounding that do not halve the gap, before the solver stops."""


def solve_mixture(
    columns: Array,
    shares: Array,
    tolerance: float,
    max_iterations: int,
    start: Array | None = None,
) -> tuple[Array, float, int]:
    """The proportions, their duality gap, and the Newton steps taken.

    Args:
        columns: (M + 1, R) float64: M columns, then their mean (from the caller, so that
            nothing large is copied here).
        shares: (R,) float64, above 0, sum 1.
        tolerance: duality gap in nats at which the solver stops.
        max_iterations: maximum number of Newton steps.
        start: (M,) initial proportions (default: equal).

    Returns:
        (M,) proportions, at least 0, sum 1; ``max_m g_m - 1`` for them; steps.
    """
    weights = _start(columns, start)
    best, best_gap, predicted, idle, step = weights, np.inf, np.inf, 0, 0
    while True:
        mixture = weights @ columns
        gradient = columns @ (shares / mixture)
        gap = float(gradient.max()) - 1
        idle = idle + 1 if predicted < _ROUNDING and gap > 0.5 * best_gap else 0
        if gap < best_gap:
            best, best_gap = weights, gap
        if best_gap <= tolerance or step >= max_iterations or idle >= _IDLE_STEPS:
            break
        weights, predicted = _newton_step(columns, shares, weights, mixture, gradient)
        step += 1
    spread = best[:-1] + best[-1] / (len(best) - 1)
    weights, gap = _without_negligible(columns[:-1], shares, spread / spread.sum(), tolerance)
    return weights, gap, step


def _start(columns: Array, start: Array | None) -> Array:
    """Initial weights (M + 1,); the last one is that of the equal blend."""
    weights = np.zeros(len(columns))
    weights[-1] = 1.0
    if start is None:
        return weights
    # Newton steps are slow from entries far below their optimum; a share of the equal blend
    # lifts them.
    starved = bool(((start @ columns[:-1]) < _STARVED * columns[-1]).any())
    weights[-1] = _LIFT if starved else 0.0
    weights[:-1] = (1 - weights[-1]) * start
    return weights


def _without_negligible(
    columns: Array, shares: Array, weights: Array, tolerance: float
) -> tuple[Array, float]:
    """Sets negligible weights to 0 if the gap stays within the tolerance; weights and gap."""
    gap = _gap(columns, shares, weights)
    lean = np.where(weights < _NEGLIGIBLE * weights.max(), 0.0, weights)
    lean /= lean.sum()
    lean_gap = _gap(columns, shares, lean)
    return (lean, lean_gap) if lean_gap <= max(gap, tolerance) else (weights, gap)


def _gap(columns: Array, shares: Array, weights: Array) -> float:
    # Rounding may move the largest gradient slightly below 1; a gap is never negative.
    return max(float((columns @ (shares / (weights @ columns))).max()) - 1, 0.0)


def _newton_step(
    columns: Array, shares: Array, weights: Array, mixture: Array, gradient: Array
) -> tuple[Array, float]:
    """One quadratic subproblem on the working set, and a line search.

    Returns:
        New weights, and the decrease predicted by the subproblem.
    """
    working = _working_set(weights, gradient)
    roots = np.sqrt(shares)
    scaled = columns[working]
    scaled *= roots / mixture
    # Directions sum to 0, so 1 can be subtracted from the gradient; near the optimum this
    # keeps the significant digits.
    excess = gradient[working] - 1
    target = minimise_quadratic(scaled @ scaled.T, excess, weights[working])
    direction = target - weights[working]
    slope = float(excess @ direction)
    size = _step_size(shares, (direction @ scaled) / roots, slope)
    moved = weights.copy()
    # A full step keeps the exact zeros of the subproblem.
    moved[working] = target if size == 1 else weights[working] + size * direction
    np.maximum(moved, 0.0, out=moved)
    stepped: Array = moved / moved.sum()
    return stepped, slope


def _working_set(weights: Array, gradient: Array) -> NDArray[np.intp]:
    """Models with weight, and those without whose gradient is largest."""
    support = np.flatnonzero(weights)
    outside = np.flatnonzero((weights == 0) & (gradient > 1))
    entering = max(_ENTERING, len(support))
    if len(outside) > entering:
        outside = outside[np.argpartition(-gradient[outside], entering)[:entering]]
    return np.sort(np.concatenate([support, outside]))


def _step_size(shares: Array, change: Array, slope: float) -> float:
    """A step with enough decrease, at most 1; ``change`` = P d / P w.

    No entry of the mixture falls below a tenth of its value in one step: far below its
    optimum a Newton step only doubles an entry, so from the clip it would take fifty steps.
    """
    lowest = float(change.min())
    size = 1.0 if lowest >= -_MAX_DECREASE else -_MAX_DECREASE / lowest
    while size > 1e-12:
        # -log1p stays exact for decreases far below the objective's rounding.
        rise = -float(shares @ np.log1p(size * change))
        if rise <= -1e-4 * size * slope + _ROUNDING:
            return size
        size /= 2
    return size
