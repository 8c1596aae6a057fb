"""The exact best blend: simplex weights with a certificate.

With y_i the target shares divided by the sum of row weights and p_im the models'
probabilities (i runs over rows and classes), the blend's loss
``f(w) = -sum_i y_i ln(sum_m w_m p_im)`` is convex over the simplex. With
``g_m = sum_i y_i p_im / (P w)_i``, convexity and ``sum_m w_m g_m = sum_i y_i = 1``
give ``f(w) - min f <= max_m g_m - 1``: any weights carry a certificate of how far
they can be from the best. Background: maximum-likelihood mixture proportions, Kim,
Carbonetto, Stephens and Anitescu, "A Fast Algorithm for Maximum Likelihood
Estimation of Mixture Proportions Using Sequential Quadratic Programming" (2020).

The method here is their idea, sequential quadratic programming with an active set,
with two changes: each step looks only at the models that carry weight or that the
certificate says should, and the equal blend stands among the models as one more
column, so that the first step starts from it without a dense Hessian.

Arrays are all that it needs. Three models that see the truth through noise, the third
one hardly; what their blend is worth on other patients; and which pool to take:

>>> import numpy as np
>>> from hms_ray.ensemble.simplex import blend_probabilities, simplex_weights
>>> from hms_ray.ensemble.selection import choose_pool
>>> from hms_ray.ensemble.cross_validation import nested_blend
>>> from hms_ray.evaluate.intervals import paired_difference
>>> from hms_ray.evaluate.metric import kl_divergence, kl_rows
>>> from hms_ray.ensemble.methods.registry import named_pools
>>> generator = np.random.default_rng(0)
>>> targets = generator.dirichlet(np.ones(6), size=600)  # (rows, 6) vote shares
>>> noise = generator.dirichlet(np.ones(6), size=(3, 600))
>>> seen = np.array([0.5, 0.4, 0.1])[:, None, None]
>>> models = seen * targets + (1 - seen) * noise  # (models, rows, 6) probabilities
>>> patients = np.arange(600) // 4  # (rows,)
>>> fit = simplex_weights(targets, models)
>>> fit.weights.round(1).tolist(), fit.gap <= 1e-10
([0.7, 0.3, 0.0], True)
>>> blended = blend_probabilities(models, fit.weights)  # (rows, 6)
>>> bool(abs(kl_divergence(targets, blended) - fit.objective) < 1e-12)
True
>>> nested = nested_blend(targets, models, patients).probabilities
>>> paired_difference(kl_rows(targets, nested), kl_rows(targets, models[0]), patients).verdict
'better'
>>> pools = named_pools(["equal", "simplex", "log_linear"])
>>> choice = choose_pool(targets, models, patients, np.full(600, 12), pools, seeds=[0])
>>> [rated.name for rated in choice.rated], choice.name in ("equal", "simplex", "log_linear")
(['equal', 'simplex', 'log_linear'], True)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.ensemble.solvers.mixture import solve_mixture
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import CLIP, Array, check_distributions, check_row_weights

TOLERANCE: Final = 1e-10
"""Duality gap, in nats, at which the search stops; scores differ in the 4th decimal."""
MAX_ITERATIONS: Final = 200
"""Bound on Newton steps; four to ten are usual."""

_WEIGHT_SUM_TOLERANCE: Final = 1e-6
"""Weights may have been written down with seven decimals."""


@dataclass(frozen=True)
class SimplexFit:
    """Blend weights and how good they are.

    Attributes:
        weights: (M,) float64, at least 0, sum 1; a model without worth has exactly 0.
        objective: mean KL of the blend over the weighted rows, in nats.
        gap: ``max_m g_m - 1``: the objective is at most this far above the optimum.
        iterations: Newton steps taken.
    """

    weights: Array
    objective: float
    gap: float
    iterations: int


def simplex_weights(
    targets: ArrayLike,
    probabilities: ArrayLike,
    row_weights: ArrayLike | None = None,
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
    start: ArrayLike | None = None,
) -> SimplexFit:
    """The weights on the simplex whose blend has the lowest KL divergence.

    Probabilities are clipped as the metric clips them, so a model that gives 0 to a
    class that has votes costs what the metric says and not infinity.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) predictions of M models on the same rows.
        row_weights: (n,) weights of the rows, at least 0 and not all 0; a mask of
            booleans picks rows. All rows count the same where absent.
        tolerance: duality gap at which the search stops, in nats.
        max_iterations: bound on Newton steps; the result carries the gap reached.
        start: (M,) weights to start from, at least 0 and sum 1, such as those of a
            similar problem; they change the steps taken, not what is reached.

    Raises:
        PredictionError: where a side is no distribution (naming the model), the
            shapes differ, or the row weights or the start are invalid.
    """
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    counted = check_row_weights(row_weights, len(checked))
    begin = None if start is None else check_weights(start, len(models), "the start")
    return solved_weights(checked, models, counted, tolerance, max_iterations, begin)


def solved_weights(
    targets: Array,
    models: NDArray[np.floating],
    row_weights: Array,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
    start: Array | None = None,
) -> SimplexFit:
    """As ``simplex_weights``; nothing is checked."""
    shares, columns, entropy = mixture_problem(targets, models, row_weights)
    weights, gap, iterations = solve_mixture(columns, shares, tolerance, max_iterations, start)
    loss = -float(shares @ np.log(weights @ columns[:-1]))
    return SimplexFit(weights, loss - entropy, gap, iterations)


def blend_probabilities(probabilities: ArrayLike, weights: ArrayLike) -> Array:
    """The weighted mean of predictions, each clipped as the metric clips it.

    Clipping before mixing makes the score of the blend exactly what ``simplex_weights``
    minimises, also where models give almost 0 to a class; the sums stay 1 to 1e-14.

    Args:
        probabilities: (M, n, 6).
        weights: (M,) weights that sum to 1.

    Returns:
        (n, 6) float64.
    """
    # Model by model: the weights are sparse, and no float64 copy of all is made.
    stack = np.asarray(probabilities)
    blended = np.zeros(stack.shape[1:], dtype=np.float64)
    for model, weight in zip(stack, np.asarray(weights, np.float64), strict=True):
        if weight:
            blended += weight * np.clip(model, CLIP, 1 - CLIP)
    return blended


def check_models(probabilities: ArrayLike, n_rows: int) -> NDArray[np.floating]:
    """The (M, n, 6) predictions, after checking every model's distributions.

    Raises:
        PredictionError: naming the model (its position) and the rows.
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


