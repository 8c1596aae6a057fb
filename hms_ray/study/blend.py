"""The best blend of a study's trials, printed and kept in the study's folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config import Objective
from hms_ray.errors import StudyError
from hms_ray.evaluate.blend import blend_probabilities
from hms_ray.evaluate.blend_report import BlendReport, blend_report
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.oof import OOF_COLUMNS, probabilities_of, write_oof
from hms_ray.report.blend_table import render_blend
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import json_text, write_text


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
        seed: of those groups.

    Returns:
        The table to print, at most 80 columns wide.

    Raises:
        StudyError: where there is no such study, or no finished trial in it.
    """
    if n_splits < 2:
        raise StudyError("a nested estimate needs at least two groups of patients", got=n_splits)
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

    Raises:
        StudyError: where no trial is finished.
    """
    finished = folder.finished_trials()
    if not finished:
        raise StudyError("the study needs a finished trial", got="none", where=folder.path)
    mark = " (optimistic)" if finished[0].optimistic else ""
    scores = {f"best trial {finished[0].number:04d}{mark}": finished[0].scores}
    file = folder.path / "blend" / "blend.json"
    if file.is_file():
        blend = json.loads(file.read_text(encoding="utf-8"))
        scores["blend, nested by patient"] = blend["methods"]["simplex weights"]["nested"]
    return scores
