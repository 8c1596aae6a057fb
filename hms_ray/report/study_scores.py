"""The scores and the leaderboard of a study's report."""

from __future__ import annotations

from typing import Any

from hms_ray.display.cells import (
    OPTIMISTIC_LEGEND,
    RECALIBRATED,
    RECALIBRATED_LEGEND,
    TIE_LEGEND,
    score_text,
)
from hms_ray.display.leaderboard import columns_of, has_recalibrated
from hms_ray.display.tables import Column, Table
from hms_ray.display.trial_choice import choice_text
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.report import frames
from hms_ray.report.page import code, paragraphs, score_box, table
from hms_ray.report.study_view import (
    OPTIMISTIC_MARK,
    StudyView,
    ends_cell,
    interval_cell,
)
from hms_ray.study.confirmation import confirmation_table, confirmed_trials
from hms_ray.study.holdout import openings
from hms_ray.study.refit import closed_text
from hms_ray.text import command_line, counted


def scores(view: StudyView) -> list[str]:
    """The best trial, the nested score of choosing it, the blend and the hold-out."""
    choice = view.data.choice()
    boxes = []
    if choice is not None and choice.best_trial is not None:
        mark = OPTIMISTIC_MARK if choice.optimistic else ""
        best = view.data.trial(choice.best_trial)
        recalibrated = None if best is None else best.recalibrated.get(view.objective)
        boxes.append(
            score_box(
                f"Best trial, {choice.best_trial:04d}{mark}",
                score_text(choice.best_score),
                f"{view.score}, on the rows that chose it; "
                f"{RECALIBRATED} {score_text(recalibrated)}",
            )
        )
        if choice.nested is not None:
            boxes.append(
                score_box(
                    f"Choice of the trial, nested{mark}",
                    score_text(choice.nested),
                    f"{view.score} {ends_cell(choice.low, choice.high)}, on other patients",
                )
            )
    boxes += _blend_box(view)
    opened, held_out = _hold_out(view)
    boxes += opened
    if not boxes:
        return []
    text = "" if choice is None else choice_text(choice)
    return [f'<div class="scores">{"".join(boxes)}</div>', paragraphs(text), *held_out]


def _blend_box(view: StudyView) -> list[str]:
    blend = view.data.blend
    if blend is None:
        return []
    mark = OPTIMISTIC_MARK if blend.get("optimistic") else ""
    objective = blend.get("fit_rows", view.objective)
    ends = blend.get("nested_interval") or {}
    return [
        score_box(
            f"Blend, nested{mark}",
            score_text(blend["nested"].get(objective)),
            f"{SCORE_NAMES[objective]} {ends_cell(ends.get('low'), ends.get('high'))}, "
            f"{blend['method']} of {counted(len(blend['members']), 'model')}",
        )
    ]


def _hold_out(view: StudyView) -> tuple[list[str], list[str]]:
    """Boxes and a table of the latest opening of the hold-out."""
    if "holdout" not in view.folder.identity.get("data", {}):
        return [], []
    found: list[dict[str, Any]] = []
    with view.data.noted("Openings of the hold-out"):
        found = openings(view.folder)
    closed = None
    with view.data.noted("A refit on the hold-out"):
        closed = closed_text(view.folder)
    if not found and closed is not None:
        return [], [paragraphs(f"The held-out patients cannot be scored any more: {closed}.")]
    if not found:
        command = command_line("holdout", view.folder.name)
        text = "The held-out patients were not scored yet. When all choices are made: "
        return [], [paragraphs(text), code(command)]
    last, boxes, rows = found[-1], [], []
    for one in last.get("scores", []):
        single = (one.get("single_fold_models") or {}).get(view.objective) or {}
        mean = (one.get("mean_of_fold_models") or {}).get(view.objective) or {}
        boxes.append(
            score_box(
                f"Hold-out, {one['name']}",
                score_text(single.get("mean", mean.get("mean"))),
                f"{view.score} {ends_cell(single.get('low'), single.get('high'))}, patients that "
                "chose nothing",
            )
        )
        out_of_fold = (one.get("out_of_fold") or {}).get(view.objective)
        rows.append(
            (one["name"], interval_cell(single), interval_cell(mean), interval_cell(out_of_fold))
        )
    names = ("model", "single fold models", "mean of the fold models", "out-of-fold")
    columns = tuple(
        Column(name, [row[place] for row in rows], right=place > 0)
        for place, name in enumerate(names)
    )
    times = counted(len(found), "time")
    note = f"Opened {times}, last on {last.get('date')}. {view.score} with 95% intervals."
    return boxes, [table(Table("Held-out patients", columns, (note,)))]


def leaderboard(view: StudyView) -> list[str]:
    """All trials with intervals and ties, and those confirmed with new seeds."""
    frame = frames.trials(view.data)
    if frame.empty:
        return []
    ends = [ends_cell(low, high) for low, high in zip(frame["low"], frame["high"], strict=True)]
    columns = columns_of(frame.drop(columns=["low", "high"]))
    place = next(n for n, one in enumerate(columns) if one.title == view.score)
    columns.insert(place + 1, Column("95% interval", ends))
    known = {f"{trial.number:04d}" for trial in view.data.finished}
    unread = frame["rank"].notna() & ~frame["trial"].isin(known)
    notes = [
        (
            "Intervals are clustered by patient. They describe one trial each: two trials that "
            "share rows differ by less, so ties are found by their paired difference."
        ),
        TIE_LEGEND,
    ]
    if has_recalibrated(frame):
        notes.append(RECALIBRATED_LEGEND)
    if frame["optimistic"].any():
        notes.append(OPTIMISTIC_LEGEND.removeprefix("* "))
    if unread.any():
        numbers = ", ".join(frame.loc[unread, "trial"])
        notes.append(f"Without predictions, and so without interval and tie: {numbers}.")
    best = 0 if frame["rank"].notna().any() else None
    parts = [
        table(
            Table("All trials, best first", tuple(columns), tuple(notes)),
            sortable=True,
            best=best,
        )
    ]
    with view.data.noted("Trials confirmed with new seeds"):
        again = confirmation_table(confirmed_trials(view.folder), view.objective)
        if again is not None:
            parts.append(table(again))
    return parts
