"""Decides in the study process, between folds, which trials continue."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hms_ray.config.pruning import PruneConfig
from hms_ray.config.space import Objective
from hms_ray.evaluate.metric import OBJECTIVES, Array
from hms_ray.search.patient_folds import PatientFolds
from hms_ray.search.pruning import Decision, decide
from hms_ray.study.row_scores import scores_of_fold


@dataclass(frozen=True)
class FoldReport:
    """What is reported to Optuna about a fold of a trial.

    Attributes:
        n_folds: folds of the trial so far, this one included.
        fold: number of the fold.
        score: mean KL of the fold's rows of the objective.
        estimate: see ``Decision``.
    """

    n_folds: int
    fold: int
    score: float
    estimate: float


def patients_of(rows: pd.DataFrame, objective: Objective) -> PatientFolds:
    """The rows of an objective by patient and fold."""
    counted = rows["total_votes"].to_numpy() >= OBJECTIVES[objective]
    return PatientFolds.of(rows["patient_id"].to_numpy(), rows["fold"].to_numpy(), counted)


def sums_of_fold(oof: pd.DataFrame, fold: int, rows: pd.DataFrame, patients: PatientFolds) -> Array:
    """Summed KL of each patient (G,) with the out-of-fold predictions of one fold; others 0."""
    of_fold = (rows["fold"] == fold).to_numpy()
    scores = np.zeros(len(rows))
    scores[of_fold] = scores_of_fold(rows[of_fold], oof)
    return patients.sums(scores)


class Pruner:
    """Knows the summed scores of all trials of a study; may be called from several threads.

    Args:
        config: the rule.
        patients: rows of the objective.
    """

    def __init__(self, config: PruneConfig, patients: PatientFolds) -> None:
        self._config, self._patients = config, patients
        self._finished: dict[int, Array] = {}
        self._partial: dict[int, Array] = {}
        self._reports: dict[int, list[FoldReport]] = {}
        self._lock = threading.Lock()

    def add_finished(self, number: int, row_scores: Array) -> None:
        """Takes the KL (N,) of each row of a trial that has all folds."""
        with self._lock:
            self._finished[number] = self._patients.sums(row_scores)
            self._partial.pop(number, None)

    def after_fold(self, number: int, fold: int, sums: Array) -> Decision:
        """Decides after a fold of a trial, which come from 0 in order.

        A trial whose process was lost starts again at its fold 0.

        Args:
            number: of the trial.
            fold: just trained.
            sums: (G,) summed scores, 0 outside the fold.
        """
        with self._lock:
            known = self._partial.get(number)
            known = sums if fold == 0 or known is None else known + sums
            self._partial[number] = known
            finished = np.array([one for key, one in self._finished.items() if key != number])
            reports = [] if fold == 0 else self._reports.get(number, [])
            others = [
                (one, len(self._reports[key]))
                for key, one in self._partial.items()
                if key != number
            ]
            found = decide(self._config, known, fold + 1, finished, others, self._patients)
            score = float(self._patients.fold_means(sums)[fold])
            reports.append(FoldReport(fold + 1, fold, score, found.estimate))
            self._reports[number] = reports
            return found

    def reports(self, number: int) -> list[FoldReport]:
        """The reports of a trial in the order of its folds."""
        with self._lock:
            return list(self._reports.get(number, []))
