"""``hms-ray replay``: what each pruning rule would have saved and lost in a finished study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_ray.config.pruning import RULES, PruneConfig, Rule
from hms_ray.errors import StudyError
from hms_ray.evaluate.metric import Array
from hms_ray.search.patient_folds import PatientFolds
from hms_ray.search.pruner import patients_of
from hms_ray.search.pruning import decide
from hms_ray.study.folder import StudyFolder
from hms_ray.study.row_scores import RowScores

MIN_TRIALS = 5
"""Trials with all folds below which a replay shows nothing."""


@dataclass(frozen=True)
class Replay:
    """One rule on the trials of a study, by random order.

    Attributes:
        rule: its name.
        folds: (R,) share of all folds that was trained.
        hours: (R,) training time of the folds that were not.
        lost: (R,) KL of the chosen trial on all folds minus the best, in nats.
        best_pruned: share of orders in which the best trial was stopped.
        n_stopped: (R,) trials that were stopped.
    """

    rule: Rule
    folds: Array
    hours: Array
    lost: Array
    best_pruned: float
    n_stopped: Array


def replay_order(config: PruneConfig, sums: Array, patients: PatientFolds) -> list[int]:
    """Folds that each trial is trained for if the trials run one after the other.

    Args:
        config: the rule.
        sums: (J, G) summed scores of trials that have all folds, in order.
        patients: their rows.
    """
    finished: list[int] = []
    stopped: list[tuple[Array, int]] = []
    known = []
    for number, trial in enumerate(sums):
        for n_folds in range(1, patients.n_folds + 1):
            found = decide(config, trial, n_folds, sums[finished], stopped, patients)
            if found.stop:
                stopped.append((trial, n_folds))
                break
        else:
            finished.append(number)
        known.append(n_folds)
    return known


def replay_rule(
    config: PruneConfig,
    sums: Array,
    patients: PatientFolds,
    minutes: Array,
    orders: Sequence[NDArray[np.int64]],
) -> Replay:
    """One rule on trials in several orders.

    Args:
        config: the rule.
        sums: (J, G) summed scores of trials that have all folds.
        patients: their rows.
        minutes: (J,) training minutes of each trial.
        orders: permutations (J,) of the trials.
    """
    scores = sums.sum(axis=1) / patients.sizes.sum()
    best = int(np.argmin(scores))
    folds, hours, lost, pruned, stopped = [], [], [], [], []
    for order in orders:
        known = np.empty(len(order), int)
        known[order] = replay_order(config, sums[order], patients)
        whole = known == patients.n_folds
        folds.append(known.sum() / (len(order) * patients.n_folds))
        hours.append(float((minutes * (1 - known / patients.n_folds)).sum() / 60))
        lost.append(float(scores[whole].min() - scores[best]))
        pruned.append(not whole[best])
        stopped.append(int((~whole).sum()))
    return Replay(
        config.rule,
        np.array(folds),
        np.array(hours),
        np.array(lost),
        float(np.mean(pruned)),
        np.array(stopped, float),
    )


def replay_study(folder: StudyFolder, n_orders: int, seed: int) -> list[Replay]:
    """All rules on the trials of a study that have all folds, from their stored row scores.

    Rules other than that of the study have their default values.

    Args:
        folder: the study.
        n_orders: random orders of the trials.
        seed: of the orders.

    Raises:
        StudyError: if fewer than ``MIN_TRIALS`` trials have all folds, or one is damaged.
    """
    trials = folder.finished_trials()
    if len(trials) < MIN_TRIALS:
        raise StudyError(
            f"a replay needs {MIN_TRIALS} trials with all folds",
            got=len(trials),
            where=folder.path,
            fix="Train more trials without pruning: hms-ray sweep FILE --set prune=none",
        )
    rows = folder.rows()
    patients, scores = patients_of(rows, folder.objective), RowScores(rows)
    sums = np.stack([patients.sums(scores.of(trial.path)) for trial in trials])
    minutes = np.array([trial.fold_minutes for trial in trials])
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(trials)) for _ in range(n_orders)]
    own = folder.space().pruning
    configs = [own if rule == own.rule else PruneConfig(rule=rule) for rule in RULES]
    return [replay_rule(config, sums, patients, minutes, orders) for config in configs]
