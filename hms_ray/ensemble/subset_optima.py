"""Exact optima of simplex weights over subsets of models, and paths through them.

``f(S)`` is the lowest KL of a blend of the models in S. A larger set is never worse.
At S's optimum the gradient of a model j outside bounds what it can add,
``f(S) - f(S + j) <= max(g_j, 1) - 1`` (the certificate of ``blend`` on S + j), so a
forward step solves only the problems that can still win and is exact all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hms_ray.ensemble.methods.base import Rows
from hms_ray.ensemble.simplex import TOLERANCE, mixture_problem
from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.evaluate.metric import Array

Members = tuple[int, ...]

_MAX_STEPS: Final = 200


class Optima:
    """Optima of subsets of models on the same rows, each solved once.

    Attributes:
        n_models: M.
    """

    def __init__(self, rows: Rows) -> None:
        self._shares, columns, self._entropy = mixture_problem(
            rows.targets, rows.models, rows.weights
        )
        self._columns = columns[:-1]
        self._known: dict[Members, tuple[Array, float]] = {}
        self.n_models = len(rows.models)

    def weights(self, members: Members) -> Array:
        """The (M,) best weights with 0 outside of the members."""
        return self._solved(members)[0]

    def kl(self, members: Members) -> float:
        """The lowest KL of a blend of the members, in nats."""
        return self._solved(members)[1]

    def promises(self, members: Members) -> Array:
        """(M,) bounds of what each further model can take from the KL."""
        mixture = self.weights(members) @ self._columns
        gradient = self._columns @ (self._shares / mixture)
        return np.maximum(gradient - 1, 0.0)

    def _solved(self, members: Members) -> tuple[Array, float]:
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


def forward_sets(optima: Optima, costs: Array | None = None) -> list[Members]:
    """Sets of 1, 2, ..., M models, each with the model more that lowers the KL most.

    Args:
        optima: of the models.
        costs: (M,) above 0; with them the KL that is taken off counts per cost.
    """
    prices = np.ones(optima.n_models) if costs is None else costs
    alone = [optima.kl((model,)) for model in range(optima.n_models)]
    members: Members = (int(np.argmin(alone)),)
    path = [members]
    while len(members) < optima.n_models:
        members = (*members, _addition(optima, members, prices))
        path.append(members)
    return path


def _addition(optima: Optima, members: Members, prices: Array) -> int:
    promised = optima.promises(members) / prices
    order: list[int] = np.argsort(-promised).tolist()
    outside = [model for model in order if model not in members]
    best, best_gain = outside[0], -np.inf
    for model in outside:
        if best_gain >= promised[model]:
            break
        gain = (optima.kl(members) - optima.kl((*members, model))) / prices[model]
        if gain > best_gain:
            best, best_gain = model, gain
    return best


def backward_sets(
    optima: Optima, start: Sequence[int], costs: Array | None = None
) -> list[Members]:
    """Sets from ``start`` down to one model, each without the one that is missed least.

    Args:
        optima: of the models.
        start: members of the first set.
        costs: (M,) above 0; with them the rise of the KL counts per cost saved.
    """
    prices = np.ones(optima.n_models) if costs is None else costs
    members: Members = tuple(sorted(start))
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