def check_weights(weights: ArrayLike, n_models: int, name: str = "weights") -> Array:
    """The (M,) weights as float64, after checking that they lie on the simplex.

    Raises:
        PredictionError: for another shape, a negative or missing weight, or a sum
            further than 1e-6 from 1.
    """
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (n_models,):
        raise PredictionError(
            f"{name} must be one number for each of {n_models} models", got=str(checked.shape)
        )
    # NaN fails both comparisons.
    if not (checked.min() >= 0 and abs(checked.sum() - 1) <= _WEIGHT_SUM_TOLERANCE):
        raise PredictionError(
            f"{name} must be at least 0 and sum to 1",
            got=f"values from {checked.min():g} to {checked.max():g} of sum {checked.sum():g}",
        )
    return checked


def mixture_problem(
    targets: Array, models: NDArray[np.floating], row_weights: Array
) -> tuple[Array, Array, float]:
    """What ``solve_mixture`` takes; nothing is checked.

    Args:
        targets: (n, 6) float64 vote shares.
        models: (M, n, 6) predictions.
        row_weights: (n,) float64.

    Returns:
        Shares y (R,), columns (M + 1, R) of which the last is the mean of the others,
        and sum y ln t, over the R entries that count.
    """
    chosen = np.flatnonzero(((targets > 0) & (row_weights > 0)[:, None]).ravel())
    shares = (targets * row_weights[:, None]).ravel()[chosen]
    # Sums within the metric's tolerance of 1 must not blur the certificate.
    scale = shares.sum()
    shares = shares / scale
    columns = np.empty((len(models) + 1, len(chosen)))
    for number, model in enumerate(models):
        columns[number] = model.reshape(-1)[chosen]
    np.clip(columns[:-1], CLIP, 1 - CLIP, out=columns[:-1])
    columns[-1] = columns[:-1].mean(axis=0)
    return shares, columns, -float(shares @ np.log(targets.ravel()[chosen]))
