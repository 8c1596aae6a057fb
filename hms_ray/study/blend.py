"""The best blend of a study's trials, printed and kept in the study's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config import Objective
from hms_ray.errors import StudyError
from hms_ray.evaluate.blend import blend_probabilities
from hms_ray.evaluate.blend_report import SIMPLEX, BlendReport, blend_report
from hms_ray.evaluate.metric import OBJECTIVES, Array
from hms_ray.evaluate.oof import OOF_COLUMNS, probabilities_of, write_oof
from hms_ray.report.blend_table import render_blend
from hms_ray.study.files import damaged, json_text, read_json, write_text
from hms_ray.study.folder import StudyFolder


def blend_study(
    study: str | Path,
    results: str | Path = "results",
    fit_rows: Objective | None = None,
    n_splits: int = 5,
    seed: int = 0,
) -> str:
    """Blends all finished trials of a study and keeps weights and predictions.

    Writes ``blend/blend.json`` (weights, certificate, estimates) and
    ``blend/oof.parquet`` (blended out-of-fold predictions: in sample for the
    weights) into the study's folder.

    Args:
        study: name or folder of the study.
        results: folder of all studies.
        fit_rows: rows that the weights are fitted on; the study's objective if absent.
        n_splits: groups of patients for the nested estimates.
        seed: of those groups and of the bootstrap.

    Returns:
        The table to print, at most 80 columns wide.

    Raises:
        StudyError: where a number is out of range, there is no such study, no finished
            trial in it, or one whose predictions are absent or damaged.
        PredictionError: where the rows to fit on are not of two patients at least.
    """
    if n_splits < 2:
        raise StudyError("a nested estimate needs at least two groups of patients", got=n_splits)
    if seed < 0:
        raise StudyError("a seed must be at least 0", got=seed)
    folder = StudyFolder.open(study, results)
    trials = folder.finished_trials()
    if not trials:
        raise StudyError("a blend needs at least one finished trial", got="none", where=folder.path)
    rows = folder.rows()
    tables = [trial.oof(rows) for trial in trials]
    probabilities = np.stack([probabilities_of(table) for table in tables])
    report = blend_report(
        rows[list(TARGET_COLUMNS)].to_numpy(),
        probabilities,
        [f"{trial.number:04d}" for trial in trials],
        rows["patient_id"].to_numpy(),
        rows["total_votes"].to_numpy(),
        fit_rows=fit_rows or folder.space().study.objective,
        optimistic=[trial.optimistic for trial in trials],
        n_splits=n_splits,
        seed=seed,
    )
    _write(folder, report, probabilities, tables[0][list(OOF_COLUMNS[:4])])
    return f"{render_blend(report)}\n\nwritten to {folder.path / 'blend'}"


def _write(
    folder: StudyFolder, report: BlendReport, probabilities: Array, keys: pd.DataFrame
) -> None:
    blended = keys.copy()
    blended[list(OOF_COLUMNS[4:])] = blend_probabilities(probabilities, report.fit.weights)
    place = folder.path / "blend"
    write_oof(place / "oof.parquet", blended)
    write_text(place / "blend.json", json_text({"study": folder.name, **report.to_json()}))


def best_scores(folder: StudyFolder) -> dict[str, dict[str, float | None]]:
    """Scores of the best trial and, once there is one, the nested ones of the blend.

    A blend stays as it was made: where trials ended since, or are gone, its name
    says how many it is of.

    Raises:
        StudyError: where no trial is finished, or ``blend.json`` is damaged.
    """
    finished = folder.finished_trials()
    if not finished:
        raise StudyError("the study needs a finished trial", got="none", where=folder.path)
    scores = {
        f"best trial {finished[0].number:04d}{_mark(finished[0].optimistic)}": finished[0].scores
    }
    file = folder.path / "blend" / "blend.json"
    if not file.is_file():
        return scores
    fix = f"Blend the study again: hms-ray blend {folder.name}"
    blend = read_json(file, dict, fix)
    try:
        title = _title(set(blend["weights"]), {f"{trial.number:04d}" for trial in finished})
        title += _mark(bool(blend["optimistic"]))
        scores[title] = {name: blend["methods"][SIMPLEX]["nested"][name] for name in OBJECTIVES}
    except (KeyError, TypeError) as error:
        raise damaged(file, error, fix) from None
    return scores


def _title(members: set[str], finished: set[str]) -> str:
    """The blend's name, with what tells it from a blend of today's trials."""
    gone = len(members - finished)
    if gone:
        return f"blend of {len(members)} trials, {gone} gone, nested"
    if members != finished:
        return f"blend of {len(members)} of {len(finished)} trials, nested"
    return "blend, nested by patient"


def _mark(optimistic: bool) -> str:
    return " (optimistic)" if optimistic else ""
