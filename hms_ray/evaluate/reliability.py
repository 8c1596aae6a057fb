"""Reliability of predicted shares by class, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.competition.schema import N_CLASSES
from hms_ray.evaluate.metric import Array, checked_pair

N_BINS: Final = 10


@dataclass(frozen=True)
class Reliability:
    """Predicted and true shares in B bins of the predicted share, for each class.

    Attributes:
        edges: (B + 1,) of the bins; a bin has its lower edge, the last one both.
        counts: (6, B) rows.
        predicted: (6, B) mean predicted share; NaN without rows.
        true: (6, B) mean share of the votes; NaN without rows.
        ece: (6,) expected calibration error of each class, from 0 to 1.
    """

    edges: Array
    counts: NDArray[np.int64]
    predicted: Array
    true: Array
    ece: Array

    @property
    def mean_ece(self) -> float:
        """Mean over the classes."""
        return float(self.ece.mean())


def reliability(targets: ArrayLike, probabilities: ArrayLike, n_bins: int = N_BINS) -> Reliability:
    """Compares predicted shares with the votes in bins of equal width.

    The expected calibration error of a class is ``sum_b n_b / n |predicted_b - true_b|`` (Naeini
    et al., AAAI 2015), for each class as in Kull et al. (NeurIPS 2019, classwise ECE), here with
    shares of votes in place of labels. Bins hide errors of opposite sign within them, and rows
    with few votes are noisy, so its value is above 0 for a perfect model too.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (n, 6) predictions.
        n_bins: B, at least 1.

    Raises:
        PredictionError: targets or predictions are not distributions, or shapes differ.
    """
    true, predicted = checked_pair(targets, probabilities)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bins = np.clip(np.digitize(predicted, edges[1:-1]), 0, n_bins - 1)
    cells = (bins + n_bins * np.arange(N_CLASSES)).ravel()

    def summed(values: Array | None) -> Array:
        weights = None if values is None else values.ravel()
        found = np.bincount(cells, weights=weights, minlength=N_CLASSES * n_bins)
        return found.reshape(N_CLASSES, n_bins).astype(np.float64)

    counts, sums, hits = summed(None), summed(predicted), summed(true)
    with np.errstate(invalid="ignore"):
        means, shares = sums / counts, hits / counts
    ece: Array = np.abs(sums - hits).sum(axis=1) / len(true)
    return Reliability(edges, counts.astype(np.int64), means, shares, ece)
