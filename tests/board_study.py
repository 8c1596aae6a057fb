"""Trials of all states in a study of two rows, with histories in the fold store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hms_ray.evaluate.oof import make_oof
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from tests.study_data import RATE, make_result, make_space


def store_fold(results: Path, rows: Any, fold: int, n: int = 3) -> str:
    """A stored fold; its key."""
    history = [
        {
            "stage": "train",
            "stage_index": 0,
            "epoch": 0.5 * k,
            "step": 5 * k,
            "kl_all": 1.0 / k + fold,
            "kl_4": None,
            "kl_10": 0.5 / k + fold,
            "train_loss": 2.0,
            "learning_rate": 1e-3,
            "seconds": 10.0 * k,
        }
        for k in range(1, n + 1)
    ]
    record: dict[str, Any] = {"seconds": 9.0, "saved_s": 0.0, "started_s": 7.0, "history": history}
    record["made_with"] = {"torch": "2.15.0"}
    oof = make_oof(rows[rows["fold"] == fold], fold, np.full((1, 6), 1 / 6))
    key = f"{fold}" * 64
    FoldStore(results).write(key, oof, record, lambda path: path.write_bytes(b""))
    return key


def end_trials(study: StudyFolder) -> None:
    """Trials of all states, of which 0 and 4 are complete."""
    results, rows, experiment = study.path.parent, study.rows(), make_space().experiment
    keys = {fold: store_fold(results, rows, fold) for fold in (0, 1)}
    rate = {RATE: 0.001}
    study.write_trial(0, rate, experiment, replace(make_result(0.5), keys=keys))
    pruned = replace(make_result(0.9), keys={1: keys[1]}, reused=())
    study.write_pruned(1, rate, experiment, pruned, "after 1 of 2 folds: worse", 0.75, 2)
    study.write_failure(2, rate, experiment, "the loss must be finite", state="diverged")
    study.write_failure(3, rate, experiment, "stopped by hms-ray stop", state="stopped")
    study.write_trial(4, {RATE: 0.002}, experiment, replace(make_result(0.45), keys=keys))
