"""The exact weights against SLSQP and Clarabel, within 1e-6 of the objective."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import cvxpy
import numpy as np
import pytest

from hms_ray.ensemble.simplex import simplex_weights
from tests.slsqp import slsqp_weights

MOST_APART = 1e-6


def by_slsqp(shares: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return slsqp_weights(shares, columns, 1e-15)


def by_clarabel(shares: np.ndarray, columns: np.ndarray) -> np.ndarray:
    weights = cvxpy.Variable(len(columns), nonneg=True)
    loss = -shares @ cvxpy.log(columns.T @ weights)
    problem = cvxpy.Problem(cvxpy.Minimize(loss), [cvxpy.sum(weights) == 1])
    with warnings.catch_warnings():
        # The comparison below checks the accuracy.
        warnings.filterwarnings("ignore", "Solution may be inaccurate")
        problem.solve(solver=cvxpy.CLARABEL)
    return np.asarray(weights.value)


def models_of(kind: str, generator: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    n_models = {"one": 1, "many": 12}.get(kind, 5)
    scores = truth + generator.uniform(0.5, 2, (n_models, 1, 1)) * generator.normal(
        size=(n_models, *truth.shape)
    )
    models = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    if kind == "duplicated":
        models = np.concatenate([models, models[:2]])
    elif kind == "collinear":
        mixed = 0.3 * models[0] + 0.7 * models[1]
        models = np.concatenate([models, mixed[None]])
    elif kind == "zeros":
        models = np.where(models < 0.02, 0.0, models)
        models /= models.sum(axis=2, keepdims=True)
    return models


@pytest.mark.parametrize("solver", [by_slsqp, by_clarabel])
@pytest.mark.parametrize("kind", ["random", "many", "duplicated", "collinear", "zeros", "one"])
@pytest.mark.parametrize("seed", range(2))
def test_no_other_solver_is_lower_or_far(
    solver: Callable[[np.ndarray, np.ndarray], np.ndarray], kind: str, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    truth = 1.5 * generator.normal(size=(150, 6))
    chances = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    votes = generator.multinomial(12, chances)
    targets = votes / 12
    models = models_of(kind, generator, truth)
    entries = np.flatnonzero(targets)
    shares = targets.ravel()[entries] / len(targets)
    columns = np.clip(models, 1e-15, 1 - 1e-15).reshape(len(models), -1)[:, entries]
    fit = simplex_weights(targets, models)
    weights = np.maximum(solver(shares, columns), 0)
    theirs, ours = (
        -float(shares @ np.log(found @ columns)) for found in (weights / weights.sum(), fit.weights)
    )
    assert fit.gap <= 1e-9
    assert ours <= theirs + 1e-9
    assert theirs - ours <= MOST_APART
