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
from hms_ray.evaluate.blend import (
    blend_probabilities,
    check_models,
    check_row_weights,
    simplex_weights,
)
from hms_ray.evaluate.metric import Array, check_distributions, name_rows, row_sums

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


@dataclass(frozen=True)
class NestedBlend:
    """A blend whose every row was weighted by other patients' rows.

    Attributes:
        probabilities: (n, 6) float64.
        weights: (S, M) float64, the weights used on each split's rows.
        split: (n,) int64, the split of each row, from 0.
    """

    probabilities: Array
    weights: Array
    split: NDArray[np.int64]


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


def nested_blend(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    n_splits: int = 5,
    seed: int = 0,
    row_weights: ArrayLike | None = None,
) -> NestedBlend:
    """Blends every patient's rows with weights fitted on other patients.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) predictions of M models on the same rows.
        patients: (n,) patient of each row.
        n_splits: splits by patient.
        seed: of the splits.
        row_weights: (n,) weights of the rows in the fits; rows of weight 0 are
            blended all the same.

    Raises:
        PredictionError: as ``simplex_weights`` and ``patient_groups``, and where
            patients are not one a row, or the rows with weight all belong to one.
    """
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    weights = check_row_weights(row_weights, len(checked))
    owners = np.asarray(patients)
    if owners.shape != (len(checked),):
        raise PredictionError(
            f"there must be one patient for each of {len(checked)} rows", got=str(owners.shape)
        )
    split = patient_groups(owners, n_splits, seed, weights)
    fitted = np.empty((n_splits, len(models)))
    blended = np.empty(checked.shape)
    for number in range(n_splits):
        inside, outside = split == number, split != number
        if not weights[outside].any():
            raise PredictionError(
                "weights for a patient must be fitted on other patients' rows",
                got="rows of one patient only",
                fix="Fit on a tier that more patients have rows of.",
            )
        fit = simplex_weights(checked[outside], models[:, outside], weights[outside])
        fitted[number] = fit.weights
        blended[inside] = blend_probabilities(models[:, inside], fit.weights)
    return NestedBlend(blended, fitted, split)


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
