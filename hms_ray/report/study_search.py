"""The search and the curves of a study's report."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from hms_ray.display.cells import score_text
from hms_ray.display.tables import Column, Table
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.report import figures, frames
from hms_ray.report.page import paragraphs, table
from hms_ray.report.study_view import (
    StudyView,
    score_cell,
)

N_BEST: Final = 6
"""Trials that stand out among the curves."""


def progress(view: StudyView) -> list[str]:
    """The best so far over trials and over hours of training."""
    frame = frames.progress(view.data)
    if frame["score"].notna().sum() < 2:
        return []
    steps = frame[frame["best"].diff().fillna(-1.0) < 0]
    numbers = table(
        Table(
            "New best trials",
            (
                Column("trial", [f"{number:04d}" for number in steps["trial"]], right=False),
                Column(view.score, [score_text(best) for best in steps["best"]]),
                Column("hours of training", [f"{hours:.2f}" for hours in steps["hours"]]),
            ),
        )
    )
    parts = [
        view.page.figure(
            figures.progress(frame, view.objective, by),
            f"{view.score} of each trial and the best so far over {what}",
            numbers=numbers if by == "trial" else "",
        )
        for by, what in (("trial", "trials"), ("hours", "hours of training"))
    ]
    text = (
        "The best so far is optimistic: the more trials, the lower the best of them by luck "
        "alone. The 5% of trials with the highest scores may lie above the picture."
    )
    return [f'<div class="pair">{"".join(parts)}</div>', paragraphs(text, css="note")]


def search(view: StudyView) -> list[str]:
    """Importance, slices and parallel coordinates of the searched values."""
    from hms_ray.report import search_figures

    study = search_figures.optuna_study(view.data)
    if study is None:
        return []
    parts = []
    with view.data.noted("The importance of the parameters"):
        parts.append(_importance(view, search_figures.importance(study)))
    with view.data.noted("Slices of the search"):
        parts.append(
            view.page.figure(
                search_figures.slices(study, view.objective),
                f"{view.score} of each trial over each searched parameter",
                "One point per finished trial. What other parameters do is not removed.",
            )
        )
    log = {name for name, one in view.folder.space().parameters.items() if one.log}
    figure = figures.parallel(frames.trials(view.data), view.objective, log)
    parts.append(
        view.page.figure(
            figure,
            "Parallel coordinates: one line per finished trial through its values",
            "Drag along an axis to keep the trials in that range; click it to keep all again. "
            "The same numbers stand in the leaderboard.",
        )
    )
    return parts


def _importance(view: StudyView, figure: Any) -> str:
    bars = figure.data[0]
    numbers = Table(
        "Importance",
        (
            Column("parameter", [str(name) for name in bars.y[::-1]], right=False),
            Column("importance", [f"{float(value):.3f}" for value in bars.x[::-1]]),
        ),
    )
    return view.page.figure(
        figure,
        f"Importance of each searched parameter for {view.score}",
        "Share of the variance of the score that a parameter explains (fANOVA, by Optuna), "
        "within the searched ranges and the trials of this study.",
        numbers=table(numbers),
    )


def curves(view: StudyView) -> list[str]:
    """Curves of all trials, and of each fold of one trial."""
    frame = frames.curves(view.data)
    if frame.empty or frame[view.objective].notna().sum() == 0:
        return []
    known = list(dict.fromkeys(frame["trial"].tolist()))
    order = [trial.number for trial in view.data.finished if trial.number in known]
    order += [number for number in known if number not in order]
    by_trial = dict(iter(frame.groupby("trial")))
    choices = {
        _choice_name(view, number): figures.fold_curves(by_trial[number], view.objective)
        for number in order
    }
    figure = figures.curves(frame, view.objective, order[0])
    numbers = _last_evaluations(view, by_trial[order[0]])
    return [
        view.page.figure(
            figures.all_curves(frame, view.objective, order[:N_BEST]),
            f"{view.score} over epochs, mean over folds, of all trials with the best ones "
            "standing out",
            "Of each evaluation on the fold's own validation rows. The scores of the "
            "leaderboard are of the kept weights and pooled over folds.",
        ),
        view.page.figure(
            figure,
            f"{view.score} over epochs of each fold of one trial, with the starts of stages",
            numbers=numbers,
            choices=choices,
        ),
    ]


def _choice_name(view: StudyView, number: int) -> str:
    trial = next(one for one in view.data.trials if one.number == number)
    if not trial.finished:
        return f"trial {number:04d}, {trial.state}"
    return f"trial {number:04d}, {view.score} {score_text(trial.scores[view.objective])}"


def _last_evaluations(view: StudyView, part: pd.DataFrame) -> str:
    last = part.groupby("fold").last().reset_index()
    columns = [
        Column("fold", [str(fold) for fold in last["fold"]]),
        Column("stage", last["stage"].astype(str).tolist(), right=False),
        Column("epoch", [f"{epoch:g}" for epoch in last["epoch"]]),
        *(
            Column(SCORE_NAMES[name], [score_cell(one) for one in last[name]])
            for name in OBJECTIVES
        ),
        Column("train loss", [score_cell(one) for one in last["train_loss"]]),
    ]
    title = f"Last evaluations of trial {part['trial'].iloc[0]:04d}"
    return table(Table(title, tuple(columns)))
