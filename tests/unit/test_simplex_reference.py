"""The exact weights against SLSQP and Clarabel, within 1e-6 of the objective."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import cvxpy
import numpy as np
import pytest

from hms_ray.ensemble.simplex import simplex_weights
from tests.ensemble_data import ensemble_sample
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


def variant(kind: str, models: np.ndarray) -> np.ndarray:
    if kind == "duplicated":
        return np.concatenate([models, models[:2]])
    if kind == "collinear":
        return np.concatenate([models, 0.3 * models[:1] + 0.7 * models[1:2]])
    if kind == "zeros":
        models = np.where(models < 0.02, 0.0, models)
        return models / models.sum(axis=2, keepdims=True)
    return models


@pytest.mark.parametrize("solver", [by_slsqp, by_clarabel])
@pytest.mark.parametrize("kind", ["random", "many", "duplicated", "collinear", "zeros", "one"])
@pytest.mark.parametrize("seed", range(2))
def test_no_other_solver_is_lower_or_far(
    solver: Callable[[np.ndarray, np.ndarray], np.ndarray], kind: str, seed: int
) -> None:
    sample = ensemble_sample({"one": 1, "many": 12}.get(kind, 5), n_patients=20, seed=seed)
    targets, models = sample.targets, variant(kind, sample.models)
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
