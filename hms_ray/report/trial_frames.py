"""The trials of a study as data frames: scores, progress, curves; see ``frames``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.report.study_data import StudyData
from hms_ray.study.folder import StudyFolder

Study: TypeAlias = StudyData | StudyFolder | str | Path
RESULTS: Final = "results"
EVALUATION: Final = (*("epoch", "stage", *OBJECTIVES, "train_loss", "learning_rate", "seconds"),)


def trials(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """All trials, best first.

    Returns:
        The columns of ``display.leaderboard.leaderboard``, and ``low`` and ``high``: ends of the
        95% interval of the objective, clustered by patient; NaN without predictions.
    """
    data = StudyData.of(study, results)
    frame, intervals = data.leaderboard(), data.intervals()
    found = [intervals.get(int(trial)) for trial in frame["trial"]]
    place = frame.columns.get_loc(data.objective)
    assert isinstance(place, int)
    for name in ("high", "low"):
        values = [np.nan if one is None else float(getattr(one, name)) for one in found]
        frame.insert(place + 1, name, values)
    return frame


def progress(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """The search trial by trial, by number.

    Returns:
        ``trial``, ``state``, ``score`` (of the objective; NaN if incomplete), ``estimate`` (of a
        pruned trial), ``best`` (lowest score so far) and ``hours`` of training so far, without
        stages that the fold store saved.
    """
    data = StudyData.of(study, results)
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "score": trial.scores.get(data.objective) if trial.finished else None,
            "estimate": trial.estimate,
            "hours": (trial.fold_minutes - trial.saved_minutes) / 60,
        }
        for trial in data.trials
    ]
    frame = pd.DataFrame(rows, columns=["trial", "state", "score", "estimate", "hours"])
    frame[["score", "estimate"]] = frame[["score", "estimate"]].astype("float64")
    frame["hours"] = frame["hours"].cumsum()
    frame["best"] = frame["score"].cummin().ffill()
    return frame


def curves(
    study: Study, results: str | Path = RESULTS, trials: Sequence[int] | None = None
) -> pd.DataFrame:
    """The evaluations of each fold, from the fold store.

    Args:
        study: see above.
        results: folder of all studies.
        trials: their numbers; default: all with stored folds.

    Returns:
        ``trial``, ``fold``, ``stage``, ``epoch`` (counted over all stages), ``kl_all``, ``kl_4``,
        ``kl_10``, ``train_loss``, ``learning_rate`` and ``seconds`` since the fold's start.
    """
    data = StudyData.of(study, results)
    rows = []
    for trial in data.trials:
        if trials is not None and trial.number not in trials:
            continue
        for fold, record in data.records(trial).items():
            with data.noted(f"The history of trial {trial.number:04d}, fold {fold}"):
                rows += evaluations(record["history"], trial=trial.number, fold=fold)
    data.note_lost_records()
    return pd.DataFrame(rows, columns=["trial", "fold", *EVALUATION])


def evaluations(history: Sequence[Mapping[str, Any]], **marks: Any) -> list[dict[str, Any]]:
    """The records of a fold, with epochs counted over all stages."""
    rows = []
    before, stage, last = 0.0, None, 0.0
    for line in history:
        if line.get("stage_index") != stage:
            before, stage = before + last, line.get("stage_index")
        last = float(line["epoch"])
        values = {name: line.get(name) for name in EVALUATION}
        rows.append({**marks, **values, "epoch": before + last})
    return rows
