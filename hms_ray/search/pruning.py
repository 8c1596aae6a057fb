"""When to stop a trial between folds: the statistics, arrays in and out.

Row KLs are summed by patient. Since all rows of a patient lie in one fold, these sums hold all
that fold means, paired differences and patient-clustered variances need. Every mean is over
rows, so that a fold counts by its number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hms_ray.config.pruning import PruneConfig
from hms_ray.evaluate.metric import Array

HALVING: int = 2
"""Successive halving keeps one in so many trials, after 1, 2, 4, ... folds."""


@dataclass(frozen=True)
class PatientFolds:
    """Rows of the objective by patient; patients sorted by fold, then by number.

    Attributes:
        order: (n,) position of each counted row's patient.
        counted: (N,) which of all rows count.
        sizes: (G,) counted rows of each patient.
        folds: (G,) fold of each patient.
        n_folds: folds of the study, also those without a counted row.
    """

    order: NDArray[np.int64]
    counted: NDArray[np.bool_]
    sizes: Array
    folds: NDArray[np.int64]
    n_folds: int

    @classmethod
    def of(cls, patients: ArrayLike, folds: ArrayLike, counted: ArrayLike) -> PatientFolds:
        """From the patient (N,) and fold (N,) of all rows, and which of them (N,) count."""
        all_folds, which = np.asarray(folds, np.int64), np.asarray(counted, bool)
        pairs = np.stack([all_folds[which], np.asarray(patients)[which]])
        known, order, sizes = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
        return cls(order.ravel(), which, sizes.astype(np.float64), known[0], all_folds.max() + 1)

    def sums(self, row_scores: Array) -> Array:
        """(G,) summed scores of each patient, from the scores (N,) of all rows."""
        scores = row_scores[self.counted]
        found: Array = np.bincount(self.order, scores, len(self.sizes)).astype(np.float64)
        return found

    @cached_property
    def rows(self) -> Array:
        """(K,) counted rows of each fold."""
        found: Array = np.bincount(self.folds, self.sizes, self.n_folds).astype(np.float64)
        return found

    def fold_sums(self, sums: Array) -> Array:
        """(..., K) summed scores of each fold, from those of patients (..., G)."""
        indicator = self.folds[:, None] == np.arange(self.n_folds)
        found: Array = sums @ indicator
        return found

    def fold_means(self, sums: Array) -> Array:
        """(..., K) mean score of each fold; NaN without a counted row."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Array = self.fold_sums(sums) / self.rows
        return means

    def running_mean(self, sums: Array, n_folds: int) -> Array:
        """(...) mean score over the rows of the first folds."""
        rows = self.rows[:n_folds].sum()
        running: Array = self.fold_sums(sums)[..., :n_folds].sum(axis=-1) / rows
        return running

    def level_of_look(self, n_folds: int, level: float) -> float:
        """Level of the look after some folds: the levels of all looks sum to ``level``.

        There is no look after the last fold. Each has ``level * rows of its fold / rows of
        all folds but the last``.
        """
        return float(level * self.rows[n_folds - 1] / max(self.rows[:-1].sum(), 1.0))


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
    interaction of trials and folds, the second is averaged from patient-clustered variances.
    The assumed ``config.tau`` counts as ``config.tau_trials`` trials.

    Args:
        sums: (J, G) summed scores of finished trials. The worse half is not used: trials
            far from the best one vary more than those that a decision is about.
        patients: their rows.
        config: assumed noise.
    """
    counted = patients.rows > 0
    n_folds = int(counted.sum())
    prior = Noise(config.tau, config.tau_trials * max(n_folds - 1, 1))
    order = np.argsort(sums.sum(axis=1), kind="stable")[: max(3, (len(sums) + 1) // 2)]
    n_trials = len(order)
    if n_trials < 2 or n_folds < 2:
        return prior
    own = sums[order] - sums[order].mean(axis=0)
    means = patients.fold_means(own)[:, counted]
    freedom = (n_trials - 1) * (n_folds - 1)
    interaction = ((means - means.mean(axis=1, keepdims=True)) ** 2).sum() / freedom
    sampling = np.mean([_fold_variances(one, patients)[counted] for one in own])
    found = 2 * (interaction - sampling * n_trials / (n_trials - 1))
    weight = config.tau_trials / (config.tau_trials + n_trials)
    variance = weight * config.tau**2 + (1 - weight) * max(found, 0.0)
    return Noise(float(variance**0.5), prior.freedom + freedom)


def _fold_variances(sums: Array, patients: PatientFolds) -> Array:
    """(K,) patient-clustered variance of the mean of each fold; 0 with one patient."""
    means = patients.fold_means(sums)
    residuals = sums - np.nan_to_num(means)[patients.folds] * patients.sizes
    squares = np.bincount(patients.folds, weights=residuals**2, minlength=patients.n_folds)
    counts = np.bincount(patients.folds, minlength=patients.n_folds)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = counts / (counts - 1) * squares / patients.rows**2
    return np.where(counts > 1, found, 0.0)


@dataclass(frozen=True)
class Evidence:
    """The paired comparison of a trial with the best one on the folds that both have.

    Attributes:
        difference: mean over the shared rows, trial minus best, in nats.
        standard_error: from patients and training noise.
        p_value: one-sided, that the trial is not worse.
        level: below which the trial is stopped.
        estimate: comparable with the score of trials that have all folds: the best trial's
            mean over all folds plus the difference.
    """

    difference: float
    standard_error: float
    p_value: float
    level: float
    estimate: float


def expected_optimism(finished: Array, patients: PatientFolds, noise: Noise) -> float:
    """By how much the best of the finished trials probably looks too good, in nats.

    It was chosen as the least of noisy scores. Their mean is trusted for the share of the
    variance of scores that training noise explains (empirical Bayes): with m the mean
    score, b the best and s^2 the variance of the scores,
    ``(m - b) * min(1, (tau^2 / 2K) / s^2)`` over K folds.

    Args:
        finished: (J, G) summed scores.
        patients: their rows.
        noise: of training; a single trial has half the variance of a difference.
    """
    scores = finished.sum(axis=1) / patients.sizes.sum()
    rows = patients.rows
    training = noise.tau**2 / 2 * float((rows**2).sum() / rows.sum() ** 2)
    spread = float(scores.var(ddof=1)) if len(scores) > 1 else 0.0
    share = min(1.0, training / spread) if spread > 0 else 1.0
    return float((scores.mean() - scores.min()) * share)


def compare(
    trial: Array,
    best: Array,
    patients: PatientFolds,
    n_folds: int,
    noise: Noise,
    level: float,
    optimism: float = 0.0,
) -> Evidence:
    """Compares a trial with the best one after some folds.

    The variance of the mean difference is patient-clustered (as ``clustered_interval``) plus
    ``tau^2 * sum(rows of fold^2) / rows^2``, which is ``tau^2 / k`` for k equal folds. The
    p-value is that of a t distribution whose degrees of freedom combine both parts
    (Welch and Satterthwaite).

    Args:
        trial: (G,) summed scores, those of the first folds known.
        best: (G,) summed scores of the best trial.
        patients: their rows.
        n_folds: known folds of the trial, from the first.
        noise: of training.
        level: over all looks, see ``PatientFolds.level_of_look``.
        optimism: of the best trial, see ``expected_optimism``; the test allows for it.
    """
    shared = patients.folds < n_folds
    sums, sizes = (trial - best)[shared], patients.sizes[shared]
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
        p_value = float(stats.t.sf((difference - optimism) / error, freedom))
    else:
        p_value = float(difference <= optimism)
    overall = best.sum() / patients.sizes.sum()
    at_look = patients.level_of_look(n_folds, level)
    return Evidence(float(difference), error, p_value, at_look, float(overall + difference))


@dataclass(frozen=True)
class Decision:
    """What a rule decides after a fold.

    Attributes:
        stop: whether the trial is stopped.
        estimate: see ``Evidence``; the trial's own running mean if no trial has finished.
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
    noise = training_noise(finished, patients, config)
    optimism = expected_optimism(finished, patients, noise)
    evidence = compare(trial, best, patients, n_folds, noise, config.level, optimism)
    going_on = Decision(False, evidence.estimate)
    last = n_folds >= patients.n_folds or not patients.rows[n_folds:].sum()
    if last or n_folds < config.min_folds or len(finished) < config.min_trials:
        return going_on
    reason = None
    if config.rule == "paired":
        reason = _by_pairs(evidence)
    elif config.rule == "median":
        reason = _by_median(own, patients.running_mean(finished, n_folds))
    elif config.rule == "successive_halving":
        reached = [sums for sums, known in others if known >= n_folds]
        means = [float(patients.running_mean(sums, n_folds)) for sums in (*finished, *reached)]
        reason = _by_halving(own, means, n_folds)
    elif config.rule == "wilcoxon":
        differences = patients.fold_means(trial - best)[:n_folds]
        reason = _by_wilcoxon(differences[patients.rows[:n_folds] > 0], config.level)
    return going_on if reason is None else Decision(True, evidence.estimate, reason)


