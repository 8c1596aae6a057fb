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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import CLIP, Array, check_distributions
from hms_ray.evaluate.quadratic import minimise_quadratic

TOLERANCE: Final = 1e-10
"""Duality gap, in nats, at which the search stops; scores differ in the 4th decimal."""

_ENTERING: Final = 32
"""Models that may join a step at least; the doubling of the support is the other bound."""
_LARGEST_FALL: Final = 0.9
_DUST: Final = 1e-7
_ROUNDING: Final = 1e-15
_IDLE_STEPS: Final = 10
"""Steps that promise less than rounding and halve no gap, before the search ends."""


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
    max_iterations: int = 200,
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

    Raises:
        PredictionError: where a side is no distribution (naming the model), the
            shapes differ, or the row weights are invalid.
    """
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    shares, columns, entropy = _problem(
        checked, models, check_row_weights(row_weights, len(checked))
    )
    weights, gap, iterations = _solve(columns, shares, tolerance, max_iterations)
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


def check_row_weights(row_weights: ArrayLike | None, n_rows: int) -> Array:
    """The (n,) row weights as float64, ones where absent, after checking them.

    Raises:
        PredictionError: as ``simplex_weights``.
    """
    if row_weights is None:
        return np.ones(n_rows)
    weights = np.asarray(row_weights, dtype=np.float64)
    if weights.shape != (n_rows,):
        raise PredictionError(
            f"row weights must be one number for each of {n_rows} rows", got=str(weights.shape)
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise PredictionError(
            "row weights must be finite, at least 0 and not all 0",
            got=f"values from {weights.min():g} to {weights.max():g}",
            fix="Fit on a tier that has rows.",
        )
    return weights


def _problem(
    targets: Array, models: NDArray[np.floating], row_weights: Array
) -> tuple[Array, Array, float]:
    """Shares y (R,), columns (M + 1, R), and sum y ln t, over the entries that count.

    The last column is the mean of the others.
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


def _solve(
    columns: Array, shares: Array, tolerance: float, max_iterations: int
) -> tuple[Array, float, int]:
    """Weights (M,) without the equal blend, their gap, and the steps taken."""
    weights = np.zeros(len(columns))
    weights[-1] = 1.0
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
