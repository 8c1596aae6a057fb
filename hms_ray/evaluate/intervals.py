"""Patient-clustered confidence intervals, and splits by patient.

Rows of one patient are correlated, so intervals treat patients, not rows, as independent
draws, and splits keep the rows of a patient together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import OBJECTIVES, Array, check_row_weights
from hms_ray.text import shortened_list

CONFIDENCE: Final = 0.95
SMALLEST_DIFFERENCE: Final = 1e-9
"""Nats; below it is a tie: equal predictions differ by rounding, fits by their duality gap."""

Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Interval:
    """A mean over rows with its patient-clustered 95% interval, in nats.

    Attributes:
        mean: mean over rows.
        low: lower end; minus infinity if there is only one patient.
        high: upper end.
        n_rows: rows averaged.
        n_patients: independent draws.
    """

    mean: float
    low: float
    high: float
    n_rows: int
    n_patients: int

    @property
    def standard_error(self) -> float:
        """The standard error behind the interval of ``clustered_interval``."""
        return (self.high - self.mean) / _quantile(self.n_patients)

    def to_json(self) -> dict[str, Any]:
        """Mean and ends; None for infinity."""
        ends = {"low": self.low, "high": self.high}
        return {
            "mean": self.mean,
            **{name: end if np.isfinite(end) else None for name, end in ends.items()},
        }


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference, first minus second; below 0 the first one is better."""

    @property
    def tie(self) -> bool:
        """Whether the interval contains 0, or the mean is below ``SMALLEST_DIFFERENCE``."""
        return self.low <= 0 <= self.high or abs(self.mean) < SMALLEST_DIFFERENCE

    @property
    def verdict(self) -> Verdict:
        """Whether the first one is better or worse than the second, or a tie."""
        if self.tie:
            return "tie"
        return "better" if self.high < 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """As ``Interval.to_json``, and the verdict."""
        return {**super().to_json(), "verdict": self.verdict}


@dataclass(frozen=True)
class PatientSums:
    """Row scores of S predictions summed by patient: all that a clustered interval needs.

    Attributes:
        sums: (S, G) summed scores of G patients.
        sizes: (G,) rows of each patient.
    """

    sums: Array
    sizes: Array

    @property
    def means(self) -> Array:
        """(S,) mean score over rows."""
        means: Array = self.sums.sum(axis=1) / self.sizes.sum()
        return means

    def intervals(self) -> list[Interval]:
        """One interval per prediction; see ``clustered_interval``."""
        n_rows, n_patients = int(self.sizes.sum()), len(self.sizes)
        means = self.means
        if n_patients < 2:
            widths = np.full(len(means), np.inf)
        else:
            residuals = self.sums - means[:, None] * self.sizes
            squares = np.einsum("sg,sg->s", residuals, residuals)
            variances = n_patients / (n_patients - 1) * squares / n_rows**2
            widths = _quantile(n_patients) * variances**0.5
        return [
            Interval(mean, mean - width, mean + width, n_rows, n_patients)
            for mean, width in zip(means.tolist(), widths.tolist(), strict=True)
        ]

    def minus(self, number: int) -> list[Difference]:
        """Each prediction's paired difference to one of them."""
        differences = PatientSums(self.sums - self.sums[number], self.sizes)
        return [Difference(**vars(interval)) for interval in differences.intervals()]


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
        PredictionError: there are no rows, lengths differ, or a score is not finite.
    """
    scores = np.asarray(rows, np.float64)
    return sum_by_patient(scores[None], patients).intervals()[0]


def _quantile(n_patients: int) -> float:
    return t_quantile(n_patients - 1)


def t_quantile(degrees: float, probability: float = (1 + CONFIDENCE) / 2) -> float:
    """Quantile of Student's t distribution with these degrees of freedom."""
    # scipy.stats has the same, but takes most of the time that a short command needs.
    return float(stdtrit(degrees, probability))


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


def independent_difference(first: Interval, second: Interval) -> Difference:
    """Compares the means of two groups of patients that share none.

    The variance is the sum of both, the degrees of freedom are those of Welch and
    Satterthwaite (Welch, Biometrika 34, 1947), each group with G - 1.

    Returns:
        First minus second with its 95% interval; infinite if a group has one patient.
    """
    mean = first.mean - second.mean
    counts = first.n_rows + second.n_rows, first.n_patients + second.n_patients
    if min(first.n_patients, second.n_patients) < 2:
        return Difference(mean, -np.inf, np.inf, *counts)
    variances = [one.standard_error**2 for one in (first, second)]
    total = sum(variances)
    if total == 0:
        return Difference(mean, mean, mean, *counts)
    parts = [
        variance**2 / (one.n_patients - 1)
        for variance, one in zip(variances, (first, second), strict=True)
    ]
    width = t_quantile(total**2 / sum(parts)) * total**0.5
    return Difference(mean, mean - width, mean + width, *counts)


