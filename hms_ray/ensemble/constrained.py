"""Exact simplex weights under caps of groups and with weights that are fixed.

The allowed weights C are the simplex cut by linear constraints, so every allowed blend
is a mixture of blends at C's corners. Simplicial decomposition (von Hohenbalken,
"Simplicial decomposition in nonlinear programming algorithms", Mathematical
Programming 13, 1977) uses that: the exact search finds the best mixture of the corners
met so far, a linear program finds the corner v that the gradient g promises most, and
v joins them. With ``g`` as in ``blend`` and ``g'w = 1``, convexity gives

    ``f(w) - min_C f <= max_{v in C} g'v - 1``,

the duality gap of the constrained problem (Jaggi, "Revisiting Frank-Wolfe", 2013,
section 2), at which the search stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from hms_ray.ensemble.simplex import TOLERANCE, SimplexFit, check_models, mixture_problem
from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array, check_distributions, check_row_weights
from hms_ray.text import counted

_MAX_CORNERS: Final = 2000
"""Linear programs solved at most; twelve models with two caps take about ten."""
_LEAST_TOLERANCE: Final = 1e-10
"""HiGHS takes no smaller one; its usual 1e-7 would hide gaps of as much."""
_NO_CORNER: Final = 1e-9
"""A promise so close to that of known corners is rounding of the linear program."""


@dataclass(frozen=True)
class Cap:
    """The models of a group weigh at most so much together.

    Attributes:
        models: positions of the group's models; groups may overlap.
        most: from 0 to 1.
    """

    models: Sequence[int]
    most: float


def constrained_weights(
    targets: ArrayLike,
    probabilities: ArrayLike,
    row_weights: ArrayLike | None = None,
    *,
    caps: Sequence[Cap] = (),
    fixed: Mapping[int, float] | None = None,
    tolerance: float = TOLERANCE,
) -> SimplexFit:
    """The allowed weights whose blend has the lowest KL divergence.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) predictions of M models on the same rows.
        row_weights: (n,) as in ``simplex_weights``.
        caps: groups and the most that each may weigh.
        fixed: position of a model -> its weight, from 0 to 1.
        tolerance: duality gap at which the search stops, in nats.

    Returns:
        ``gap`` is that of the constrained problem; ``iterations`` counts corners.

    Raises:
        PredictionError: as ``simplex_weights``, for a model that is not there, a cap
            or weight outside 0-1, and where no weights meet all constraints.
    """
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    corners = _Corners(len(models), caps, fixed or {})
    shares, columns, entropy = mixture_problem(
        checked, models, check_row_weights(row_weights, len(checked))
    )
    weights, gap, met = _decompose(columns[:-1], shares, corners, tolerance)
    loss = -float(shares @ np.log(weights @ columns[:-1]))
    return SimplexFit(weights, loss - entropy, gap, met)


class _Corners:
    """The linear program over the allowed weights, checked once."""

    def __init__(self, n_models: int, caps: Sequence[Cap], fixed: Mapping[int, float]) -> None:
        self._bounds = np.tile([0.0, 1.0], (n_models, 1))
        for model, weight in fixed.items():
            _check(n_models, [model], weight, "a fixed weight")
            self._bounds[model] = weight
        self._groups = np.zeros((len(caps), n_models))
        for number, cap in enumerate(caps):
            _check(n_models, cap.models, cap.most, "a cap")
            self._groups[number, list(cap.models)] = 1.0
        self._most = np.array([cap.most for cap in caps])
        self._n_models = n_models

    def told(self) -> str:
        """The constraints in words."""
        parts = []
        if len(self._most):
            caps = ", ".join(f"{most:g}" for most in self._most)
            parts.append(f"{counted(len(self._most), 'cap')} of {caps}")
        if self._bounds[:, 0].any():
            parts.append(f"fixed weights of sum {self._bounds[:, 0].sum():g}")
        return " and ".join(parts)

    def best(self, promise: Array) -> Array:
        """The (M,) corner v with the largest ``promise @ v``."""
        # The solver's tolerance is absolute, and the weights' sum is known, so neither the
        # promises' common part nor their scale may cover what tells corners apart.
        excess = promise - promise.mean()
        scale = min(float(np.abs(excess).max()), 1.0)
        lowest, highest = self._bounds.T
        # Fixed weights are taken out: the solver would lose those below its tolerance.
        found = optimize.linprog(
            -excess / scale if scale else -excess,
            A_ub=self._groups if len(self._groups) else None,
            b_ub=self._most - self._groups @ lowest if len(self._groups) else None,
            A_eq=np.ones((1, self._n_models)),
            b_eq=[1.0 - lowest.sum()],
            bounds=np.column_stack([np.zeros(self._n_models), highest - lowest]),
            method="highs-ds",
            options={
                "primal_feasibility_tolerance": _LEAST_TOLERANCE,
                "dual_feasibility_tolerance": _LEAST_TOLERANCE,
            },
        )
        if found.x is None:
            raise PredictionError(
                "some weights must meet all caps and fixed weights",
                got=f"{self.told()}, which no weights of sum 1 meet",
                fix="Raise a cap or fix less.",
            )
        corner: Array = np.clip(lowest + found.x, lowest, highest)
        # What is within the solver's tolerance would leave the sum off 1 by as much.
        largest = np.argmax(np.where(highest > lowest, found.x, -1.0))
        corner[largest] += 1.0 - corner.sum()
        return corner


def _decompose(
    columns: Array, shares: Array, corners: _Corners, tolerance: float
) -> tuple[Array, float, int]:
    """Weights (M,), their gap, and the corners met."""
    met = [corners.best(columns @ shares)]
    proportions = np.ones(1)
    while True:
        known = np.stack(met)
        blends = np.empty((len(met) + 1, len(shares)))
        np.matmul(known, columns, out=blends[:-1])
        blends[-1] = blends[:-1].mean(axis=0)
        proportions, _, _ = solve_mixture(blends, shares, tolerance / 2, 200, proportions)
        weights = proportions @ known
        promise = columns @ (shares / (weights @ columns))
        corner = corners.best(promise)
        gap = max(float(promise @ (corner - weights)), 0.0)
        if gap <= tolerance or len(met) >= _MAX_CORNERS or _is_known(corner, known):
            return weights, gap, len(met)
        met.append(corner)
        proportions = np.append(proportions, 0.0)


def _is_known(corner: Array, known: Array) -> bool:
    return bool((np.abs(known - corner).max(axis=1) <= _NO_CORNER).any())


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
