"""When to stop a trial between folds: the rules, arrays in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from hms_ray.config.pruning import PruneConfig
from hms_ray.evaluate.metric import Array
from hms_ray.search.patient_folds import PatientFolds
from hms_ray.search.training_noise import Noise, training_noise
from hms_ray.text import counted

HALVING: int = 2
"""Successive halving keeps one in so many trials, after 1, 2, 4, ... folds."""


@dataclass(frozen=True)
class Evidence:
    """The paired comparison of a trial with another one on the folds that both have.

    Attributes:
        difference: mean over the shared rows, trial minus the other one, in nats.
        standard_error: from patients and training noise.
        p_value: one-sided, that the trial is not worse.
        level: below which the trial is stopped.
    """

    difference: float
    standard_error: float
    p_value: float
    level: float


def rival(finished: Array, patients: PatientFolds, n_folds: int) -> int:
    """The finished trial that a trial is tested against after some folds.

    It is the best one in the remaining folds. The least of many scores looks better than it is
    in the folds that chose it, so the best trial over all folds would be too hard to match. The
    noise of the rival in the tested folds has no part in its choice: the choice and the test use
    different patients and different trained models (data splitting: Cox, Biometrika 62, 1975,
    pages 441-444). So the test has its level whatever the trials' scores and their number are;
    a trial as good as the best one is at least as good as the rival. One selection remains, which
    the simulation of ``tests/unit/test_pruning_errors.py`` includes: a finished trial has passed
    the tests of these folds itself.

    Args:
        finished: (J, G) summed scores.
        patients: their rows.
        n_folds: tested folds, from the first; a later one must have a counted row.
    """
    return int(np.argmin(patients.fold_sums(finished)[:, n_folds:].sum(axis=1)))


def compare(
    trial: Array,
    other: Array,
    patients: PatientFolds,
    n_folds: int,
    noise: Noise,
    level: float,
) -> Evidence:
    """Compares a trial with another one after some folds.

    The variance of the mean difference is patient-clustered (as ``clustered_interval``) plus
    ``tau^2 * sum(rows of fold^2) / rows^2``, which is ``tau^2 / k`` for k equal folds. The
    p-value is that of a t distribution whose degrees of freedom combine both parts
    (Welch and Satterthwaite).

    Args:
        trial: (G,) summed scores, those of the first folds known.
        other: (G,) summed scores of the other trial.
        patients: their rows.
        n_folds: known folds of the trial, from the first.
        noise: of training.
        level: over all looks, see ``PatientFolds.level_of_look``.
    """
    shared = patients.folds < n_folds
    sums, sizes = (trial - other)[shared], patients.sizes[shared]
    n_rows, n_patients = sizes.sum(), len(sizes)
    difference = sums.sum() / n_rows
    residuals = sums - difference * sizes
    clustered = n_patients / max(n_patients - 1, 1) * (residuals @ residuals) / n_rows**2
    training = noise.tau**2 * float((patients.rows[:n_folds] ** 2).sum()) / n_rows**2
    variance = clustered + training
    parts = clustered**2 / max(n_patients - 1, 1) + training**2 / noise.freedom
    freedom = variance**2 / parts if parts > 0 else np.inf
    error = float(variance**0.5)
    if n_patients < 2:
        p_value = 1.0
    elif error > 0:
        p_value = float(special.stdtr(freedom, -difference / error))
    else:
        p_value = float(difference <= 0)
    at_look = patients.level_of_look(n_folds, level)
    return Evidence(float(difference), error, p_value, at_look)


@dataclass(frozen=True)
class Decision:
    """What a rule decides after a fold.

    Attributes:
        stop: whether the trial is stopped.
        estimate: comparable with the score of trials that have all folds: the best trial's mean
            over all folds, plus the paired difference to it on the folds that both have; the
            trial's own running mean if no trial has finished.
        reason: of the stop, in one line.
    """

    stop: bool
    estimate: float
    reason: str = ""


def decide(
    config: PruneConfig,
    trial: Array,
    n_folds: int,
    finished: Array,
    others: Sequence[tuple[Array, int]],
    patients: PatientFolds,
) -> Decision:
    """Decides whether a trial is stopped after some of its folds.

    Args:
        config: rule and parameters.
        trial: (G,) summed scores, those of the first folds known.
        n_folds: known folds of the trial, from the first.
        finished: (J, G) summed scores of the trials that have all folds.
        others: of every other trial that has not all folds: (G,) summed scores, known folds.
        patients: their rows.
    """
    if not patients.rows[:n_folds].sum():
        return Decision(False, float("nan"))
    own = float(patients.running_mean(trial, n_folds))
    if not len(finished):
        return Decision(False, own)
    best = finished[int(np.argmin(finished.sum(axis=1)))]
    difference = patients.running_mean(trial - best, n_folds)
    estimate = float(best.sum() / patients.sizes.sum() + difference)
    last = n_folds >= patients.n_folds or not patients.rows[n_folds:].sum()
    if last or n_folds < config.min_folds or len(finished) < config.min_trials:
        return Decision(False, estimate)
    reason = None
    if config.rule == "paired":
        other = finished[rival(finished, patients, n_folds)]
        noise = training_noise(finished, patients, config)
        reason = _by_pairs(compare(trial, other, patients, n_folds, noise, config.level))
    elif config.rule == "median":
        reason = _by_median(own, patients.running_mean(finished, n_folds))
    elif config.rule == "successive_halving":
        reached = [sums for sums, known in others if known >= n_folds]
        means = [float(patients.running_mean(sums, n_folds)) for sums in (*finished, *reached)]
        reason = _by_halving(own, means, n_folds)
    elif config.rule == "wilcoxon":
        counted_folds = patients.rows > 0
        known, of_best = (patients.fold_means(one)[counted_folds] for one in (trial, best))
        reason = _by_wilcoxon(known[: counted_folds[:n_folds].sum()], of_best, config.level)
    return Decision(reason is not None, estimate, reason or "")


def _by_pairs(evidence: Evidence) -> str | None:
    if evidence.p_value >= evidence.level:
        return None
    return (
        f"{evidence.difference:.4f} worse than the trial that is best on the other folds, standard "
        f"error {evidence.standard_error:.4f}, p {evidence.p_value:.2g} below {evidence.level:.2g}"
    )


def _by_median(own: float, others: Array) -> str | None:
    median = float(np.median(others))
    return f"running mean {own:.4f}, median {median:.4f}" if own > median else None


def _by_halving(own: float, others: Sequence[float], n_folds: int) -> str | None:
    if n_folds & (n_folds - 1):
        return None  # not a power of two: no rung
    n_better = sum(other < own for other in others)
    n_kept = max(1, (len(others) + 1) // HALVING)
    if n_better < n_kept:
        return None
    return f"running mean {own:.4f}: {n_better} of {len(others)} trials are better"


def _by_wilcoxon(means: Array, best: Array, level: float) -> str | None:
    # As Optuna's WilcoxonPruner: never a trial whose mean is not above that of all the best
    # trial's folds.
    if len(means) < 2 or means.mean() <= best.mean():
        return None
    differences = means - best[: len(means)]
    found = stats.wilcoxon(differences, alternative="greater", zero_method="zsplit")
    if found.pvalue >= level:
        return None
    return f"worse than the best trial in its folds, p {found.pvalue:.2g} below {level:.2g}"


def pruning_text(config: PruneConfig, n_folds: int) -> str:
    """A line on the rule for the start of a study; empty if nothing is ever stopped."""
    if config.rule == "none" or n_folds < 2:
        return ""
    if config.earliest_stop >= n_folds:
        return f"pruning: {config.rule} can stop no trial of {n_folds} folds"
    folds = f"{counted(config.earliest_stop, 'fold')} of {n_folds}"
    return (
        f"pruning: {config.rule}, after {counted(config.min_trials, 'finished trial')}, "
        f"at the earliest after {folds}"
    )
