"""Ladders combined over seeds: as text and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hms_ray.display.cells import OPTIMISTIC_LEGEND, difference_text
from hms_ray.display.combined_report import CombinedReport
from hms_ray.display.ladder_page import origin
from hms_ray.display.ladder_published import PUBLISHED_NOTE
from hms_ray.display.ladder_table import (
    DETECTABLE_NOTE,
    RECALIBRATED_NOTE,
    SAME_NOTE,
    SIMULATED,
    TIE_NOTE,
    baseline_column,
    data_text,
    detectable_text,
    step_column,
)
from hms_ray.display.tables import Column, Table, markdown_text, to_markdown, to_text
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.evaluate.step_scores import GROUPS, STAGE_2
from hms_ray.text import counted

GROUP_TEXTS: Final = {
    "kl_all": "all rows",
    "kl_4": "rows with >= 4 votes",
    "kl_10": "rows with >= 10 votes",
    STAGE_2: "rows of the second stage",
}
OUTCOME_NOTE: Final = (
    "A published difference reproduces if the interval excludes 0 on the same side, and is "
    "opposite if the interval excludes 0 on the other side. Published figures are on all rows; "
    "on other rows only the sign is compared."
)
LIKE_NOTE: Final = (
    "Published differences are between the last evaluations (last) if the ladders keep the last "
    "weights and both figures are known, otherwise between the best ones (best). A choice of the "
    "best evaluation differs from step to step, so compare a difference marked best with care."
)
OTHER_ROWS_NOTE: Final = (
    "Two-stage models were published on the rows of the second stage and the others on all rows: "
    "a difference between the two is not comparable."
)
CLUSTER_NOTE: Final = (
    "Intervals are clustered by patient; patients of different data sets count as different."
)
SEEDS_NOTE: Final = (
    "Differences are means over training seeds. Their variance is the patient-clustered variance "
    "plus that of the mean over seeds."
)
UNPRICED_NOTE: Final = (
    "The intervals do not include differences between training seeds: at least one data set was "
    "trained with one seed. Another seed may move a difference out of its interval. Train several "
    "with --seeds."
)


def render_combined(report: CombinedReport, width: int | None = None) -> str:
    """Summary, tables and notes as text.

    Args:
        report: of the ladders.
        width: characters per line; default: as ``to_text``.
    """
    return to_text(
        _heading(report), _verdict(report), *_tables(report), "\n".join(_notes(report)), width=width
    )


def combined_page(report: CombinedReport, plots: Mapping[str, str]) -> str:
    """The page, Markdown.

    Args:
        report: of the ladders.
        plots: title -> file of a picture in the folder of the page.
    """
    title = "Ladders combined over seeds" + (f": {SIMULATED}" if report.simulated else "")
    lines = [f"# {title}", "", markdown_text(_heading(report)), "", markdown_text(_verdict(report))]
    for name, file in plots.items():
        lines += ["", f"![{name}: difference to the baseline]({file})"]
    for table in _tables(report):
        lines += ["", *to_markdown(table)]
    lines += ["", "## How to read it"]
    lines += [part for note in _notes(report) for part in ("", markdown_text(note))]
    for kind, ladders in (("Ladder", report.ladders), ("Negative control", report.controls)):
        for name, about in ladders.items():
            lines += ["", f"## {kind} {markdown_text(name)}", "", *origin(about)]
    return "\n".join(lines) + "\n"


def n_ladders_text(report: CombinedReport) -> str:
    """How many ladders are combined."""
    number = len(report.ladders)
    if number == 1:
        return "1 ladder"
    same = number > report.n_data_sets
    data = f" on {counted(report.n_data_sets, 'data set')}" if same else ""
    return f"{number} ladders combined{data}"


def _heading(report: CombinedReport) -> str:
    text = (
        f"{n_ladders_text(report)} ({', '.join(report.ladders)}), {data_text(report)}: "
        f"{counted(report.n_rows['kl_all'], 'row')} of {counted(report.n_patients, 'patient')}, "
        f"{counted(report.n_rows['kl_4'], 'row')} with >= 4 and "
        f"{report.n_rows['kl_10']:,} with >= 10 votes."
    )
    if report.controls:
        text += f" Negative control: {', '.join(report.controls)}."
    return text


def _verdict(report: CombinedReport) -> str:
    groups = ("kl_all",) if report.has_published else ("kl_all", "kl_10")
    return " ".join(
        sentence for group in groups for sentence in _outcomes(report, group, recalibrated=False)
    )


def _outcomes(report: CombinedReport, group: str, *, recalibrated: bool) -> list[str]:
    """How many steps have each outcome, in the negative control too."""
    kind = "Published differences" if report.has_published else "Differences"
    sentences = []
    for control, where in ((False, ""), (True, " in the negative control")):
        chosen = {"recalibrated": recalibrated, "control": control}
        of_group = report.counts if report.has_published else report.verdicts
        counts = of_group(group, **chosen)
        if counts:
            found = ", ".join(f"{outcome} {number}" for outcome, number in counts.items())
            sentences.append(f"{kind}{where}, {GROUP_TEXTS[group]}: {found}.")
    return sentences


def _notes(report: CombinedReport) -> list[str]:
    notes = [TIE_NOTE, f"Recalibrated: {RECALIBRATED_NOTE}"]
    if report.has_published:
        notes.insert(0, OUTCOME_NOTE)
    differences = [step.difference("kl_all") for step in report.steps]
    if any(difference is not None and difference.same for difference in differences):
        notes.append(SAME_NOTE)
    if any(step.other_rows for step in report.steps):
        notes.append(OTHER_ROWS_NOTE)
    if report.has_published:
        notes += [PUBLISHED_NOTE, LIKE_NOTE]
    notes.append(CLUSTER_NOTE)
    notes.append(SEEDS_NOTE if report.seeds_priced else UNPRICED_NOTE)
    if any(step.optimistic for step in report.steps):
        notes.append(OPTIMISTIC_LEGEND.removesuffix(".") + ", or those of its baseline were.")
    return notes


def _tables(report: CombinedReport) -> list[Table]:
    on_stage_2 = any(step.published_group == STAGE_2 for step in report.steps)
    differences = [
        _differences(report, group, recalibrated=recalibrated)
        for recalibrated in (False, True)
        for group in GROUPS
        if group in OBJECTIVES or on_stage_2
    ]
    changes = Column("change", [step.change for step in report.steps], right=False)
    steps = Table("Steps", (*_names(report), changes))
    return [*differences, _detectable(report), _by_ladder(report), steps]


def _names(report: CombinedReport) -> tuple[Column, Column]:
    return step_column(report.steps), baseline_column(report.steps)


def _differences(report: CombinedReport, group: str, *, recalibrated: bool) -> Table:
    def differences(control: bool) -> list[str]:
        found = [
            step.difference(group, recalibrated=recalibrated, control=control)
            for step in report.steps
        ]
        return [difference_text(one) for one in found]

    outcomes = [step.outcome(group, recalibrated=recalibrated) or "-" for step in report.steps]
    published = [
        "-" if step.published is None else f"{step.published:+.4f} {step.published_of}"
        for step in report.steps
    ]
    columns = list(_names(report))
    if report.has_published:
        columns.append(Column("published", published))
    columns.append(Column("simulated" if report.simulated else "ours", differences(False)))
    if report.controls:
        columns.append(Column("control", differences(True)))
    if report.has_published:
        columns.append(Column("published sign", outcomes, right=False))
    notes = _outcomes(report, group, recalibrated=recalibrated)
    title = f"Difference to the baseline, {GROUP_TEXTS[group]} ({report.n_rows[group]:,})"
    if recalibrated:
        title += ", both recalibrated"
    return Table(title, tuple(columns), tuple(notes))


def _detectable(report: CombinedReport) -> Table:
    columns = list(_names(report))
    for control in (False, True) if report.controls else (False,):
        for group, title in SCORE_NAMES.items():
            scores = [step.control if control else step.ours for step in report.steps]
            found = [None if one is None else one.get(group) for one in scores]
            cells = [detectable_text(one, recalibrated=False) for one in found]
            columns.append(Column(title + (" control" if control else ""), cells))
    return Table("Smallest detectable difference", tuple(columns), (DETECTABLE_NOTE,))


def _by_ladder(report: CombinedReport) -> Table:
    columns = list(_names(report))
    for group, title in SCORE_NAMES.items():
        cells = [
            " ".join("-" if mean is None else f"{mean:+.4f}" for mean in step.by_ladder[group])
            for step in report.steps
        ]
        columns.append(Column(title, cells))
    note = f"In this order: {', '.join(report.ladders)}."
    return Table("Difference in each ladder", tuple(columns), (note,))
