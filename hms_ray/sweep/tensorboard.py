"""TensorBoard logs of a study, written when its trials end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from hms_ray.config.space import Parameter
from hms_ray.evaluate.metric import mean_by_objective
from hms_ray.report.tensorboard import METRICS, declare_experiment, write_fold
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.trial import StoredTrial


def declare_study(folder: StudyFolder, results: Path) -> None:
    """Declares the study's parameters and scores for TensorBoard, its objective first."""
    space = folder.space()
    metrics = [space.study.objective, *METRICS]
    declare_experiment(results, space.search, list(dict.fromkeys(metrics)), time.time())


def write_trial_logs(
    leaderboard: Leaderboard,
    trial: StoredTrial,
    results: Path,
    searched: Mapping[str, Parameter],
) -> None:
    """Writes the curves of a finished trial, with one HParams session per fold.

    Args:
        leaderboard: of the trial's study.
        trial: a finished trial.
        results: folder of the fold store.
        searched: dotted path -> parameter.
    """
    store, rows = FoldStore(results), leaderboard.rows
    row_scores = leaderboard.row_scores(trial)
    folds, votes = rows["fold"].to_numpy(), rows["total_votes"].to_numpy()
    for fold, key in trial.keys.items():
        record = store.record(key)
        of_fold = folds == fold
        write_fold(
            trial.path / f"fold_{fold}",
            record["history"],
            group=f"{leaderboard.folder.name}/{trial.number:04d}",
            values=trial.point,
            parameters=searched,
            scores=mean_by_objective(row_scores[of_fold], votes[of_fold]),
            started_s=record["started_s"],
        )
