"""Pooled ladders as text, as a page, and as what a forest plot draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.evaluate.step_scores import GROUPS, RESOLUTION, STAGE_2
from hms_ray.report.forest_plot import ForestPlot, ForestRow, Mark
from hms_ray.report.ladder_cells import detectable_cell, difference_cell
from hms_ray.report.ladder_page import origin
from hms_ray.report.ladder_table import (
    DETECTABLE_NOTE,
    PUBLISHED_NOTE,
    RECALIBRATED_NOTE,
    SAME_NOTE,
    SIMULATED,
    TIE_LEGEND,
)
from hms_ray.report.pooled_report import Outcome, PooledReport, PooledStep
from hms_ray.report.sheet import Sheet, Style, markdown_text
from hms_ray.report.text_table import (
    OPTIMISTIC_LEGEND,
    WIDTH,
    Column,
    wrapped,
)
from hms_ray.text import counted

_SHORT: Final[Mapping[Outcome, str]] = {
    "reproduces": "reproduces",
    "opposite": "opposite",
    "tie": "tie",
    "no published figure": "-",
    "not comparable": "other rows",
}
_GROUP_TEXTS: Final = {
    "kl_all": "all rows",
    "kl_4": "rows of >= 4 votes",
    "kl_10": "rows of >= 10 votes",
    STAGE_2: "rows of the second stage",
}
OUTCOME_NOTE: Final = (
    "A published difference reproduces only where the interval excludes 0 on its side; it is "
    "opposite where the interval excludes 0 on the other. Published figures are of all rows, so "
    "on rows of many votes only their sign is looked for."
)
OTHER_ROWS_NOTE: Final = (
    "Two-stage models were published on the rows of the second stage alone and the others on all "
    "rows: the difference of the two is of other rows, says nothing and is not compared."
)
SEEDS_NOTE: Final = (
    "Intervals are for patients, those of different ladders being different ones; what another "
    "training seed changes is in them only as far as the pooled ladders differ in it."
)


def render_pooled(report: PooledReport, width: int = WIDTH) -> str:
    """The tables as text.

    Args:
        report: what to tell.
        width: characters a line.
    """
    parts = [wrapped(_heading(report), width)]
    parts += [sheet.to_text(width) for sheet in _sheets(report, "text")]
    parts.append([line for note in _notes(report) for line in wrapped(note, width)])
    return "\n\n".join("\n".join(part) for part in parts)


def pooled_page(report: PooledReport, plots: Mapping[str, str]) -> str:
    """The page, Markdown.

    Args:
        report: what to tell.
        plots: title -> file of a picture beside the page.
    """
    title = "Pooled ladders" + (f": {SIMULATED}" if report.simulated else "")
    lines = [f"# {title}", "", markdown_text(_heading(report))]
    for name, file in plots.items():
        lines += ["", f"![{name}: difference to the step before]({file})"]
    for sheet in _sheets(report, "markdown"):
        lines += ["", *sheet.to_markdown()]
    lines += ["", "## How to read it"]
    lines += [part for note in _notes(report) for part in ("", markdown_text(note))]
    for kind, ladders in (("Ladder", report.ladders), ("Negative control", report.controls)):
        for name, about in ladders.items():
            lines += ["", f"## {kind} {markdown_text(name)}", "", *origin(about)]
    return "\n".join(lines) + "\n"


def pooled_plot(report: PooledReport, *, recalibrated: bool) -> ForestPlot:
    """What the forest plot draws: a panel for each objective."""
    groups = tuple(OBJECTIVES)
    data = SIMULATED if report.simulated else "recorded data"
    title = f"Difference to the step before, {data}"
    ours = "simulated" if report.simulated else "ours"
    return ForestPlot(
        title=title + (", both recalibrated" if recalibrated else ""),
        subtitle=(
            f"{_how_many(report)}, {counted(report.n_patients, 'patient')}; 95% intervals "
            "paired and clustered by patient. Published: real competition, all rows."
        ),
        series=(ours, "negative control", "published"),
        panels=tuple(
            f"{_GROUP_TEXTS[group]} ({report.n_rows[group]:,})".replace(">= ", "\u2265 ")
            for group in groups
        ),
        rows=tuple(_plot_row(step, groups, recalibrated) for step in report.steps),
        axis="KL difference, nats; below 0 better",
        footnote=OPTIMISTIC_LEGEND if any(step.optimistic for step in report.steps) else "",
    )


def _plot_row(step: PooledStep, groups: tuple[str, ...], recalibrated: bool) -> ForestRow:
    def mark(group: str, control: bool) -> Mark | None:
        found = step.difference(group, recalibrated=recalibrated, control=control)
        if found is None or found.same:
            return None
        return Mark(found.mean, found.low, found.high, found.tie)

    return ForestRow(
        label=step.name + (" *" if step.optimistic else ""),
        against=f"minus {step.before}",
        ours=tuple(mark(group, False) for group in groups),
        control=tuple(mark(group, True) for group in groups),
        published=tuple(
            step.published if step.published_group == group else None for group in groups
        ),
    )


def _how_many(report: PooledReport) -> str:
    number = len(report.ladders)
    return f"{number} ladders pooled" if number > 1 else "1 ladder"


def _heading(report: PooledReport) -> str:
    data = SIMULATED if report.simulated else "recorded data"
    text = (
        f"{_how_many(report)} ({', '.join(report.ladders)}), {data}: "
        f"{counted(report.n_rows['kl_all'], 'row')} of {counted(report.n_patients, 'patient')}, "
        f"{counted(report.n_rows['kl_4'], 'row')} of >= 4 and "
        f"{report.n_rows['kl_10']:,} of >= 10 votes."
    )
    if report.controls:
        text += f" Negative control: {', '.join(report.controls)}."
    return text


def _notes(report: PooledReport) -> list[str]:
    notes = [OUTCOME_NOTE, TIE_LEGEND]
    differences = [step.difference("kl_all") for step in report.steps]
    if any(difference is not None and difference.same for difference in differences):
        notes.append(SAME_NOTE)
    if any(step.other_rows for step in report.steps):
        notes.append(OTHER_ROWS_NOTE)
    notes += [PUBLISHED_NOTE, SEEDS_NOTE]
    if any(step.optimistic for step in report.steps):
        notes.append(OPTIMISTIC_LEGEND + ", or those of the step before were")
    return notes


def _sheets(report: PooledReport, style: Style) -> list[Sheet]:
    sheets = [_steps(report)] if style == "text" else []
    sheets += [
        _differences(report, style, group, recalibrated)
        for recalibrated in (False, True)
        for group in GROUPS
        if group in OBJECTIVES or _on_stage_2(report)
    ]
    return [*sheets, _detectable(report, style), _by_ladder(report, style)]


def _on_stage_2(report: PooledReport) -> bool:
    return any(step.published_group == STAGE_2 for step in report.steps)


def _head(report: PooledReport, style: Style) -> list[Column]:
    """Which step against which; text has numbers, for it cuts names."""
    steps = report.steps
    names = [step.name + (" *" if step.optimistic else "") for step in steps]
    if style == "markdown":
        against = [step.before for step in steps]
        return [Column("step", names, right=False), Column("minus", against, right=False)]
    marks = ["*" if step.optimistic else " " for step in steps]
    numbers = [f"{step.number}{mark}" for step, mark in zip(steps, marks, strict=True)]
    return [
        Column("#", numbers),
        Column("step", [step.name for step in steps], right=False, names=True),
        Column("vs", [str(step.before_number) for step in steps]),
    ]


def _steps(report: PooledReport) -> Sheet:
    columns = [
        *_head(report, "text"),
        Column("called", [step.before for step in report.steps], right=False, names=True),
        Column("what it changes", [step.change for step in report.steps], right=False),
    ]
    return Sheet("Steps", tuple(columns), (), ("what it changes", "called", "step"))


def _differences(report: PooledReport, style: Style, group: str, recalibrated: bool) -> Sheet:
    def differences(control: bool) -> list[str]:
        found = [
            step.difference(group, recalibrated=recalibrated, control=control)
            for step in report.steps
        ]
        return [difference_cell(one, style) for one in found]

    outcomes = [step.outcome(group, recalibrated=recalibrated) for step in report.steps]
    published = [
        "-" if step.published is None else f"{step.published:+.4f}" for step in report.steps
    ]
    shown = [
        "-" if outcome is None else _SHORT[outcome] if style == "text" else outcome
        for outcome in outcomes
    ]
    columns = [
        *_head(report, style),
        Column("published", published),
        Column("simulated" if report.simulated else "ours", differences(False)),
    ]
    if report.controls:
        columns.append(Column("control", differences(True)))
    columns.append(Column("published sign", shown, right=False))
    notes = _outcomes(report, group, recalibrated)
    title = f"Difference to the step before, {_GROUP_TEXTS[group]} ({report.n_rows[group]:,})"
    if recalibrated:
        title += ", both recalibrated"
        notes.append(RECALIBRATED_NOTE)
    return Sheet(title, tuple(columns), tuple(notes))


def _outcomes(report: PooledReport, group: str, recalibrated: bool) -> list[str]:
    """How many steps have each outcome, in the negative control too."""
    notes = []
    subjects = ("Steps by what became of the published sign", "The same in the negative control")
    for subject, control in zip(subjects, (False, True), strict=True):
        counts = report.counts(group, recalibrated=recalibrated, control=control)
        if counts:
            told = ", ".join(f"{outcome} {number}" for outcome, number in counts.items())
            notes.append(f"{subject}: {told}.")
    return notes


def _detectable(report: PooledReport, style: Style) -> Sheet:
    columns = _head(report, style)
    for control in (False, True) if report.controls else (False,):
        for group in OBJECTIVES:
            scores = [step.control if control else step.ours for step in report.steps]
            found = [None if one is None else one[group] for one in scores]
            cells = [detectable_cell(one, recalibrated=False) for one in found]
            title = SCORE_NAMES[group] + (" control" if control else "")
            columns.append(Column(title, cells))
    title = "Smallest detectable difference"
    return Sheet(title, tuple(columns), (DETECTABLE_NOTE,))


def _by_ladder(report: PooledReport, style: Style) -> Sheet:
    columns = _head(report, style)
    for group, title in SCORE_NAMES.items():
        cells = [_ladder_cell(step.by_ladder[group], style) for step in report.steps]
        columns.append(Column(title, cells))
    note = f"In this order: {', '.join(report.ladders)}."
    if style == "text":
        note = "Lowest and highest, and in how many of the ladders it is below 0."
    return Sheet("Difference in each ladder", tuple(columns), (note,))


def _ladder_cell(means: Sequence[float | None], style: Style) -> str:
    """Every ladder's difference; text has room for the range alone."""
    if style == "markdown":
        return " ".join("-" if mean is None else f"{mean:+.4f}" for mean in means)
    known = [mean for mean in means if mean is not None]
    if not known:
        return "-"
    below = sum(mean <= -RESOLUTION for mean in known)
    return f"{min(known):+.3f}..{max(known):+.3f} {below}/{len(known)}"