def intervals_by_objective(
    rows: ArrayLike, total_votes: ArrayLike, patients: ArrayLike
) -> dict[str, Interval | None]:
    """``clustered_interval`` on the rows of each objective; None without rows.

    Args:
        rows: (n,) score of each row.
        total_votes: (n,) votes of each row.
        patients: (n,) patient of each row.
    """
    scores, owners, votes = np.asarray(rows), np.asarray(patients), np.asarray(total_votes)
    chosen = {name: votes >= fewest for name, fewest in OBJECTIVES.items()}
    return {
        name: clustered_interval(scores[which], owners[which]) if which.any() else None
        for name, which in chosen.items()
    }


def patient_bootstrap(
    rows: ArrayLike, patients: ArrayLike, generator: np.random.Generator, n: int = 2000
) -> list[Interval]:
    """Means of row scores with percentile intervals of a bootstrap over patients.

    Patients are drawn with replacement; a resample's mean is its summed scores divided by
    its number of rows. It assumes no normal distribution and so checks ``clustered_interval``
    if patients are few or very unequal. All S predictions share the resamples.

    Args:
        rows: (S, n) scores of n rows under S predictions, or differences of scores.
        patients: (n,) patient of each row.
        generator: source of the draws.
        n: number of resamples.

    Returns:
        One interval per prediction; from minus to plus infinity if there is one patient.

    Raises:
        PredictionError: as ``clustered_interval``.
    """
    scores = np.asarray(rows, np.float64)
    found = sum_by_patient(scores, patients)
    sums, sizes, means = found.sums, found.sizes, found.means
    n_rows, n_patients = scores.shape[1], len(sizes)
    if n_patients < 2:
        return [Interval(float(mean), -np.inf, np.inf, n_rows, 1) for mean in means]
    counts = patient_counts(n_patients, generator, n)
    tail = (1 - CONFIDENCE) / 2
    resampled = (counts @ sums.T) / (counts @ sizes)[:, None]
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return [
        Interval(float(mean), float(below), float(above), n_rows, n_patients)
        for mean, below, above in zip(means, low, high, strict=True)
    ]


def patient_counts(n_patients: int, generator: np.random.Generator, n: int) -> Array:
    """(n, G) how often each of G patients is drawn in each of n resamples with replacement."""
    shares = np.full(n_patients, 1 / n_patients)
    counts: Array = generator.multinomial(n_patients, shares, size=n).astype(np.float64)
    return counts


def patient_groups(
    patients: ArrayLike, n_splits: int, seed: int, row_weights: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Assigns patients to splits of about equal row weight, at random.

    In a random order, each patient joins the split with the smallest row weight so far,
    then with the fewest rows. If at least two patients have weight, the complement of every
    split has some. If few rows have weight, splits may differ much in their rows.

    Args:
        patients: (n,) patient of each row.
        n_splits: at least 2 and at most the number of patients.
        seed: of the order.
        row_weights: (n,) weights to balance (default: number of rows).

    Returns:
        (n,) int64, the split of each row, from 0.

    Raises:
        PredictionError: more splits than patients, or invalid row weights.
    """
    known, number = np.unique(np.asarray(patients), return_inverse=True)
    if not 2 <= n_splits <= len(known):
        raise PredictionError(
            "the number of splits must be from 2 to the number of patients",
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


def sum_by_patient(rows: ArrayLike, patients: ArrayLike) -> PatientSums:
    """Row scores summed by patient, patients in sorted order.

    Args:
        rows: (S, n) scores of n rows under S predictions.
        patients: (n,) patient of each row.

    Raises:
        PredictionError: there are no rows, lengths differ, or a score is not finite.
    """
    scores, owners = np.asarray(rows, np.float64), np.asarray(patients)
    if scores.ndim != 2 or scores.shape[1:] != owners.shape:
        raise PredictionError(
            "there must be one score and one patient for each row",
            got=f"{scores.shape[1:]} and {owners.shape}",
        )
    if not owners.size:
        raise PredictionError("an interval needs rows", got="none")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=0))
    if len(broken):
        first = scores[:, broken[0]]
        raise PredictionError(
            "row scores must be finite numbers",
            got=str(first[~np.isfinite(first)][0]),
            where=f"{len(broken)} row(s): {shortened_list(broken.tolist())}",
        )
    _, number = np.unique(owners, return_inverse=True)
    sums = np.stack([np.bincount(number, weights=one) for one in scores])
    return PatientSums(sums.astype(np.float64), np.bincount(number).astype(np.float64))
