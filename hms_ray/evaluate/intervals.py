"""Honest estimates: nested by patient, with patient-clustered intervals.

Rows of one patient resemble each other, so whatever is fitted is scored on other
patients than it was fitted on, and every interval treats patients, not rows, as the
independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import (
    Array,
    check_row_weights,
    name_rows,
    row_sums,
)

CONFIDENCE: Final = 0.95
SMALLEST_DIFFERENCE: Final = 1e-9
"""Nats; equal predictions differ by rounding, fitted ones by the certificate's gap."""

Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Interval:
    """A mean over rows with its patient-clustered 95% interval, in nats.

    Attributes:
        mean: mean over rows.
        low: lower end; minus infinity where there is one patient only.
        high: upper end.
        n_rows: rows averaged.
        n_patients: independent draws.
    """

    mean: float
    low: float
    high: float
    n_rows: int
    n_patients: int


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference, first minus second; below 0 the first one is better."""

    @property
    def tie(self) -> bool:
        """Whether the interval contains 0, or the mean cannot be told from it."""
        return self.low <= 0 <= self.high or abs(self.mean) < SMALLEST_DIFFERENCE

    @property
    def verdict(self) -> Verdict:
        """What the first one is, compared with the second."""
        if self.tie:
            return "tie"
        return "better" if self.high < 0 else "worse"


def clustered_interval(rows: ArrayLike, patients: ArrayLike) -> Interval:
    """Mean of row scores with its cluster-robust 95% interval.

    With d_i the scores of n rows, m their mean and G patients,
    ``SE^2 = G / (G - 1) * sum_patients (sum_{i of patient} (d_i - m))^2 / n^2`` and
    the interval is ``m +- t_{G-1, 0.975} SE``: the sandwich variance of a mean with
    clusters of unequal size (Liang and Zeger, Biometrika 73, 1986; t quantile as in
    Cameron and Miller, Journal of Human Resources 50, 2015).

    Args:
        rows: (n,) score of each row.
        patients: (n,) patient of each row.

    Raises:
        PredictionError: without rows, where the two do not fit, or a score is not
            finite.
    """
    scores, sums, sizes = _by_patient(rows, patients)
    mean, n_rows, n_patients = float(scores.mean()), len(scores), len(sizes)
    if n_patients < 2:
        return Interval(mean, -np.inf, np.inf, n_rows, n_patients)
    residuals = sums - mean * sizes
    variance = n_patients / (n_patients - 1) * float(residuals @ residuals) / n_rows**2
    width = float(stats.t.ppf((1 + CONFIDENCE) / 2, n_patients - 1)) * variance**0.5
    return Interval(mean, mean - width, mean + width, n_rows, n_patients)


def paired_difference(first: ArrayLike, second: ArrayLike, patients: ArrayLike) -> Difference:
    """Compares two predictions of the same rows by their row scores.

    Args:
        first: (n,) KL of each row under one.
        second: (n,) KL of each row under the other.
        patients: (n,) patient of each row.

    Returns:
        Mean of first minus second with the interval of ``clustered_interval``.

    Raises:
        PredictionError: as ``clustered_interval``.
    """
    scores = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if scores[0].shape != scores[1].shape:
        raise PredictionError(
            "compared predictions must have the same rows",
            got=f"{scores[0].shape} and {scores[1].shape}",
        )
    interval = clustered_interval(scores[0] - scores[1], patients)
    return Difference(**vars(interval))


def patient_bootstrap(
    rows: ArrayLike, patients: ArrayLike, generator: np.random.Generator, n: int = 2000
) -> Interval:
    """Mean of row scores with the percentile interval of a bootstrap over patients.

    Patients are drawn with replacement; a resample's mean is the ratio of its summed
    scores to its summed rows. No assumption of normality, so it is the check on
    ``clustered_interval`` where patients are few or very unequal.

    Args:
        rows: (n,) score of each row, or difference of two.
        patients: (n,) patient of each row.
        generator: source of the draws.
        n: resamples.

    Raises:
        PredictionError: as ``clustered_interval``.
    """
    scores, sums, sizes = _by_patient(rows, patients)
    mean, n_rows, n_patients = float(scores.mean()), len(scores), len(sizes)
    if n_patients < 2:
        return Interval(mean, -np.inf, np.inf, n_rows, n_patients)
    counts = generator.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n)
    means = (counts @ sums) / (counts @ sizes)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), n_rows, n_patients)


def patient_groups(
    patients: ArrayLike, n_splits: int, seed: int, row_weights: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Deals patients into splits of about the same row weight, at random.

    Patients come in a random order, each to the split with the smallest row weight
    so far, the number of rows deciding between equals. So with two patients that have
    any weight, every split's complement has some; but where few rows have weight,
    splits of the same weight can differ much in their rows.

    Args:
        patients: (n,) patient of each row.
        n_splits: at least 2 and at most the number of patients.
        seed: of the order.
        row_weights: (n,) what is spread first; rows where absent.

    Returns:
        (n,) int64, the split of each row, from 0.

    Raises:
        PredictionError: where there are fewer patients than splits, or the row
            weights do not fit.
    """
    known, number = np.unique(np.asarray(patients), return_inverse=True)
    if not 2 <= n_splits <= len(known):
        raise PredictionError(
            "splits by patient must number from 2 to the number of patients",
            got=f"{n_splits} splits for {len(known)} patients",
        )
    weights = check_row_weights(row_weights, len(number))
    heavy = np.bincount(number, weights=weights, minlength=len(known))
    sizes = np.bincount(number, minlength=len(known))
    loads = [(0.0, 0)] * n_splits
    split = np.empty(len(known), dtype=np.int64)
    for patient in np.random.default_rng(seed).permutation(len(known)):
        lightest = min(range(n_splits), key=loads.__getitem__)
        split[patient] = lightest
        load = loads[lightest]
        loads[lightest] = (load[0] + float(heavy[patient]), load[1] + int(sizes[patient]))
    return split[number]


def model_scores(targets: Array, models: NDArray[np.floating]) -> Array:
    """KL of each model and row, (M, n) float64; nothing is checked."""
    return np.stack([row_sums(targets, model.astype(np.float64)) for model in models])


def _by_patient(rows: ArrayLike, patients: ArrayLike) -> tuple[Array, Array, Array]:
    """Scores (n,), and for each patient the sum of scores and the number of rows."""
    scores = np.asarray(rows, np.float64)
    owners = np.asarray(patients)
    if scores.ndim != 1 or scores.shape != owners.shape:
        raise PredictionError(
            "there must be one score and one patient a row",
            got=f"{scores.shape} and {owners.shape}",
        )
    if not len(scores):
        raise PredictionError("an interval needs rows", got="none")
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        raise PredictionError(
            "row scores must be finite numbers",
            got=str(scores[broken[0]]),
            where=f"{len(broken)} row(s): {name_rows(broken.tolist())}",
        )
    _, number = np.unique(owners, return_inverse=True)
    sums = np.bincount(number, weights=scores).astype(np.float64)
    return scores, sums, np.bincount(number).astype(np.float64)


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
