"""Correlation of the errors of models."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.ensemble.methods.base import checked_rows
from hms_ray.evaluate.metric import Array


def residual_correlation(
    targets: ArrayLike, probabilities: ArrayLike, row_weights: ArrayLike | None = None
) -> Array:
    """Correlation of the models' errors; the lower it is, the more a blend gains.

    Pearson's correlation of the residuals ``p - t`` over rows and classes (their sum
    over the classes is 0, so their mean is 0 already).

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) predictions of M models on the same rows.
        row_weights: (n,); see ``Method.fit``.

    Returns:
        (M, M) float64, 1 on the diagonal; 0 elsewhere for a model without errors.

    Raises:
        PredictionError: as ``Method.fit``.
    """
    rows = checked_rows(targets, probabilities, row_weights, None)
    scale = np.sqrt(rows.weights / rows.weights.sum())[:, None]
    products = np.empty((len(rows.models), len(rows.models)))
    residuals = np.stack([(scale * (model - rows.targets)).ravel() for model in rows.models])
    np.matmul(residuals, residuals.T, out=products)
    sizes = np.sqrt(np.diag(products))
    sizes[sizes == 0] = 1.0
    correlation: Array = np.clip(products / np.outer(sizes, sizes), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation
