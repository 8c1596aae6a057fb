"""TensorBoard logs of a study, written when its trials end."""

from __future__ import annotations

import time
from pathlib import Path

from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.evaluate.metric import kl_report
from hms_ray.report.tensorboard import METRICS, declare_experiment, write_fold
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial


def declare_study(folder: StudyFolder, results: Path) -> None:
    """Declares the study's parameters and scores for TensorBoard, its objective first."""
    space = folder.space()
    metrics = [space.study.objective, *METRICS]
    declare_experiment(results, space.search, list(dict.fromkeys(metrics)), time.time())


def write_trial_logs(folder: StudyFolder, trial: StoredTrial, results: Path) -> None:
    """Writes the curves of a finished trial, with one HParams session per fold.

    Args:
        folder: the study's folder.
        trial: a finished trial.
        results: folder of the fold store.
    """
    store = FoldStore(results)
    rows = folder.rows()
    oof = trial.oof(rows)
    search = folder.space().search
    for fold, key in trial.keys.items():
        record = store.record(key)
        of_fold = (rows["fold"] == fold).to_numpy()
        scores = kl_report(
            rows.loc[of_fold, list(TARGET_COLUMNS)].to_numpy(),
            oof.loc[of_fold, list(PROBABILITY_COLUMNS)].to_numpy(),
            rows.loc[of_fold, "total_votes"].to_numpy(),
        )
        write_fold(
            trial.path / f"fold_{fold}",
            record["history"],
            group=f"{folder.name}/{trial.number:04d}",
            values=trial.point,
            parameters=search,
            scores=scores,
            started_s=record["started_s"],
        )
