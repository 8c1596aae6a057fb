"""Trials that are a tie with the best one."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.space import Objective
from hms_ray.evaluate.intervals import paired_difference
from hms_ray.evaluate.metric import OBJECTIVES, Array, kl_rows
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.study.trial import StoredTrial


def tied_with_best(
    trials: Sequence[StoredTrial], rows: pd.DataFrame, objective: Objective
) -> frozenset[int]:
    """Numbers of the trials that are a tie with the first one.

    A tie: the paired 95% interval of the difference, clustered by patient, contains 0
    (see ``paired_difference``). The best trial was selected among many, so slightly too
    few trials count as ties.

    Args:
        trials: finished trials, best first.
        rows: the study's rows with votes, targets and patients.
        objective: rows to compare on.
    """
    if len(trials) < 2:
        return frozenset()
    counted = (rows["total_votes"] >= OBJECTIVES[objective]).to_numpy()
    targets = rows.loc[counted, list(TARGET_COLUMNS)].to_numpy()
    patients = rows.loc[counted, "patient_id"].to_numpy()

    def scores(trial: StoredTrial) -> Array:
        return kl_rows(targets, probabilities_of(trial.oof(rows))[counted])

    best = scores(trials[0])
    return frozenset(
        trial.number for trial in trials[1:] if paired_difference(scores(trial), best, patients).tie
    )
