"""Confusion of vote shares: which class is predicted where experts vote for another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.evaluate.metric import Array, check_row_weights, checked_pair


@dataclass(frozen=True)
class Confusion:
    """Mean predicted shares by the class that experts voted for.

    Attributes:
        shares: (6, 6) mean predicted share of each class (columns), weighted by the true share
            of a class (rows); each row sums to 1, or is NaN if nobody voted for its class.
        ideal: (6, 6) the same for predictions equal to the vote shares. It is not the identity,
            because experts disagree; a row of ``shares`` is to be compared with its row here.
        weights: (6,) summed true share of each class, in rows.
    """

    shares: Array
    ideal: Array
    weights: Array


def share_confusion(
    targets: ArrayLike, probabilities: ArrayLike, row_weights: ArrayLike | None = None
) -> Confusion:
    """The confusion of vote shares, ``sum_i w_i t_ik p_ij / sum_i w_i t_ik``.

    With votes for one class per row and predictions of one class, it is the confusion matrix
    normalised by its rows.

    Args:
        targets: (n, 6) vote shares t.
        probabilities: (n, 6) predictions p.
        row_weights: (n,) weights w (default: 1).

    Raises:
        PredictionError: targets or predictions are not distributions, or shapes differ.
    """
    true, predicted = checked_pair(targets, probabilities)
    weighted = true * check_row_weights(row_weights, len(true))[:, None]
    sums = weighted.sum(axis=0)
    with np.errstate(invalid="ignore"):
        shares, ideal = (weighted.T @ one / sums[:, None] for one in (predicted, true))
    return Confusion(shares, ideal, sums)
