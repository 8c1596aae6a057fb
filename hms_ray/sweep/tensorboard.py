"""TensorBoard logs of a study, written when its trials end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from hms_ray.config.space import Parameter
from hms_ray.evaluate.metric import Array, mean_by_objective
from hms_ray.report.tensorboard import METRICS, declare_experiment, write_fold
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial


def declare_study(folder: StudyFolder, results: Path) -> None:
    """Declares the study's parameters and scores for TensorBoard, its objective first."""
    space = folder.space()
    metrics = [space.objective, *METRICS]
    declare_experiment(results, space.parameters, list(dict.fromkeys(metrics)), time.time())


def write_trial_logs(
    folder: StudyFolder,
    trial: StoredTrial,
    rows: pd.DataFrame,
    row_scores: Array,
    searched: Mapping[str, Parameter],
    results: Path,
) -> None:
    """Writes the curves of a finished trial, with one HParams session per fold.

    Args:
        folder: the study's folder.
        trial: a finished trial.
        rows: the study's rows with votes and folds.
        row_scores: (n,) KL of each row.
        searched: dotted path -> parameter.
        results: folder of the fold store.
    """
    store = FoldStore(results)
    folds, votes = rows["fold"].to_numpy(), rows["total_votes"].to_numpy()
    for fold, key in trial.keys.items():
        record = store.record(key)
        of_fold = folds == fold
        write_fold(
            trial.path / f"fold_{fold}",
            record["history"],
            group=f"{folder.name}/{trial.number:04d}",
            values=trial.point,
            parameters=searched,
            scores=mean_by_objective(row_scores[of_fold], votes[of_fold]),
            started_s=record["started_s"],
        )
