"""The tables of a ladder: scores, differences, published figures, cost, weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.evaluate.step_scores import STAGE_2, GroupScore
from hms_ray.report.ladder_cells import detectable_cell, difference_cell, interval_text
from hms_ray.report.ladder_report import FLOORS, LadderReport, StepLine
from hms_ray.report.ladder_weights import weights_sheets
from hms_ray.report.sheet import Sheet, Style
from hms_ray.report.text_table import (
    OPTIMISTIC_LEGEND,
    WIDTH,
    Column,
    score,
    wrapped,
)
from hms_ray.text import counted

SIMULATED: Final = "simulated data"
TIE_LEGEND: Final = (
    "A tie: the paired 95% interval, clustered by patient, contains 0, so the rows do not "
    "say which is better; so is what is 0 in four decimals."
)
SAME_NOTE: Final = (
    "same: both predict exactly the same, for at this scale they are one experiment. That says "
    "nothing of the change."
)
DETECTABLE_NOTE: Final = (
    "The true difference that these rows would show with a chance of 80%; a tie says nothing "
    "of smaller ones."
)
RECALIBRATED_NOTE: Final = (
    "Both sides corrected by class biases and a temperature that were fitted on other "
    "patients' rows of the same votes. A difference that is gone here was one of class shares "
    "or confidence."
)
PUBLISHED_NOTE: Final = (
    "Published: out-of-fold KL on the real competition and public leaderboard of the series "
    "that the ladder follows. Its folds cannot be made again, its models are the files' full "
    "size, and each figure is the best of 12 evaluations on the rows that it is scored on, "
    "which makes it optimistic."
)
SIMULATED_NOTE: Final = (
    "Ours are from simulated data, so levels need not agree; the signs of differences may be "
    "compared."
)
STAGE_2_NOTE: Final = (
    "Two-stage figures were published on the rows of the second stage alone (5 or more votes, "
    "and unanimous rows of 4): they stand beside ours on those rows and compare with no figure "
    "on all rows."
)


def render_ladder(report: LadderReport, width: int = WIDTH) -> str:
    """The tables as text.

    Args:
        report: what to tell.
        width: characters a line.
    """
    parts = [wrapped(heading(report), width)]
    parts += [sheet.to_text(width) for sheet in ladder_sheets(report, "text")]
    return "\n\n".join("\n".join(part) for part in parts)


def heading(report: LadderReport) -> str:
    """How many steps on how many rows of what data."""
    data = f"on {SIMULATED}" if report.simulated else "on recorded data"
    return (
        f"Ladder of {counted(len(report.steps), 'step')} {data}: "
        f"{counted(report.n_rows('kl_all'), 'row')} of "
        f"{counted(report.n_patients(), 'patient')}, "
        f"{counted(report.n_rows('kl_4'), 'row')} of >= 4 and "
        f"{report.n_rows('kl_10'):,} of >= 10 votes; scale {report.about['scale']}, "
        f"seed {report.about['seed']}."
    )


def ladder_sheets(report: LadderReport, style: Style) -> list[Sheet]:
    """Every table, for text (short cells) or for Markdown (cells in words)."""
    sheets = [_steps(report, style), _scores(report, style), _bootstraps(report, style)]
    sheets += _floors(report, style)
    sheets.append(_differences(report, style, recalibrated=False))
    sheets.append(_differences(report, style, recalibrated=True))
    sheets += [_detectable(report, style), _recalibrated(report, style)]
    sheets += [_published(report, style), _cost(report, style), *weights_sheets(report, style)]
    return sheets


def _head(report: LadderReport, style: Style) -> list[Column]:
    """Number and name of each step; the number carries the mark of optimistic scores."""
    steps = report.steps
    numbers = [f"{n}{'*' if step.optimistic else ' '}" for n, step in enumerate(steps, 1)]
    return [
        Column("#", numbers if style == "text" else [number.strip() for number in numbers]),
        Column("step", [step.name for step in steps], right=False, names=True),
    ]


def _marks(report: LadderReport) -> tuple[str, ...]:
    return (OPTIMISTIC_LEGEND,) if any(step.optimistic for step in report.steps) else ()


def _against(report: LadderReport, style: Style) -> Column:
    def cell(name: str | None) -> str:
        if name is None:
            return "-"
        return str(report.number(name)) if style == "text" else f"{report.number(name)} {name}"

    cells = [cell(step.before) for step in report.steps]
    return Column("vs" if style == "text" else "against", cells, right=style == "text")


def _by_objective(
    report: LadderReport, cell: Callable[[StepLine, GroupScore, str], str]
) -> list[Column]:
    """A column for each objective, ``-`` where it has no rows."""
    columns = []
    for group, title in SCORE_NAMES.items():
        cells = [
            "-" if (found := step.scores[group]) is None else cell(step, found, group)
            for step in report.steps
        ]
        columns.append(Column(title, cells))
    return columns


def _steps(report: LadderReport, style: Style) -> Sheet:
    columns = [
        *_head(report, style),
        _against(report, style),
        Column("chain", [step.chain for step in report.steps], right=False),
        Column("what it changes", [step.change for step in report.steps], right=False),
    ]
    notes = _marks(report)
    if alike := report.same_experiments():
        names = "; ".join(", ".join(group) for group in alike)
        notes += (f"One experiment by several names at this scale, trained once: {names}.",)
    return Sheet("Steps", tuple(columns), notes, ("what it changes", "step"))


def _scores(report: LadderReport, style: Style) -> Sheet:
    columns = _by_objective(report, lambda step, found, group: interval_text(found.kl, style))
    note = (
        "KL divergence of out-of-fold predictions, nats, smaller is better; 95% interval "
        "clustered by patient."
    )
    return Sheet("Scores", (*_head(report, style), *columns), (note, *_marks(report)))


def _bootstraps(report: LadderReport, style: Style) -> Sheet:
    def cell(step: StepLine, found: GroupScore, group: str) -> str:
        ends = (found.bootstrap.low, found.bootstrap.high)
        return " to ".join(score(end) if math.isfinite(end) else "?" for end in ends)

    notes = ("95% percentile interval of 2,000 bootstrap samples of patients, a check.",)
    columns = (*_head(report, style), *_by_objective(report, cell))
    return Sheet("Scores: intervals by bootstrap", columns, notes)


def _floors(report: LadderReport, style: Style) -> list[Sheet]:
    sheets = []
    for floor, whose in FLOORS.items():
        if floor not in (report.about["floors"] or {}):
            continue

        def cell(step: StepLine, found: GroupScore, group: str, floor: str = floor) -> str:
            distance = report.floor_distance(step, floor, group)
            if distance is None:
                return "-"
            share = "-" if distance.share is None else f"{distance.share:.0%}"
            return f"{distance.above:+.4f} {share:>4}"

        note = "KL above the floor, and how much of the way to it from the class means is covered."
        columns = (*_head(report, style), *_by_objective(report, cell))
        sheets.append(Sheet(f"Distance to {whose}", columns, (note,)))
    return sheets


def _differences(report: LadderReport, style: Style, *, recalibrated: bool) -> Sheet:
    def cell(step: StepLine, found: GroupScore, group: str) -> str:
        chosen = found.recalibrated_difference if recalibrated else found.difference
        return difference_cell(chosen, style)

    title, notes = "Difference to the step before", ["Below 0 the step is better.", TIE_LEGEND]
    if style == "text":
        notes[0] = "Mean +- half of its 95% interval; below 0 the step is better; t: a tie."
    if recalibrated:
        title += ", both recalibrated"
        notes[1] = RECALIBRATED_NOTE
    if any(
        score is not None and score.difference is not None and score.difference.same
        for step in report.steps
        for score in step.scores.values()
    ):
        notes.append(SAME_NOTE)
    head = (*_head(report, style), _against(report, style))
    return Sheet(title, (*head, *_by_objective(report, cell)), tuple(notes))


def _detectable(report: LadderReport, style: Style) -> Sheet:
    columns = _head(report, style)
    for recalibrated in (False, True):
        for group, title in SCORE_NAMES.items():
            cells = [detectable_cell(step.scores[group], recalibrated) for step in report.steps]
            columns.append(Column(f"{title} recal." if recalibrated else title, cells))
    return Sheet("Smallest detectable difference", tuple(columns), (DETECTABLE_NOTE,))


def _recalibrated(report: LadderReport, style: Style) -> Sheet:
    def cell(step: StepLine, found: GroupScore, group: str) -> str:
        return "-" if found.recalibrated is None else interval_text(found.recalibrated, style)

    notes = ("Each row corrected by what was fitted on other patients' rows of these votes.",)
    columns = (*_head(report, style), *_by_objective(report, cell))
    return Sheet("Scores after recalibration", columns, notes)


def _published(report: LadderReport, style: Style) -> Sheet:
    def published(group: str) -> list[str]:
        return [
            score(step.published_cv if step.published_group == group else None)
            for step in report.steps
        ]

    leaderboard = [
        "-" if step.published_lb is None else f"{step.published_lb:.2f}" for step in report.steps
    ]
    columns = [
        *_head(report, style),
        Column("our KL all", [score(step.kl("kl_all")) for step in report.steps]),
        Column("published all", published("kl_all")),
        Column("our KL stage-2", [score(step.kl(STAGE_2)) for step in report.steps]),
        Column("published stage-2", published(STAGE_2)),
        Column("published board", leaderboard),
    ]
    rows = f"Rows of the second stage here: {report.n_rows(STAGE_2):,}."
    notes = (PUBLISHED_NOTE, *((SIMULATED_NOTE,) if report.simulated else ()), STAGE_2_NOTE, rows)
    return Sheet("Published figures beside ours", tuple(columns), notes)


def _cost(report: LadderReport, style: Style) -> Sheet:
    columns = [
        *_head(report, style),
        Column("fold-minutes", [f"{step.fold_minutes:.1f}" for step in report.steps]),
        Column("saved", [f"{step.saved_minutes:.1f}" for step in report.steps]),
        Column("spent", [f"{step.fold_minutes - step.saved_minutes:.1f}" for step in report.steps]),
    ]
    total, saved = report.trained_minutes()
    notes = (
        "A blend's are its members'.",
        f"All experiments, each counted once: {total:.1f} fold-minutes by themselves, of which "
        f"stages taken from the store saved {saved:.1f}"
        + (f" ({saved / total:.0%})." if total else "."),
    )
    return Sheet("Cost", tuple(columns), notes)
