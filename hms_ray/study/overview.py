"""What a study, a trial and a folder of studies contain, in short.

Configurations are read as plain data, so that studies of earlier versions can be shown.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from hms_ray.config.former_names import in_new_form
from hms_ray.config.yaml_files import read_mapping
from hms_ray.display.folder_list import FolderSummary, time_text
from hms_ray.display.overview import FoldOverview, StudyOverview, TrialOverview
from hms_ray.errors import HmsRayError, StudyError
from hms_ray.evaluate.metric import mean_by_objective
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.folder_names import REPORT_FILE
from hms_ray.storage.structured_files import read_json
from hms_ray.study.cost import read_costs
from hms_ray.study.folder import SPACE_FILE, StudyFolder, study_names
from hms_ray.study.holdout import openings
from hms_ray.study.identity import changed_values
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.refit import closed_text, read_refit
from hms_ray.study.row_scores import scores_of_fold
from hms_ray.study.run_outcome import FINISHED, read_outcome
from hms_ray.study.trial import (
    DIVERGED,
    PRUNED,
    STOPPED,
    StoredTrial,
    best_first,
    saved_by_pruning,
)
from hms_ray.text import closest
from hms_ray.train.selection import kept_record


def summarise_studies(results: Path) -> list[FolderSummary]:
    """All studies of a results folder; one that cannot be read has a problem.

    Raises:
        StudyError: if there is no such folder.
    """
    if not results.is_dir():
        raise StudyError(
            "the results folder must exist",
            got=str(results),
            fix="Name it with --results DIR, or run a study first: hms-ray sweep",
        )
    return [_summarise(results / name) for name in study_names(results)]


def _summarise(path: Path) -> FolderSummary:
    try:
        folder = StudyFolder(path)
        return _summary(folder, folder.trials())
    except HmsRayError as error:
        return replace(_no_trials(path), problem=str(error))


def _no_trials(path: Path) -> FolderSummary:
    return FolderSummary(path.name, "study", str(path), last_written(path))


def _summary(folder: StudyFolder, trials: Sequence[StoredTrial]) -> FolderSummary:
    finished = best_first(trials, folder.objective)
    best = finished[0] if finished else None
    states = Counter(trial.state for trial in trials)
    return replace(
        _no_trials(folder.path),
        finished=len(finished),
        pruned=states[PRUNED],
        diverged=states[DIVERGED],
        stopped=states[STOPPED],
        failed=states["failed"],
        objective=folder.objective,
        best_trial=None if best is None else best.number,
        best_score=None if best is None else best.scores[folder.objective],
        best_recalibrated=None if best is None else best.recalibrated.get(folder.objective),
        outcome=_outcome(folder.path),
    )


def _outcome(path: Path) -> str | None:
    """How the last run ended, unless it finished."""
    outcome = read_outcome(path)
    if outcome is None or outcome.text == FINISHED:
        return None
    then = "; the same command would end in the same way" if outcome.final else ""
    return f"ended at {time_text(outcome.ended)} UTC: {outcome.text}{then}"


def last_written(folder: Path) -> str:
    """When a file of a study or ladder, or a trial, was last written; ISO 8601, UTC."""
    files = [*folder.iterdir(), *(folder / "trials").glob("*")]
    # To write a report, which changes the folder's own time, is to look at a study.
    counted = [f for f in files if not f.name.startswith(".") and f.name != REPORT_FILE]
    seconds = max(file.stat().st_mtime for file in counted or [folder])
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def study_overview(folder: StudyFolder) -> StudyOverview:
    """One study.

    Raises:
        StudyError: if it is damaged.
    """
    space = in_new_form(read_mapping(folder.path / SPACE_FILE))
    board = Leaderboard(folder)
    finished, rows = board.finished, board.rows
    file = folder.path / "environment.json"
    runs = read_json(file, list) if file.is_file() else []
    held_out = folder.held_out_rows()
    last: Mapping[str, Any] = runs[-1] if runs else {}
    nodes, words = last.get("cluster", {}).get("nodes", []), last.get("command")
    return StudyOverview(
        summary=_summary(folder, board.trials),
        choice=board.choice(),
        planned=space.get("budget", {}).get("trials"),
        rows=len(rows),
        patients=int(rows["patient_id"].nunique()),
        folds=int(rows["fold"].nunique()),
        unit=space.get("experiment", {}).get("data", {}).get("unit"),
        searched={path: _searched(values) for path, values in space.get("parameters", {}).items()},
        best_values=finished[0].point if finished else {},
        minutes=sum(trial.fold_minutes for trial in finished),
        saved_by_pruning=saved_by_pruning(board.trials),
        runs=[run["started"] for run in runs if "started" in run],
        command=shlex.join(["hms-ray", *words[1:]]) if words else None,
        hosts=sorted({str(node.get("host")) for node in nodes}),
        held_out_rows=0 if held_out is None else len(held_out),
        held_out_patients=0 if held_out is None else int(held_out["patient_id"].nunique()),
        openings=openings(folder),
        closed=closed_text(folder),
        costs=read_costs(folder.path),
    )


def _searched(parameter: Mapping[str, Any]) -> str:
    """The values of a searched path, or its range."""
    values = parameter.get("values")
    if values is not None:
        return ", ".join(map(str, values))
    return f"{parameter.get('min')} to {parameter.get('max')}" + (
        ", log" if parameter.get("log") else ""
    )


def find_trial(target: str, results: Path) -> tuple[StudyFolder, int | None]:
    """The study of ``STUDY`` or ``STUDY/TRIAL``, and the trial's number if there is one.

    Raises:
        StudyError: if there is no such study; names the nearest.
    """
    path = Path(target)
    if path.name.isdigit() and StudyFolder.find(path, results) is None:
        return StudyFolder.open(path.parent, results), int(path.name)
    return StudyFolder.open(path, results), None


def trial_overview(folder: StudyFolder, number: int) -> TrialOverview:
    """One trial.

    Raises:
        StudyError: if there is no such trial; names the nearest.
    """
    trials = folder.trials()
    finished = best_first(trials, folder.objective)
    trial = folder.trial(number)
    if trial is None:
        known = [f"{other.number:04d}" for other in trials]
        raise StudyError(
            "the trial must exist and have ended",
            got=f"{number:04d}{closest(f'{number:04d}', known)}",
            where=folder.path,
        )
    best = finished[0] if finished else None
    order = [other.number for other in finished]
    error_file = trial.path / "error.txt"
    refit = read_refit(trial.path)
    return TrialOverview(
        study=folder.name,
        number=number,
        state=trial.state,
        rank=order.index(number) + 1 if number in order else None,
        objective=folder.objective,
        scores=trial.scores,
        recalibrated=trial.recalibrated,
        optimistic=trial.optimistic,
        values=trial.point,
        best_trial=None if best is None else best.number,
        differences={} if best is None else changed_values(_experiment(best), _experiment(trial)),
        folds=_folds(folder, trial),
        minutes=trial.fold_minutes,
        saved_minutes=trial.saved_minutes,
        reason=trial.reason,
        estimate=trial.estimate,
        study_folds=trial.n_folds,
        saved_by_pruning_minutes=trial.saved_folds_minutes[1],
        error_file=str(error_file) if error_file.is_file() else None,
        path=str(trial.path),
        refit=None if refit is None else refit.text,
    )


def _experiment(trial: StoredTrial) -> dict[str, Any]:
    content = read_mapping(trial.path / "experiment.yaml").get("experiment")
    return content if isinstance(content, dict) else {}


def _folds(folder: StudyFolder, trial: StoredTrial) -> list[FoldOverview]:
    """Scores are those of the trial's out-of-fold predictions, by fold."""
    if not trial.keys:
        return []
    rows, store = folder.rows(), FoldStore(folder.path.parent)
    oof = trial.oof(rows) if trial.finished else None
    return [
        FoldOverview(
            fold=fold,
            scores=_fold_scores(rows[rows["fold"] == fold], oof, store, key),
            **_stored(store, key),
            reused=fold in trial.reused,
            cache_key=key,
        )
        for fold, key in sorted(trial.keys.items())
    ]


def _fold_scores(
    rows: pd.DataFrame, oof: pd.DataFrame | None, store: FoldStore, key: str
) -> dict[str, float | None]:
    """Scores of a fold's rows; a trial without all folds has its predictions in the store."""
    try:
        of_fold = store.read(key).oof if oof is None else oof[oof["fold"].isin(rows["fold"])]
        scores = scores_of_fold(rows, of_fold)
    except HmsRayError:
        if oof is not None:
            raise
        return {}
    return mean_by_objective(scores, rows["total_votes"].to_numpy())


def _stored(store: FoldStore, key: str) -> dict[str, Any]:
    """Facts of a fold that only the fold store has; None without it."""
    try:
        record = store.record(key)
        kept = kept_record(record["history"])
        minutes = (float(record["seconds"]) + float(record.get("saved_s", 0.0))) / 60
        return {"minutes": minutes, "checkpoint": f"{kept['stage']} {kept['epoch']:g}"}
    except (StudyError, LookupError, TypeError, ValueError):
        return {"minutes": None, "checkpoint": None}
