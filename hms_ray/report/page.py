"""A page of tables and figures as one HTML file, which needs no network.

Everything that comes from a study is escaped: texts by ``html.escape``, figures as JSON in
which ``<`` is written as an escape, so that no name can end a script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from hms_ray.display.tables import NO_BREAK, Table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LONG_CELL: Final = 60
"""Longer texts of a cell are wrapped."""


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: also its entry in the list of contents.
        parts: HTML, in their order.
    """

    title: str
    parts: Sequence[str]


@dataclass
class Page:
    """Collects sections and the data of their figures.

    Attributes:
        title: of the page.
        lead: sentences below it.
        missing: what could not be read; shown first.
        sections: in their order.
    """

    title: str
    lead: Sequence[str] = ()
    missing: Sequence[str] = ()
    sections: list[Section] = field(default_factory=list)
    _data: list[str] = field(default_factory=list)

    def figure(
        self,
        figure: Figure,
        about: str,
        caption: str = "",
        numbers: str = "",
        choices: Mapping[str, Any] | None = None,
    ) -> str:
        """HTML of a figure, which is drawn when it comes into view.

        Args:
            figure: of Plotly; its ``width``, if it has one, is the least that it gets.
            about: what it shows, for screen readers.
            caption: text below it.
            numbers: HTML of a table with the same numbers, folded away below it.
            choices: name -> traces and layout that replace those of the figure, by a list above
                it; the figure itself is the first one.
        """
        number = len(self._data)
        place = f"figure-{number}"
        layout = figure["layout"]
        size = f"height:{layout['height']}px"
        if width := layout["width"]:
            # Scrolled sideways where the page is narrower.
            size += f";min-width:{width}px"
        self._add(f"{place}-data", _plain(figure))
        parts = []
        if choices:
            self._add(f"{place}-choices", dict(choices))
            options = "".join(
                f'<option value="{escape(name)}">{escape(name)}</option>' for name in choices
            )
            parts.append(
                f'<label for="{place}-list">show</label><select id="{place}-list" '
                f'data-plot="{place}" data-choices="{place}-choices">{options}</select>'
            )
        parts.append(
            f'<div class="frame"><div class="plot" id="{place}" role="img" style="{size}" '
            f'data-figure="{place}-data" data-about="{escape(about)}" '
            f'aria-label="{escape(about)}"></div></div>'
        )
        if caption:
            parts.append(f"<figcaption>{_prose(caption)}</figcaption>")
        if numbers:
            title = f"Numbers: {about}"
            parts.append(
                f'<details class="numbers"><summary>{escape(title)}</summary>{numbers}</details>'
            )
        return f"<figure>{''.join(parts)}</figure>"

    def _add(self, name: str, data: Any) -> None:
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        self._data.append(f'<script type="application/json" id="{name}">{text}</script>')

    def html(self, plotly: str) -> str:
        """The whole page.

        Args:
            plotly: source of ``plotly.js``.
        """
        sections = [
            f'<section aria-labelledby="s{n}"><h2 id="s{n}">{escape(one.title)}</h2>'
            f"{''.join(one.parts)}</section>"
            for n, one in enumerate(self.sections)
        ]
        entries = [
            f'<li><a href="#s{n}">{escape(one.title)}</a></li>'
            for n, one in enumerate(self.sections)
        ]
        return "".join(
            (
                '<!doctype html><html lang="en"><head><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{escape(self.title)}</title>",
                # An empty icon: browsers ask for one otherwise.
                '<link rel="icon" href="data:,">',
                f"<style>{_asset('page.css')}</style></head><body>",
                '<a class="skip" href="#content">Skip to the content</a><div class="page">',
                f'<nav aria-label="Contents"><ol>{"".join(entries)}</ol></nav>',
                f'<main id="content"><h1>{escape(self.title)}</h1>',
                paragraphs(*self.lead, css="lead"),
                (
                    "<noscript><p>Figures and sorting need JavaScript; the tables are complete.</p>"
                    "</noscript>"
                ),
                _missing(self.missing),
                *sections,
                "</main></div>",
                *self._data,
                f"<script>{plotly}</script><script>{_asset('page.js')}</script></body></html>\n",
            )
        )


def _asset(name: str) -> str:
    return files("hms_ray.report").joinpath(name).read_text(encoding="utf-8")


def _plain(figure: Figure) -> Any:
    """A figure as plain data; arrays stay in Plotly's compact form."""
    plain = json.loads(figure.to_json())
    # The page sets the width.
    plain["layout"].pop("width", None)
    return plain


def _missing(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return (
        '<section class="missing" aria-labelledby="missing"><h2 id="missing">What is missing</h2>'
        f"<ul>{items}</ul></section>"
    )


def paragraphs(*texts: str, css: str = "") -> str:
    """Texts as paragraphs; empty ones are skipped."""
    mark = f' class="{css}"' if css else ""
    return "".join(f"<p{mark}>{_prose(text)}</p>" for text in texts if text)


def _prose(text: str) -> str:
    """Escaped text in which no line ends within the name of a score."""
    return escape(text.replace("KL >=", f"KL{NO_BREAK}>="))


def code(text: str) -> str:
    """Text as it is typed."""
    return f"<pre><code>{escape(text)}</code></pre>"


def score_box(title: str, value: str, text: str) -> str:
    """A number with its title and a text below it."""
    return (
        f'<div class="score"><span>{escape(title)}</span><b>{escape(value)}</b>'
        f"<span>{escape(text)}</span></div>"
    )


def table(shown: Table, *, sortable: bool = False, best: int | None = None) -> str:
    """A table with its notes; one that scrolls can be reached by the keyboard.

    Args:
        shown: as commands print it.
        sortable: whether its headings sort it.
        best: position of the row that stands out.
    """
    if not shown.columns:
        return ""
    title = shown.title or "Table"
    heads = []
    for column in shown.columns:
        text = escape(column.title)
        inner = f'<button type="button">{text}</button>' if sortable else text
        heads.append(f'<th scope="col"{_right(column.right)}>{inner}</th>')
    rows = []
    for place in range(len(shown.columns[0].cells)):
        cells = [_cell(column.cells[place], column.right) for column in shown.columns]
        mark = ' class="best"' if place == best else ""
        rows.append(f"<tr{mark}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}"><table>'
        f"<caption>{escape(shown.title)}</caption><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{paragraphs(*shown.notes, css='note')}"
    )


def _right(right: bool) -> str:
    return ' class="right"' if right else ""


def _cell(text: str, right: bool) -> str:
    css = "right" if right else "long" if len(text) > _LONG_CELL else ""
    mark = f' class="{css}"' if css else ""
    # By the first number of a cell such as "0.5930 [0.55, 0.63]" or "29.6 (0.2 saved)".
    first = text.replace(NO_BREAK, " ").partition(" ")[0].replace(",", "")
    sort = f' data-sort="{escape(first)}"' if right and first != text else ""
    return f"<td{mark}{sort}>{escape(text)}</td>"
