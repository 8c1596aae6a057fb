"""Convex quadratic programs over the simplex, by an active-set method.

Small and dense: the subproblem of one Newton step of ``solve_mixture``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from hms_ray.evaluate.metric import Array

_RIDGE: Final = 1e-12
"""Relative to the Hessian's diagonal, which equal models would make singular.

It only damps steps (a proximal term around the current weights), so it does not move the
optimum.
"""


def minimise_quadratic(hessian: Array, gradient: Array, start: Array) -> Array:
    """Minimises ``(q - w)' H (q - w) / 2 - g' (q - w)`` over the simplex, from q = w.

    A primal active-set method: a Newton step on the free entries, cut at the first entry that
    would turn negative, which leaves the set. If none does, the entry of steepest descent
    enters; if there is none, the method stops.

    Args:
        hessian: (m, m) positive semidefinite H; equal rows are allowed.
        gradient: (m,) g, up to a constant.
        start: (m,) w, at least 0.

    Returns:
        (m,) q with the sum of w, at least 0, exactly 0 outside of the active set.
    """
    damped = hessian + _RIDGE * np.diag(np.diag(hessian))
    here = start.copy()
    free = start > 0
    tolerance = 1e-14 * max(1.0, float(np.abs(gradient).max()))
    for _ in range(20 * len(start) + 20):
        slope = gradient - damped @ (here - start)
        move, multiplier = _free_step(damped, slope, free)
        blocked = free & (here + move < 0)
        if blocked.any():
            ratios = here[blocked] / -move[blocked]
            here = np.maximum(here + ratios.min() * move, 0.0)
            leaving = np.flatnonzero(blocked)[ratios <= ratios.min()]
            here[leaving] = 0.0
            free[leaving] = False
            continue
        here = here + move
        ascent = np.where(free, -np.inf, gradient - damped @ (here - start) - multiplier)
        entering = int(np.argmax(ascent))
        if ascent[entering] <= tolerance:
            break
        free[entering] = True
    return here


def _free_step(damped: Array, slope: Array, free: NDArray[np.bool_]) -> tuple[Array, float]:
    """Newton step of the free entries that keeps their sum, and its multiplier."""
    inside = np.flatnonzero(free)
    factor = _factor(damped[np.ix_(inside, inside)])
    sides = np.column_stack([slope[inside], np.ones(len(inside))])
    newton, ones = linalg.cho_solve(factor, sides, check_finite=False).T
    multiplier = float(newton.sum() / ones.sum())
    move = np.zeros(len(slope))
    move[inside] = newton - multiplier * ones
    return move, multiplier


def _factor(matrix: Array) -> tuple[Array, bool]:
    """Cholesky factor; the ridge grows until it exceeds rounding."""
    ridge = 0.0
    while True:
        try:
            factor: tuple[Array, bool] = linalg.cho_factor(
                matrix + ridge * np.diag(np.diag(matrix)), check_finite=False
            )
        except linalg.LinAlgError:
            ridge = max(100 * ridge, _RIDGE)
        else:
            return factor
