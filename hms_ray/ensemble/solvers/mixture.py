"""Maximum-likelihood mixture proportions: the search behind exact blend weights.

Minimises ``-sum_r y_r ln(sum_m w_m A_mr)`` over the simplex, y at least 0 with sum 1 and
A at least 0. What the columns of A are (probabilities of models, of whole blends, or
rows of a penalty) is the caller's matter. Method and certificate: see ``blend``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.ensemble.solvers.quadratic import minimise_quadratic
from hms_ray.evaluate.metric import Array

_ENTERING: Final = 32
"""Models that may join a step at least; the doubling of the support is the other bound."""
_LARGEST_FALL: Final = 0.9
_STARVED: Final = 1e-3
_LIFT: Final = 0.1
_DUST: Final = 1e-7
_ROUNDING: Final = 1e-15
_IDLE_STEPS: Final = 10
"""Steps that promise less than rounding and halve no gap, before the search ends."""


def solve_mixture(
    columns: Array,
    shares: Array,
    tolerance: float,
    max_iterations: int,
    start: Array | None = None,
) -> tuple[Array, float, int]:
    """The proportions, their duality gap, and the Newton steps taken.

    Args:
        columns: (M + 1, R) float64: M columns, then their mean (the caller makes room
            for it, so that nothing large is copied here).
        shares: (R,) float64, above 0, sum 1.
        tolerance: duality gap at which the search stops, in nats.
        max_iterations: bound on Newton steps.
        start: (M,) proportions to start from; equal ones where absent.

    Returns:
        (M,) proportions, at least 0, sum 1; ``max_m g_m - 1`` for them; steps.
    """
    weights = _start(columns, start)
    best, best_gap, promised, idle, step = weights, np.inf, np.inf, 0, 0
    while True:
        mixture = weights @ columns
        gradient = columns @ (shares / mixture)
        gap = float(gradient.max()) - 1
        idle = idle + 1 if promised < _ROUNDING and gap > 0.5 * best_gap else 0
        if gap < best_gap:
            best, best_gap = weights, gap
        if best_gap <= tolerance or step >= max_iterations or idle >= _IDLE_STEPS:
            break
        weights, promised = _newton_step(columns, shares, weights, mixture, gradient)
        step += 1
    spread = best[:-1] + best[-1] / (len(best) - 1)
    weights, gap = _without_dust(columns[:-1], shares, spread / spread.sum(), tolerance)
    return weights, gap, step


def _start(columns: Array, start: Array | None) -> Array:
    """Weights (M + 1,) to start from, the equal blend's last."""
    weights = np.zeros(len(columns))
    weights[-1] = 1.0
    if start is None:
        return weights
    # Entries that the start gives almost nothing are far below their optimum, from
    # where Newton steps are slow; some of the equal blend lifts them.
    starved = bool(((start @ columns[:-1]) < _STARVED * columns[-1]).any())
    weights[-1] = _LIFT if starved else 0.0
    weights[:-1] = (1 - weights[-1]) * start
    return weights


def _without_dust(
    columns: Array, shares: Array, weights: Array, tolerance: float
) -> tuple[Array, float]:
    """Sets the smallest weights to 0 where the certificate allows it; weights and gap."""
    gap = _gap(columns, shares, weights)
    lean = np.where(weights < _DUST * weights.max(), 0.0, weights)
    lean /= lean.sum()
    lean_gap = _gap(columns, shares, lean)
    return (lean, lean_gap) if lean_gap <= max(gap, tolerance) else (weights, gap)


def _gap(columns: Array, shares: Array, weights: Array) -> float:
    # Rounding may take the largest gradient a little below 1; a gap is never negative.
    return max(float((columns @ (shares / (weights @ columns))).max()) - 1, 0.0)


def _newton_step(
    columns: Array, shares: Array, weights: Array, mixture: Array, gradient: Array
) -> tuple[Array, float]:
    """One quadratic subproblem on the models that matter, and a line search.

    Returns:
        New weights, and the decrease that the subproblem promised.
    """
    working = _working_set(weights, gradient)
    roots = np.sqrt(shares)
    scaled = columns[working]
    scaled *= roots / mixture
    # The directions sum to 0, so 1 can be taken from the gradient: near the optimum
    # that leaves the digits that matter.
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
    """Models with weight, and of those without the ones that promise most."""
    support = np.flatnonzero(weights)
    outside = np.flatnonzero((weights == 0) & (gradient > 1))
    entering = max(_ENTERING, len(support))
    if len(outside) > entering:
        outside = outside[np.argpartition(-gradient[outside], entering)[:entering]]
    return np.sort(np.concatenate([support, outside]))


def _step_size(shares: Array, change: Array, slope: float) -> float:
    """A step with enough decrease, at most 1; ``change`` = P d / P w.

    No entry of the mixture falls below a tenth at once: one that a bad early step
    takes to the clip would need fifty doublings to come back, since far below its
    optimum a Newton step only doubles it.
    """
    lowest = float(change.min())
    size = 1.0 if lowest >= -_LARGEST_FALL else -_LARGEST_FALL / lowest
    while size > 1e-12:
        # -log1p is exact where the decrease is far below the objective's rounding.
        rise = -float(shares @ np.log1p(size * change))
        if rise <= -1e-4 * size * slope + _ROUNDING:
            return size
        size /= 2
    return size
