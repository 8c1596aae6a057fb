"""TensorBoard logs of a study, written when its trials end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hms_ray.config.space import Parameter
from hms_ray.display.tensorboard import METRICS, declare_experiment, write_fold
from hms_ray.evaluate.metric import Array, mean_by_objective
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from hms_ray.study.row_scores import scores_of_fold
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
    row_scores: Array | None,
    searched: Mapping[str, Parameter],
    results: Path,
) -> None:
    """Writes the curves of a trial's stored folds, with one HParams session per fold.

    Args:
        folder: the study's folder.
        trial: in any state; without a stored fold, it has one session without curves.
        rows: the study's rows with votes and folds.
        row_scores: (n,) KL of each row of a finished trial; None: read from the fold store.
        searched: dotted path -> parameter.
        results: folder of the fold store.
    """
    store, objective = FoldStore(results), folder.objective
    session: dict[str, Any] = {
        "group": f"{folder.name}/{trial.number:04d}",
        "values": trial.point,
        "parameters": searched,
        "state": trial.state,
        "estimate": trial.scores.get(objective) if trial.finished else trial.estimate,
    }
    if not trial.keys:
        write_fold(trial.path, [], **session)
    for fold, key in trial.keys.items():
        record, of_fold = store.record(key), (rows["fold"] == fold).to_numpy()
        if row_scores is None:
            scores = scores_of_fold(rows[of_fold], store.read(key).oof)
        else:
            scores = row_scores[of_fold]
        write_fold(
            trial.path / f"fold_{fold}",
            record["history"],
            scores=mean_by_objective(scores, rows["total_votes"].to_numpy()[of_fold]),
            started_s=record["started_s"],
            **session,
        )
