"""A forest plot of differences with intervals, a negative control and published figures."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: Final = (("o", "#0b5cad", -0.25), ("D", "#b35900", 0.25), ("x", "#7b2d8e", 0.0))
"""Marker, colour and place within its row of our, the control's and the published
differences; places differ, so that equal differences do not hide each other."""


@dataclass(frozen=True)
class Mark:
    """A difference with its interval.

    Attributes:
        mean: nats.
        low: lower end; may be infinite.
        high: upper end.
        tie: drawn hollow.
    """

    mean: float
    low: float
    high: float
    tie: bool


@dataclass(frozen=True)
class ForestRow:
    """One line of the plot; every tuple has one entry per panel, None if nothing is drawn.

    Attributes:
        label: the step.
        against: its baseline, in small print.
        ours: differences.
        control: those of the negative control.
        published: published differences.
    """

    label: str
    against: str
    ours: tuple[Mark | None, ...]
    control: tuple[Mark | None, ...]
    published: tuple[float | None, ...]


@dataclass(frozen=True)
class ForestPlot:
    """Content of a forest plot.

    Attributes:
        title: what is shown, and whether it is simulated.
        subtitle: a line below it.
        series: names of our, the control's and the published differences.
        panels: titles of the panels, which share one scale.
        rows: from top to bottom.
        axis: what the horizontal axis shows.
        footnote: a line at the bottom; may be empty.
    """

    title: str
    subtitle: str
    series: tuple[str, str, str]
    panels: tuple[str, ...]
    rows: tuple[ForestRow, ...]
    axis: str
    footnote: str = ""


def forest_figure(plot: ForestPlot) -> Figure:
    """The plot as a matplotlib figure; infinite ends reach the edge of a panel."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    n_rows, n_panels = len(plot.rows), len(plot.panels)
    figure = Figure(figsize=(3.5 + 3.2 * n_panels, 2.4 + 0.42 * n_rows), layout="constrained")
    panels = figure.subplots(1, n_panels, sharex=True, sharey=True, squeeze=False)[0]
    for number, (axes, title) in enumerate(zip(panels, plot.panels, strict=True)):
        _draw_panel(axes, plot, number)
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel(plot.axis, fontsize="small")
    names = [f"{row.label}\n{row.against}" for row in plot.rows]
    panels[0].set_yticks(range(n_rows), names, fontsize="small")
    panels[0].set_ylim(n_rows - 0.5, -0.5)
    panels[0].set_xlim(*_limits(plot))
    figure.suptitle(f"{plot.title}\n{plot.subtitle}", fontsize="medium")
    columns: list[list[tuple[object, ...]]] = [
        [getattr(row, series) for row in plot.rows] for series in ("ours", "control", "published")
    ]
    figure.legend(
        handles=[
            Line2D([], [], linestyle="none", marker=marker, color=color, label=name)
            for name, (marker, color, _), rows in zip(plot.series, _STYLES, columns, strict=True)
            if any(value is not None for row in rows for value in row)
        ],
        title=f"hollow: a tie, the 95% interval contains 0\n{plot.footnote}".rstrip(),
        loc="outside lower center",
        ncols=3,
        fontsize="small",
        title_fontsize="small",
    )
    return figure


def _draw_panel(axes: Axes, plot: ForestPlot, number: int) -> None:
    low, high = _limits(plot)
    axes.axvline(0, color="black", linewidth=1)
    axes.grid(axis="x", color="#d1d9e0", linewidth=0.8)
    for line, row in enumerate(plot.rows):
        if line % 2 == 0:
            axes.axhspan(line - 0.5, line + 0.5, color="#f3f4f6", zorder=0)
        published = row.published[number]
        point = None if published is None else Mark(published, published, published, tie=False)
        marks = (row.ours[number], row.control[number], point)
        for mark, (marker, color, lane) in zip(marks, _STYLES, strict=True):
            if mark is None:
                continue
            y, face = line + lane, "white" if mark.tie else color
            axes.plot([max(mark.low, low), min(mark.high, high)], [y, y], color=color)
            axes.plot([mark.mean], [y], marker, color=color, markerfacecolor=face)


def _limits(plot: ForestPlot) -> tuple[float, float]:
    """Horizontal limits around 0 and all finite values."""
    marks = [mark for row in plot.rows for mark in (*row.ours, *row.control) if mark is not None]
    values = [0.0, *(value for row in plot.rows for value in row.published if value is not None)]
    values += [value for mark in marks for value in (mark.mean, mark.low, mark.high)]
    finite = [value for value in values if math.isfinite(value)]
    margin = 0.05 * max(max(finite) - min(finite), 1e-6)
    return min(finite) - margin, max(finite) + margin


def forest_svg(plot: ForestPlot) -> str:
    """The plot as text of an SVG file; equal plots give equal text."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": plot.title, "svg.fonttype": "none"}):
        forest_figure(plot).savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
