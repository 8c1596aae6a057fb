"""Exact simplex weights of a blend, with a duality gap that bounds their distance to the best.

With y_i the target shares divided by the sum of row weights and p_im the models'
probabilities (i runs over rows and classes), the blend's loss
``f(w) = -sum_i y_i ln(sum_m w_m p_im)`` is convex over the simplex. With
``g_m = sum_i y_i p_im / (P w)_i``, convexity and ``sum_m w_m g_m = sum_i y_i = 1``
give ``f(w) - min f <= max_m g_m - 1``, the duality gap. Background: maximum-likelihood
mixture proportions (Kim, Carbonetto, Stephens and Anitescu, "A Fast Algorithm for Maximum
Likelihood Estimation of Mixture Proportions Using Sequential Quadratic Programming", 2020).

The solver follows their sequential quadratic programming with an active set, with two
changes: each step uses only models that have weight or a positive gap, and the equal blend
is one more column, so that the first step starts from it without a dense Hessian.

Three models that see the truth with noise, the third hardly at all; their exact weights;
and the estimated out-of-sample KL of the blend:

>>> import numpy as np
>>> from hms_ray.ensemble.methods.registry import named_methods
>>> from hms_ray.ensemble.report import blend_report
>>> from hms_ray.ensemble.simplex import blend_probabilities, simplex_weights
>>> from hms_ray.evaluate.metric import kl_divergence
>>> generator = np.random.default_rng(0)
>>> targets = generator.dirichlet(np.ones(6), size=600)  # (rows, 6) vote shares
>>> noise = generator.dirichlet(np.ones(6), size=(3, 600))
>>> seen = np.array([0.5, 0.4, 0.1])[:, None, None]
>>> models = seen * targets + (1 - seen) * noise  # (models, rows, 6) probabilities
>>> fit = simplex_weights(targets, models)
>>> fit.weights.round(1).tolist(), fit.gap <= 1e-10
([0.7, 0.3, 0.0], True)
>>> blended = blend_probabilities(models, fit.weights)  # (rows, 6)
>>> bool(abs(kl_divergence(targets, blended) - fit.objective) < 1e-12)
True
>>> patients, votes = np.arange(600) // 4, np.full(600, 12)  # (rows,)
>>> methods = named_methods(["equal", "best_single", "simplex", "log_linear"])
>>> report = blend_report(
...     targets, models, ["a", "b", "c"], patients, votes, candidates=methods, n_repeats=1
... )
>>> report.method, report.nested.comparisons[0].verdict
('simplex', 'better')
>>> report.in_sample_scores["kl_10"] < report.nested.scores["kl_10"]
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import CLIP, Array, check_distributions

TOLERANCE: Final = 1e-10
"""Duality gap in nats at which the solver stops; scores differ in the 4th decimal."""
MAX_ITERATIONS: Final = 200
"""Maximum number of Newton steps; 4 to 10 are typical."""

_WEIGHT_SUM_TOLERANCE: Final = 1e-6
"""Allows for weights that were written with seven decimals."""


@dataclass(frozen=True)
class SimplexFit:
    """Blend weights and their duality gap.

    Attributes:
        weights: (M,) float64, at least 0, sum 1; exactly 0 for models that do not help.
        objective: mean KL of the blend over the weighted rows, in nats.
        gap: ``max_m g_m - 1``; the objective is at most this far above the optimum.
        iterations: Newton steps taken.
    """

    weights: Array
    objective: float
    gap: float
    iterations: int


def simplex_weights(
    targets: Array, models: NDArray[np.floating], row_weights: Array | None = None
) -> SimplexFit:
    """The weights on the simplex whose blend has the lowest KL divergence.

    Probabilities are clipped as in the metric, so a probability of 0 for a class with votes
    has a finite cost. Inputs are not checked; ``methods.arithmetic.Simplex`` checks them.

    Args:
        targets: (n, 6) float64 vote shares.
        models: (M, n, 6) predictions of M models on the same rows.
        row_weights: (n,) at least 0, not all 0 (default: equal weights).
    """
    shares, columns, entropy = mixture_problem(targets, models, row_weights)
    weights, gap, iterations = solve_mixture(columns, shares, TOLERANCE, MAX_ITERATIONS)
    loss = -float(shares @ np.log(weights @ columns[:-1]))
    return SimplexFit(weights, loss - entropy, gap, iterations)


def blend_probabilities(probabilities: ArrayLike, weights: ArrayLike) -> Array:
    """The weighted mean of predictions, each clipped as the metric clips it.

    Clipping before mixing makes the blend's score exactly the objective of
    ``simplex_weights``, even if a model gives a class almost 0; sums stay 1 within 1e-14.

    Args:
        probabilities: (M, n, 6).
        weights: (M,) weights that sum to 1.

    Returns:
        (n, 6) float64.
    """
    # Model by model: weights are sparse, and this avoids a float64 copy of all models.
    stack = np.asarray(probabilities)
    blended = np.zeros(stack.shape[1:], dtype=np.float64)
    for model, weight in zip(stack, np.asarray(weights, np.float64), strict=True):
        if weight:
            blended += weight * np.clip(model, CLIP, 1 - CLIP)
    return blended


def check_models(probabilities: ArrayLike, n_rows: int) -> NDArray[np.floating]:
    """The (M, n, 6) predictions, after checking every model's distributions.

    Raises:
        PredictionError: names the model (its position) and the rows.
    """
    models = np.asarray(probabilities)
    if models.ndim != 3 or models.shape[1] != n_rows or not len(models):
        raise PredictionError(
            f"blended predictions must have the shape (models, {n_rows}, 6)",
            got=str(models.shape),
        )
    for number, model in enumerate(models):
        check_distributions(model, f"predictions of model {number}")
    return models


def check_weights(weights: ArrayLike, n_models: int) -> Array:
    """The (M,) weights as float64, after checking that they lie on the simplex.

    Raises:
        PredictionError: another shape, a negative or missing weight, or a sum further than
            1e-6 from 1.
    """
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (n_models,):
        raise PredictionError(
            f"weights must be one number for each of {n_models} models", got=str(checked.shape)
        )
    # NaN fails both comparisons.
    if not (checked.min() >= 0 and abs(checked.sum() - 1) <= _WEIGHT_SUM_TOLERANCE):
        raise PredictionError(
            "weights must be at least 0 and sum to 1",
            got=f"values from {checked.min():g} to {checked.max():g} of sum {checked.sum():g}",
        )
    return checked


def mixture_problem(
    targets: Array, models: NDArray[np.floating], row_weights: Array | None = None
) -> tuple[Array, Array, float]:
    """The arguments of ``solve_mixture``; inputs are not checked.

    Args:
        targets: (n, 6) float64 vote shares.
        models: (M, n, 6) predictions.
        row_weights: (n,) at least 0 (default: equal weights).

    Returns:
        Shares y (R,), columns (M + 1, R) whose last one is the mean of the others, and
        ``sum y ln t``, over the R entries of positive target and row weight.
    """
    if row_weights is None:
        row_weights = np.ones(len(targets))
    chosen = np.flatnonzero(((targets > 0) & (row_weights > 0)[:, None]).ravel())
    shares = (targets * row_weights[:, None]).ravel()[chosen]
    # Sums may differ from 1 within the metric's tolerance, which would blur the gap.
    scale = shares.sum()
    shares = shares / scale
    columns = np.empty((len(models) + 1, len(chosen)))
    for number, model in enumerate(models):
        columns[number] = model.reshape(-1)[chosen]
    np.clip(columns[:-1], CLIP, 1 - CLIP, out=columns[:-1])
    columns[-1] = columns[:-1].mean(axis=0)
    return shares, columns, -float(shares @ np.log(targets.ravel()[chosen]))
