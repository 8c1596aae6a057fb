"""Exact optima of simplex weights over subsets of models, and paths through subsets.

``f(S)`` is the lowest KL of a blend of the models in S. A larger subset is never worse.
At S's optimum the gradient of a model j outside of S bounds its gain,
``f(S) - f(S + j) <= max(g_j, 1) - 1`` (the duality gap of ``simplex`` on S + j), so an
exact forward step solves only the problems that can still win.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hms_ray.ensemble.methods.base import FitRows
from hms_ray.ensemble.simplex import TOLERANCE, mixture_problem
from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.evaluate.metric import Array

Subset = tuple[int, ...]

_MAX_STEPS: Final = 200


class SubsetOptima:
    """SubsetOptima of subsets of models on the same rows, each solved once.

    Attributes:
        n_models: M.
    """

    def __init__(self, rows: FitRows) -> None:
        self._shares, columns, self._entropy = mixture_problem(
            rows.targets, rows.models, rows.weights
        )
        self._columns = columns[:-1]
        self._known: dict[Subset, tuple[Array, float]] = {}
        self.n_models = len(rows.models)

    def weights(self, members: Subset) -> Array:
        """The best weights (M,), 0 outside of the subset."""
        return self._solved(members)[0]

    def kl(self, members: Subset) -> float:
        """The lowest KL of a blend of the subset, in nats."""
        return self._solved(members)[1]

    def gain_bounds(self, members: Subset) -> Array:
        """Upper bounds (M,) of the KL decrease by adding each model, in nats."""
        mixture = self.weights(members) @ self._columns
        gradient = self._columns @ (self._shares / mixture)
        return np.maximum(gradient - 1, 0.0)

    def _solved(self, members: Subset) -> tuple[Array, float]:
        members = tuple(sorted(members))
        if members not in self._known:
            chosen = self._columns[list(members)]
            columns = np.concatenate([chosen, chosen.mean(axis=0, keepdims=True)])
            found, _, _ = solve_mixture(columns, self._shares, TOLERANCE, _MAX_STEPS)
            weights = np.zeros(self.n_models)
            weights[list(members)] = found
            loss = -float(self._shares @ np.log(found @ chosen))
            self._known[members] = weights, loss - self._entropy
        return self._known[members]


def forward_subsets(optima: SubsetOptima, costs: Array | None = None) -> list[Subset]:
    """Subsets of 1, 2, ..., M models; each adds the model that lowers the KL most.

    Args:
        optima: of the models.
        costs: (M,) above 0; if given, the KL decrease is divided by the model's cost.
    """
    prices = np.ones(optima.n_models) if costs is None else costs
    alone = [optima.kl((model,)) for model in range(optima.n_models)]
    members: Subset = (int(np.argmin(alone)),)
    path = [members]
    while len(members) < optima.n_models:
        members = (*members, _addition(optima, members, prices))
        path.append(members)
    return path


def _addition(optima: SubsetOptima, members: Subset, prices: Array) -> int:
    bounds = optima.gain_bounds(members) / prices
    order: list[int] = np.argsort(-bounds).tolist()
    outside = [model for model in order if model not in members]
    best, best_gain = outside[0], -np.inf
    for model in outside:
        if best_gain >= bounds[model]:
            break
        gain = (optima.kl(members) - optima.kl((*members, model))) / prices[model]
        if gain > best_gain:
            best, best_gain = model, gain
    return best


def backward_subsets(
    optima: SubsetOptima, start: Sequence[int], costs: Array | None = None
) -> list[Subset]:
    """Subsets from ``start`` down to one model; each drops the model that raises the KL least.

    Args:
        optima: of the models.
        start: the first subset.
        costs: (M,) above 0; if given, the KL increase is divided by the model's cost.
    """
    prices = np.ones(optima.n_models) if costs is None else costs
    members: Subset = tuple(sorted(start))
    path = [members]
    while len(members) > 1:
        smaller = [tuple(kept for kept in members if kept != model) for model in members]
        rises = [
            (optima.kl(rest) - optima.kl(members)) / prices[model]
            for rest, model in zip(smaller, members, strict=True)
        ]
        members = smaller[int(np.argmin(rises))]
        path.append(members)
    return path
