"""How much training alone changes the difference of two trials in a fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hms_ray.config.pruning import PruneConfig
from hms_ray.evaluate.metric import Array
from hms_ray.search.patient_folds import PatientFolds

MIN_USED: int = 10
"""Finished trials that the estimate of training noise uses, as far as there are so many."""


@dataclass(frozen=True)
class Noise:
    """Training noise of the difference of two trials in one fold.

    Attributes:
        tau: its standard deviation, in nats.
        freedom: degrees of freedom behind it.
    """

    tau: float
    freedom: float


def training_noise(sums: Array, patients: PatientFolds, config: PruneConfig) -> Noise:
    """Estimates how much fold-level differences of two trials vary by training alone.

    With D_f the difference of two trials in fold f and K folds, the variance of D_f around
    the two trials' own mean difference is ``tau^2`` plus the sampling variance of the fold's
    patients. Averaged over all pairs of J trials, the first is twice the mean square of the
    interaction of trials and folds, which has ``n = (J - 1)(K - 1)`` degrees of freedom; the
    second is averaged from patient-clustered variances. With the assumed variance as a scaled
    inverse chi-squared prior of ``n0 = tau_trials * (K - 1)`` degrees of freedom,

        tau^2 = (n0 * assumed^2 + n * found) / (n0 + n)

    with n0 + n degrees of freedom, those of the t distribution in ``compare`` (Gelman et al.,
    Bayesian Data Analysis, 3rd edition, sections 2.6 and 3.2).

    Args:
        sums: (J, G) summed scores of finished trials. Of more than 10 the best 10 are used, of
            more than 20 the better half: trials far from the best one vary more than those that
            a decision is about.
        patients: their rows.
        config: assumed noise.
    """
    counted = patients.rows > 0
    n_folds = int(counted.sum())
    prior = Noise(config.tau, float(config.tau_trials * max(n_folds - 1, 1)))
    order = np.argsort(sums.sum(axis=1), kind="stable")[: max(MIN_USED, (len(sums) + 1) // 2)]
    n_trials = len(order)
    if n_trials < 2 or n_folds < 2:
        return prior
    own = sums[order] - sums[order].mean(axis=0)
    means = patients.fold_means(own)[:, counted]
    freedom = (n_trials - 1) * (n_folds - 1)
    interaction = ((means - means.mean(axis=1, keepdims=True)) ** 2).sum() / freedom
    sampling = _fold_variances(own, patients)[:, counted].mean()
    found = max(2 * (interaction - sampling * n_trials / (n_trials - 1)), 0.0)
    total = prior.freedom + freedom
    variance = (prior.freedom * prior.tau**2 + freedom * found) / total
    return Noise(float(variance**0.5), total)


def _fold_variances(sums: Array, patients: PatientFolds) -> Array:
    """(..., K) patient-clustered variance of the mean of each fold; 0 with one patient."""
    means = patients.fold_means(sums)
    residuals = sums - np.nan_to_num(means)[..., patients.folds] * patients.sizes
    squares = patients.fold_sums(residuals**2)
    counts = np.bincount(patients.folds, minlength=patients.n_folds)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = counts / (counts - 1) * squares / patients.rows**2
    return np.where(counts > 1, found, 0.0)
