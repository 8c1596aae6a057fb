"""A forest plot of differences with intervals, a negative control and published figures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_ray.display.cells import OPTIMISTIC_LEGEND
from hms_ray.display.combined_report import CombinedReport, CombinedStep
from hms_ray.display.combined_table import GROUP_TEXTS, n_ladders_text
from hms_ray.display.ladder_table import data_text
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: Final = (("o", "#0b5cad", -0.25), ("D", "#b35900", 0.25), ("x", "#7b2d8e", 0.0))
"""Marker, colour and place within its row of our, the control's and the published
differences; places differ, so that equal differences do not hide each other."""


class Mark(NamedTuple):
    """A difference with the ends of its interval, nats; a tie is drawn hollow."""

    mean: float
    low: float
    high: float
    tie: bool


Marks = Sequence[Mark | None]
"""Our, the control's and the published difference of one step; None is not drawn."""


def step_marks(step: CombinedStep, group: str, *, recalibrated: bool) -> Marks:
    """The marks of a step on a group of rows; equal predictions have none."""
    marks: list[Mark | None] = []
    for control in (False, True):
        found = step.difference(group, recalibrated=recalibrated, control=control)
        if found is None or found.same:
            marks.append(None)
        else:
            marks.append(Mark(found.mean, found.low, found.high, found.tie))
    published = step.published if step.published_group == group else None
    return [*marks, None if published is None else Mark(published, published, published, False)]


def forest_figure(report: CombinedReport, *, recalibrated: bool) -> Figure:
    """The plot, one panel per objective; infinite ends reach the edge of a panel."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    n_rows = len(report.steps)
    figure = Figure(
        figsize=(3.5 + 3.2 * len(OBJECTIVES), 2.4 + 0.42 * n_rows), layout="constrained"
    )
    panels = figure.subplots(1, len(OBJECTIVES), sharex=True, sharey=True, squeeze=False)[0]
    marks = {
        group: [step_marks(step, group, recalibrated=recalibrated) for step in report.steps]
        for group in OBJECTIVES
    }
    every = [step for steps in marks.values() for step in steps]
    limits = _limits([mark for step in every for mark in step if mark is not None])
    for axes, (group, steps) in zip(panels, marks.items(), strict=True):
        _draw_panel(axes, steps, limits)
        title = f"{GROUP_TEXTS[group]} ({report.n_rows[group]:,})"
        axes.set_title(title.replace(">= ", "\u2265 "), fontsize="medium")
        axes.set_xlabel("KL difference, nats; below 0 is better", fontsize="small")
    names = [
        f"{step.name}{' *' if step.optimistic else ''}\nminus {step.before}"
        for step in report.steps
    ]
    panels[0].set_yticks(range(n_rows), names, fontsize="small")
    panels[0].set_ylim(n_rows - 0.5, -0.5)
    panels[0].set_xlim(*limits)
    published = " Published: real competition, all rows." if report.has_published else ""
    figure.suptitle(
        f"{_title(report, recalibrated)}\n{n_ladders_text(report)}, "
        f"{counted(report.n_patients, 'patient')}; 95% intervals paired and clustered by "
        f"patient.{published}",
        fontsize="medium",
    )
    ours = "simulated" if report.simulated else "ours"
    footnote = OPTIMISTIC_LEGEND if any(step.optimistic for step in report.steps) else ""
    figure.legend(
        handles=[
            Line2D([], [], linestyle="none", marker=marker, color=color, label=name)
            for number, (name, (marker, color, _)) in enumerate(
                zip((ours, "negative control", "published"), _STYLES, strict=True)
            )
            if any(step[number] is not None for step in every)
        ],
        title=f"hollow: a tie, the 95% interval contains 0\n{footnote}".rstrip(),
        loc="outside lower center",
        ncols=3,
        fontsize="small",
        title_fontsize="small",
    )
    return figure


def _title(report: CombinedReport, recalibrated: bool) -> str:
    end = ", both recalibrated" if recalibrated else ""
    return f"Difference to the baseline, {data_text(report)}{end}"


def _draw_panel(axes: Axes, steps: Sequence[Marks], limits: tuple[float, float]) -> None:
    low, high = limits
    axes.axvline(0, color="black", linewidth=1)
    axes.grid(axis="x", color="#d1d9e0", linewidth=0.8)
    for line, marks in enumerate(steps):
        if line % 2 == 0:
            axes.axhspan(line - 0.5, line + 0.5, color="#f3f4f6", zorder=0)
        for mark, (marker, color, lane) in zip(marks, _STYLES, strict=True):
            if mark is None:
                continue
            y, face = line + lane, "white" if mark.tie else color
            axes.plot([max(mark.low, low), min(mark.high, high)], [y, y], color=color)
            axes.plot([mark.mean], [y], marker, color=color, markerfacecolor=face)


def _limits(marks: Sequence[Mark]) -> tuple[float, float]:
    """Horizontal limits around 0 and all finite values."""
    values = [0.0, *(value for mark in marks for value in mark[:3])]
    finite = [value for value in values if math.isfinite(value)]
    margin = 0.05 * max(max(finite) - min(finite), 1e-6)
    return min(finite) - margin, max(finite) + margin


def forest_svg(report: CombinedReport, *, recalibrated: bool) -> str:
    """The plot as text of an SVG file; equal reports give equal text."""
    import matplotlib as mpl

    title, text = _title(report, recalibrated), io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure = forest_figure(report, recalibrated=recalibrated)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
