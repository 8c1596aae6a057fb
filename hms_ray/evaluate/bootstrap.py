"""Bootstrap intervals over patients for many scores of the same rows at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.errors import PredictionError
from hms_ray.evaluate.honest import CONFIDENCE, Interval
from hms_ray.evaluate.metric import Array


def patient_bootstraps(
    rows: Array, patients: ArrayLike, generator: np.random.Generator, n: int = 2000
) -> list[Interval]:
    """What ``patient_bootstrap`` gives for each, from one set of resamples.

    Drawing takes most of the time, and the same draws for all make their intervals
    comparable.

    Args:
        rows: (S, n) scores of n rows under each of S predictions.
        patients: (n,) patient of each row.
        generator: source of the draws.
        n: resamples.

    Raises:
        PredictionError: without rows, where the two do not fit, or a score is not
            finite.
    """
    owners = np.asarray(patients)
    if rows.ndim != 2 or rows.shape[1:] != owners.shape or not owners.size:
        raise PredictionError(
            "a bootstrap needs one score and one patient a row",
            got=f"{rows.shape} and {owners.shape}",
        )
    if not np.isfinite(rows).all():
        raise PredictionError("row scores must be finite numbers", got="others")
    _, number = np.unique(owners, return_inverse=True)
    sizes = np.bincount(number).astype(np.float64)
    means, n_patients = rows.mean(axis=1), len(sizes)
    if n_patients < 2:
        return [Interval(float(mean), -np.inf, np.inf, len(owners), 1) for mean in means]
    sums = np.stack([np.bincount(number, weights=scores) for scores in rows], axis=1)
    shares = np.full(n_patients, 1 / n_patients)
    counts = generator.multinomial(n_patients, shares, size=n).astype(np.float64)
    tail = (1 - CONFIDENCE) / 2
    resampled = (counts @ sums) / (counts @ sizes)[:, None]
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return [
        Interval(float(mean), float(below), float(above), len(owners), n_patients)
        for mean, below, above in zip(means, low, high, strict=True)
    ]
