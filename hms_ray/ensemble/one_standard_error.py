"""The one-standard-error rule: the simplest candidate that is not clearly worse than the best.

Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984, section
3.4.3, with the standard error of the paired difference instead of that of one loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hms_ray.evaluate.intervals import CONFIDENCE, Difference, Interval, paired_difference
from hms_ray.evaluate.metric import Array


def simplest_within_one_se(
    scores: Array, patients: NDArray[Any]
) -> tuple[int, int, tuple[Difference, ...]]:
    """Positions of the best and of the chosen candidate, and all differences to the best.

    Args:
        scores: (C, n) KL of each candidate and row, simplest candidate first.
        patients: (n,) patient of each row.
    """
    best = int(np.argmin(scores.mean(axis=1)))
    differences = tuple(paired_difference(row, scores[best], patients) for row in scores)
    chosen = next(
        number
        for number, difference in enumerate(differences)
        if difference.mean <= standard_error(difference)
    )
    return best, chosen, differences


def standard_error(interval: Interval) -> float:
    """The patient-clustered standard error behind an interval of at least two patients."""
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, interval.n_patients - 1)
    return (interval.high - interval.mean) / float(quantile)
