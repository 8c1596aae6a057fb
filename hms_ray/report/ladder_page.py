"""The report of a ladder."""

from __future__ import annotations

from html import escape

from hms_ray.display.ladder_published import published_table
from hms_ray.display.ladder_table import heading, ladder_tables, step_column, verdict
from hms_ray.display.tables import Table
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.report import figures, ladder_figures
from hms_ray.report.ladder_frames import LadderData, step_curves, steps
from hms_ray.report.page import Page, Section, code, paragraphs, table

_SCORES, _DIFFERENCES, _COST = "Scores", "Difference to the baseline", "Cost"


def ladder_page(data: LadderData) -> Page:
    """The report of a ladder: published comparison, forest plot, scores, curves, cost."""
    report, name = data.report, data.folder.resolve().name
    page = Page(f"Ladder {name}", [heading(report), verdict(report)])
    published = published_table(report, step_column(report.steps))
    tables = {one.title: one for one in ladder_tables(report) if one.title != published.title}
    frame = steps(data)
    scores = page.figure(
        ladder_figures.step_scores(frame), "KL of each step with its 95% interval, by rows"
    )
    forest = [
        page.figure(
            ladder_figures.forest(frame, group),
            f"Forest plot: {title} of each step minus that of its baseline",
        )
        for group, title in SCORE_NAMES.items()
        if frame.loc[frame["group"] == group, "difference"].notna().any()
    ]
    sections = [
        ("Our scores and published figures", [table(published)]),
        (_DIFFERENCES, [*forest, *_taken(tables, _DIFFERENCES)]),
        ("Scores by step", [scores, *_taken(tables, _SCORES)]),
        ("Curves", _curves(page, data)),
        (_COST, _taken(tables, _COST)),
        ("Faults", [_failed(report.failed)]),
        ("More tables", [table(one, sortable=True) for one in tables.values()]),
        ("Reproduce", [code(str(report.about["command"]))]),
    ]
    for title, parts in sections:
        if found := [part for part in parts if part]:
            page.sections.append(Section(title, found))
    page.missing = data.missing
    return page


def _taken(tables: dict[str, Table], title: str) -> list[str]:
    """A table that is shown beside its figure, and so not again."""
    found = tables.pop(title, None)
    return [] if found is None else [table(found, sortable=True)]


def _curves(page: Page, data: LadderData) -> list[str]:
    # Steps are to these figures what trials of a study are.
    frame = step_curves(data).rename(columns={"step": "trial"})
    if frame.empty:
        return []
    names: list[str] = frame["trial"].unique().tolist()
    choices = {
        f"step {name}": figures.fold_curves(frame[frame["trial"] == name], "kl_all")
        for name in names
    }
    return [
        page.figure(
            figures.curves(frame, "kl_all", names[0]),
            "KL all over epochs of each fold of one step, with the starts of stages",
            choices=choices,
        )
    ]


def _failed(failed: dict[str, str]) -> str:
    if not failed:
        return paragraphs("None: every step has a result.")
    items = "".join(f"<li>{escape(f'{name}: {why}')}</li>" for name, why in failed.items())
    return f"<p>Steps without a result:</p><ul>{items}</ul>"
