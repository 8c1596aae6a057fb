"""Blend, cost, faults and commands of a study's report."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hms_ray.display.blend_table import ALTERNATIVES
from hms_ray.display.cells import score_text, signed
from hms_ray.display.run_cost import cost_table
from hms_ray.display.tables import Column, Table
from hms_ray.errors import one_line
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.report import figures, frames
from hms_ray.report.page import code, paragraphs, table
from hms_ray.report.study_view import (
    StudyView,
    ends_cell,
    score_cell,
)
from hms_ray.study.cost import read_costs
from hms_ray.study.trial import StoredTrial, saved_by_pruning
from hms_ray.text import command_line, counted


def blend(view: StudyView) -> list[str]:
    """Scores, certificate and weights of the stored blend."""
    blend = view.data.blend
    if blend is None:
        if len(view.data.finished) < 2:
            return []
        text = "No blend of this study is stored. Make one:"
        return [paragraphs(text), code(command_line("blend", view.folder.name))]
    scores = Table(
        f"Blend: {blend['method']}",
        (
            Column("scored", ["in-sample", "nested"], right=False),
            *(
                Column(
                    title,
                    [score_text(blend[part].get(name)) for part in ("in_sample", "nested")],
                )
                for name, title in SCORE_NAMES.items()
            ),
        ),
        (
            (
                "in-sample: on the rows that its weights were fitted on, optimistic. "
                "nested: on patients that had no part in the fit."
            ),
        ),
    )
    parts = [table(scores), paragraphs(*_certificate(blend))]
    frame = frames.blend_weights(view.data)
    if not frame.empty:
        columns = (
            Column("model", [str(name) for name in frame["model"]], right=False),
            Column("weight", [f"{weight:.4f}" for weight in frame["weight"]]),
            Column(
                "nested weights",
                [
                    f"{score_cell(low)} to {score_cell(high)}"
                    for low, high in zip(frame["nested_low"], frame["nested_high"], strict=True)
                ],
            ),
        )
        parts.append(
            view.page.figure(
                figures.blend_weights(frame),
                "Weights of the blend in sample, and the range of the nested ones",
                "Bars: fitted on all patients. Ranges: smallest and largest weight among the "
                "fits on other patients. A weight with a wide range is not well determined.",
                table(Table("Weights", columns), sortable=True),
            )
        )
    return parts


def cost(view: StudyView) -> list[str]:
    """Device hours, useful share and what was saved."""
    frame = frames.cost(view.data)
    if frame.empty:
        minutes = sum(trial.fold_minutes - trial.saved_minutes for trial in view.data.trials)
        return [paragraphs(f"Training of all trials: {minutes / 60:.2f} hours.")]
    total = {
        name: float((frame[name] * frame["devices"]).sum()) / 3600
        for name in ("training_s", "saved_by_pruning_s")
    }
    store = frame["saved_by_store_s"] + frame["saved_by_stages_s"]
    saved = float((store * frame["devices"]).sum()) / 3600
    n_pruned, n_folds, _ = saved_by_pruning(view.data.trials)
    text = (
        f"Training: {total['training_s']:.2f} device hours (GPU hours on GPUs, else CPU "
        f"hours). The fold store and shared stages saved {saved:.2f}, pruning about "
        f"{total['saved_by_pruning_s']:.2f} ({counted(n_pruned, 'trial')}, "
        f"{counted(n_folds, 'fold')} not trained).{_useful_text(frame)}"
    )
    return [
        paragraphs(text),
        view.page.figure(
            figures.cost(frame),
            "Device hours of each run: training, scoring, idle slots, and what was saved",
            numbers=table(cost_table(read_costs(view.folder.path))),
        ),
    ]


def _useful_text(frame: pd.DataFrame) -> str:
    """The useful share over all runs; empty if no run has trained a fold."""
    available = (frame["slots"] * (frame["seconds"] - frame["start_up_s"])).sum()
    if available <= 0 or not frame["n_folds"].any():
        return ""
    share = frame["training_s"].sum() / available
    return f" Useful share: {share:.0%} of the slots' time since the first job of each run."


def faults(view: StudyView) -> list[str]:
    """Failures, restarts and warnings."""
    frame = frames.faults(view.data)
    if frame.empty:
        return [paragraphs("None: no trial failed, and the logs have no warning.")]
    columns = (
        Column("what", frame["what"].tolist(), right=False),
        Column("times", [f"{times:,}" for times in frame["times"]]),
        Column("text", frame["text"].tolist(), right=False),
        Column("where", frame["where"].tolist(), right=False),
    )
    note = (
        "Trials that ended without a score; then, from log.txt and logs/, restarts (lost "
        "worker groups, folds that resumed), warnings and errors. Lines that "
        "differ in numbers alone count as one."
    )
    runs = f"{counted(len(view.data.runs), 'run')} of the study are recorded."
    runs = runs if len(view.data.runs) > 1 else ""
    return [paragraphs(runs), table(Table("Faults met", columns, (note,)), sortable=True)]


def reproduce(view: StudyView) -> list[str]:
    """The command and the configuration of each trial."""
    folder, path = view.folder, view.folder.path
    if not view.data.trials:
        return []
    words = view.data.command
    parts = [paragraphs("The command of the last run:"), code(command_line(*words))]
    parts = parts if words else []
    data = view.data.data_folder or "DIR"
    parts.append(
        paragraphs(
            "One trial: its command trains the same folds with the same cache keys; folds in "
            "the fold store are not trained again."
        )
    )
    order = [*view.data.finished]
    order += [trial for trial in view.data.trials if trial not in order]
    for trial in order:
        command = command_line(
            *("train", trial.path / "experiment.yaml", "--data", data),
            *("--folds", path / "rows.parquet"),
            *("--study", f"{folder.name}-{trial.path.name}"),
            *("--results", path.parent),
        )
        parts.append(_configuration(trial, command))
    return parts


def _configuration(trial: StoredTrial, command: str) -> str:
    """The command and the experiment of a trial, folded away."""
    title = f"trial {trial.number:04d}" + ("" if trial.finished else f", {trial.state}")
    try:
        text = (trial.path / "experiment.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        text = f"experiment.yaml cannot be read: {one_line(error)}"
    return f"<details><summary>{title}</summary>{code(command)}{code(text)}</details>"


def _certificate(blend: dict[str, Any]) -> list[str]:
    """What is certain about the fit, in sentences."""
    texts = []
    gap = blend.get("gap")
    if gap is not None:
        texts.append(
            f"Certificate: no weights of these models have an in-sample KL lower by more than "
            f"{gap:.1e} nats (duality gap of the fit)."
        )
    for against, found in (blend.get("nested_minus") or {}).items():
        objective = found.get(blend.get("fit_rows", "")) or {}
        if objective:
            ends = ends_cell(objective.get("low"), objective.get("high"), signs=True)
            texts.append(
                f"Against {ALTERNATIVES.get(against, against)}: nested difference "
                f"{signed(objective['mean'])} {ends}, {found['verdict']}."
            )
    return texts
