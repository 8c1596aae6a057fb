"""Exact simplex weights under caps on groups of models and with fixed weights.

The allowed weights C are the simplex cut by linear constraints, so every allowed blend is a
mixture of blends at C's corners. Simplicial decomposition (von Hohenbalken, "Simplicial
decomposition in nonlinear programming algorithms", Mathematical Programming 13, 1977) uses
that: the exact solver finds the best mixture of the corners visited so far, a linear program
finds the corner v with the largest ``g'v``, and v joins them. With the gradient ``g`` as in
``simplex`` and ``g'w = 1``, convexity gives

    ``f(w) - min_C f <= max_{v in C} g'v - 1``,

the duality gap of the constrained problem (Jaggi, "Revisiting Frank-Wolfe", 2013, section 2),
which is the stopping criterion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from hms_ray.ensemble.simplex import TOLERANCE, SimplexFit, mixture_problem
from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array
from hms_ray.text import counted

_MAX_CORNERS: Final = 2000
"""Maximum number of linear programs; 12 models with two caps need about 10."""
_LP_TOLERANCE: Final = 1e-10
"""The smallest that HiGHS accepts; its default of 1e-7 would hide gaps of that size."""
_SAME_CORNER: Final = 1e-9
"""Corners closer than this differ by rounding of the linear program only."""


@dataclass(frozen=True)
class Cap:
    """An upper bound of the summed weight of a group of models.

    Attributes:
        models: positions of the group's models; groups may overlap.
        max_weight: from 0 to 1.
    """

    models: Sequence[int]
    max_weight: float


def constrained_weights(
    targets: Array,
    models: NDArray[np.floating],
    row_weights: Array | None = None,
    *,
    caps: Sequence[Cap] = (),
    fixed: Mapping[int, float] | None = None,
    tolerance: float = TOLERANCE,
) -> SimplexFit:
    """The allowed weights whose blend has the lowest KL divergence; see ``simplex_weights``.

    Args:
        targets: (n, 6) float64 vote shares.
        models: (M, n, 6) predictions of M models on the same rows.
        row_weights: (n,) at least 0, not all 0 (default: equal weights).
        caps: upper bounds of groups of models.
        fixed: position of a model -> its weight, from 0 to 1.
        tolerance: duality gap in nats at which the solver stops.

    Returns:
        The fit; ``gap`` is that of the constrained problem, ``iterations`` counts corners.

    Raises:
        PredictionError: an unknown model, a cap or weight outside of 0-1, or infeasible
            constraints.
    """
    corners = _Corners(len(models), caps, fixed or {})
    shares, columns, entropy = mixture_problem(targets, models, row_weights)
    weights, gap, visited = _decompose(columns[:-1], shares, corners, tolerance)
    loss = -float(shares @ np.log(weights @ columns[:-1]))
    return SimplexFit(weights, loss - entropy, gap, visited)


class _Corners:
    """The linear program over the allowed weights."""

    def __init__(self, n_models: int, caps: Sequence[Cap], fixed: Mapping[int, float]) -> None:
        self._bounds = np.tile([0.0, 1.0], (n_models, 1))
        for model, weight in fixed.items():
            _check(n_models, [model], weight, "a fixed weight")
            self._bounds[model] = weight
        self._groups = np.zeros((len(caps), n_models))
        for number, cap in enumerate(caps):
            _check(n_models, cap.models, cap.max_weight, "a cap")
            self._groups[number, list(cap.models)] = 1.0
        self._most = np.array([cap.max_weight for cap in caps])
        self._n_models = n_models

    def describe(self) -> str:
        """The constraints, for error messages."""
        parts = []
        if len(self._most):
            caps = ", ".join(f"{most:g}" for most in self._most)
            parts.append(f"{counted(len(self._most), 'family limit')} of {caps}")
        if self._bounds[:, 0].any():
            parts.append(f"fixed weights of sum {self._bounds[:, 0].sum():g}")
        return " and ".join(parts)

    def best(self, gradient: Array) -> Array:
        """The corner v (M,) with the largest ``gradient @ v``."""
        # HiGHS's tolerance is absolute: centring and scaling keep small differences between
        # corners above it (the weights' sum is fixed, so the mean does not matter).
        excess = gradient - gradient.mean()
        scale = min(float(np.abs(excess).max()), 1.0)
        lowest, highest = self._bounds.T
        # Fixed weights are subtracted: the solver would lose those below its tolerance.
        found = optimize.linprog(
            -excess / scale if scale else -excess,
            A_ub=self._groups if len(self._groups) else None,
            b_ub=self._most - self._groups @ lowest if len(self._groups) else None,
            A_eq=np.ones((1, self._n_models)),
            b_eq=[1.0 - lowest.sum()],
            bounds=np.column_stack([np.zeros(self._n_models), highest - lowest]),
            method="highs-ds",
            options={
                "primal_feasibility_tolerance": _LP_TOLERANCE,
                "dual_feasibility_tolerance": _LP_TOLERANCE,
            },
        )
        if found.x is None:
            raise PredictionError(
                "infeasible constraints: no weights satisfy these family limits and fixed weights",
                got=self.describe(),
                fix="Raise a --max-family-weight, or reduce the --fixed-weight values.",
            )
        corner: Array = np.clip(lowest + found.x, lowest, highest)
        # Errors within the solver's tolerance would leave the sum off 1 by as much.
        largest = np.argmax(np.where(highest > lowest, found.x, -1.0))
        corner[largest] += 1.0 - corner.sum()
        return corner


def _decompose(
    columns: Array, shares: Array, corners: _Corners, tolerance: float
) -> tuple[Array, float, int]:
    """Weights (M,), their gap, and the number of corners visited."""
    visited = [corners.best(columns @ shares)]
    proportions = np.ones(1)
    while True:
        known = np.stack(visited)
        blends = np.empty((len(visited) + 1, len(shares)))
        np.matmul(known, columns, out=blends[:-1])
        blends[-1] = blends[:-1].mean(axis=0)
        proportions, _, _ = solve_mixture(blends, shares, tolerance / 2, 200, proportions)
        weights = proportions @ known
        gradient = columns @ (shares / (weights @ columns))
        corner = corners.best(gradient)
        gap = max(float(gradient @ (corner - weights)), 0.0)
        if gap <= tolerance or len(visited) >= _MAX_CORNERS or _is_known(corner, known):
            return weights, gap, len(visited)
        visited.append(corner)
        proportions = np.append(proportions, 0.0)


def _is_known(corner: Array, known: Array) -> bool:
    return bool((np.abs(known - corner).max(axis=1) <= _SAME_CORNER).any())


def _check(
    n_models: int, models: Sequence[int] | NDArray[np.intp], value: float, name: str
) -> None:
    outside = [model for model in models if not 0 <= model < n_models]
    if outside:
        raise PredictionError(
            f"{name} must name models from 0 to {n_models - 1}", got=f"model {outside[0]}"
        )
    if not 0 <= value <= 1:
        raise PredictionError(f"{name} must lie between 0 and 1", got=f"{value:g}")