def _by_pairs(evidence: Evidence) -> str | None:
    if evidence.p_value >= evidence.level:
        return None
    return (
        f"{evidence.difference:.4f} worse than the best trial on the same rows, standard error "
        f"{evidence.standard_error:.4f}, p {evidence.p_value:.2g} below {evidence.level:.2g}"
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


def _by_wilcoxon(differences: Array, level: float) -> str | None:
    # As Optuna's WilcoxonPruner: never a trial whose mean is better than the best one's.
    if len(differences) < 2 or differences.mean() <= 0:
        return None
    found = stats.wilcoxon(differences, alternative="greater", zero_method="zsplit")
    if found.pvalue >= level:
        return None
    return f"worse than the best trial in its folds, p {found.pvalue:.2g} below {level:.2g}"


def earliest_wilcoxon_fold(level: float) -> int:
    """Fewest folds after which the signed-rank test can stop a trial: its least p is 2^-k."""
    return next(k for k in range(2, 100) if 0.5**k < level)


def pruning_text(config: PruneConfig, n_folds: int) -> str:
    """A line on the rule for the start of a study; empty if nothing is ever stopped."""
    if config.rule == "none" or n_folds < 2:
        return ""
    text = f"pruning: {config.rule}, after {config.min_trials} finished trials"
    if config.rule == "wilcoxon":
        earliest = max(earliest_wilcoxon_fold(config.level), config.min_folds)
        text += f", after {earliest} folds at the earliest"
        if earliest >= n_folds:
            text += f": of {n_folds} folds, no trial is stopped; raise prune.level"
    return text
