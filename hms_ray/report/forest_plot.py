"""A forest plot as SVG: differences with intervals, a control, published figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Final

LABEL_WIDTH, PANEL_WIDTH, GAP, MARGIN = 320, 250, 26, 20
ROW_HEIGHT, TOP, BOTTOM = 34, 118, 76
"""Pixels of the drawing's own scale; it is shown as wide as its page."""
_MOST_TICKS: Final = 5
_LANE: Final = 10
"""Pixels between ours, the published difference below it, and the control's below that."""
_STYLE: Final = """
  .card { fill: #ffffff; } .stripe { fill: #f3f4f6; }
  text { font-family: Helvetica, Arial, sans-serif; font-size: 13px; fill: #1f2328; }
  .title { font-size: 17px; font-weight: bold; } .soft { fill: #59636e; font-size: 12px; }
  .grid { stroke: #d1d9e0; stroke-width: 1; } .zero { stroke: #1f2328; stroke-width: 1.5; }
  .ours { stroke: #0b5cad; fill: #0b5cad; stroke-width: 2; }
  .control { stroke: #b35900; fill: #b35900; stroke-width: 2; }
  .published { stroke: #7b2d8e; fill: #7b2d8e; stroke-width: 2; }
  .tie { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; } .stripe { fill: #161b22; }
    text { fill: #e6edf3; } .soft { fill: #9da7b1; }
    .grid { stroke: #30363d; } .zero { stroke: #e6edf3; }
    .ours { stroke: #58a6ff; fill: #58a6ff; }
    .control { stroke: #f0993e; fill: #f0993e; }
    .published { stroke: #d2a8ff; fill: #d2a8ff; }
    .tie { fill: #0d1117; }
  }
"""
"""The card is painted, so the plot is legible on whatever page shows it."""


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


@dataclass(frozen=True)
class _Scale:
    """From nats to pixels from a panel's left edge."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return (inside - self.low) / (self.high - self.low) * PANEL_WIDTH


def forest_svg(plot: ForestPlot) -> str:
    """The drawing as text of an SVG file.

    Infinite ends are drawn to a panel's edge. A series without data is not in the legend.
    """
    width = LABEL_WIDTH + len(plot.panels) * (PANEL_WIDTH + GAP) + MARGIN
    height = TOP + len(plot.rows) * ROW_HEIGHT + BOTTOM
    scale = _scale(plot)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="100%"'
        f' role="img" aria-label="{escape(plot.title)}">'
    )
    parts = [
        opening,
        f"<title>{escape(plot.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0" y="0" width="{width}" height="{height}" rx="6"/>',
        _text(MARGIN, 30, plot.title, "title"),
        _text(MARGIN, 50, plot.subtitle, "soft"),
        *_legend(plot),
        *_stripes(plot, width),
    ]
    for number, title in enumerate(plot.panels):
        left = LABEL_WIDTH + number * (PANEL_WIDTH + GAP)
        parts += _axis(plot, scale, left, title)
        for line, row in enumerate(plot.rows):
            parts += _marks(row, number, scale, left, TOP + (line + 0.5) * ROW_HEIGHT)
    parts.append(_text(MARGIN, height - 12, plot.footnote, "soft"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _values(plot: ForestPlot) -> Iterator[float]:
    yield 0.0
    for row in plot.rows:
        for mark in (*row.ours, *row.control):
            if mark is not None:
                yield from (mark.mean, mark.low, mark.high)
        yield from (value for value in row.published if value is not None)


def _scale(plot: ForestPlot) -> _Scale:
    """Holds every finite value, and has ticks at 1, 2 or 5 times a power of ten."""
    values = [value for value in _values(plot) if math.isfinite(value)]
    low, high = min(values), max(values)
    span = max(high - low, 1e-6)
    low, high = low - 0.05 * span, high + 0.05 * span
    rough = (high - low) / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return _Scale(low, high, tuple(number * step for number in range(first, last + 1)))


def _stripes(plot: ForestPlot, width: int) -> Iterator[str]:
    for line, row in enumerate(plot.rows):
        top = TOP + line * ROW_HEIGHT
        if line % 2 == 0:
            yield (
                f'<rect class="stripe" x="{MARGIN / 2:g}" y="{top}"'
                f' width="{width - MARGIN}" height="{ROW_HEIGHT}"/>'
            )
        yield _text(MARGIN, top + 15, row.label)
        yield _text(MARGIN, top + 29, row.against, "soft")


def _axis(plot: ForestPlot, scale: _Scale, left: int, title: str) -> Iterator[str]:
    bottom = TOP + len(plot.rows) * ROW_HEIGHT
    middle = left + PANEL_WIDTH / 2
    yield _text(middle, TOP - 10, title, anchor="middle")
    digits = max(0, -math.floor(math.log10(scale.ticks[1] - scale.ticks[0]) + 1e-9))
    for tick in scale.ticks:
        x = left + scale.at(tick)
        yield _line(x, TOP, x, bottom, "grid")
        sign = "+" if tick > 0 else ""
        label = "0" if abs(tick) < 1e-12 else f"{sign}{tick:.{digits}f}"
        yield _text(x, bottom + 16, label, "soft", anchor="middle")
    zero = left + scale.at(0)
    yield _line(zero, TOP, zero, bottom, "zero")
    yield _text(middle, bottom + 36, plot.axis, "soft", anchor="middle")


def _marks(row: ForestRow, panel: int, scale: _Scale, left: int, y: float) -> Iterator[str]:
    published, ours, control = row.published[panel], row.ours[panel], row.control[panel]
    # Lanes, so that equal differences do not hide each other.
    n_below = 2 if control is not None else int(published is not None)
    first = y - _LANE * n_below / 2
    if published is not None:
        yield _cross(left + scale.at(published), first + _LANE)
    for mark, kind, place in ((ours, "ours", first), (control, "control", first + 2 * _LANE)):
        if mark is None:
            continue
        low, high = left + scale.at(mark.low), left + scale.at(mark.high)
        yield _line(low, place, high, place, kind)
        yield _point(left + scale.at(mark.mean), place, kind, mark.tie)


def _legend(plot: ForestPlot) -> Iterator[str]:
    x, y = MARGIN + 6, 74
    there = (
        any(any(row.ours) for row in plot.rows),
        any(any(row.control) for row in plot.rows),
        any(value is not None for row in plot.rows for value in row.published),
    )
    kinds = ("ours", "control", "published")
    for kind, name, shown in zip(kinds, plot.series, there, strict=True):
        if not shown:
            continue
        if kind == "published":
            yield _cross(x + 8, y)
        else:
            yield _line(x - 4, y, x + 20, y, kind)
            yield _point(x + 8, y, kind, tie=False)
        yield _text(x + 28, y + 4, name)
        x += 28 + round(7.2 * len(name)) + 24
    yield _point(x + 8, y, "ours", tie=True)
    yield _text(x + 22, y + 4, "hollow: a tie, the 95% interval contains 0")


def _point(x: float, y: float, kind: str, tie: bool) -> str:
    """A circle for ours, a square on its corner for the control's."""
    names = f"{kind} tie" if tie else kind
    if kind == "ours":
        return f'<circle class="{names}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    corners = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 6:.1f},{y:.1f}"
    return f'<polygon class="{names}" points="{corners}"/>'


def _cross(x: float, y: float) -> str:
    return f'<path class="published" d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" fill="none"/>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    names = f' class="{kind}"' if kind else ""
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text{names} x="{x:.1f}" y="{y:.1f}"{where}>{escape(text)}</text>'
