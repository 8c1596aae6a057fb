"""Tables as plain data: printed by rich in the terminal's width, or written as Markdown."""

from __future__ import annotations

import io
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rich import box, table
from rich.console import Console
from rich.text import Text

PIPE_WIDTH: Final = 120
"""Characters per line if standard output is no terminal and ``COLUMNS`` is not set."""

NO_BREAK: Final = "\xa0"
"""A space at which a cell is not broken."""

_TEXT_WIDTH: Final = 100
"""Longer lines of prose are hard to read."""
_GAP: Final = 2
_MIN_CELL, _MIN_HEADING = 16, 12
"""Characters that a column of text and a heading keep; longer words are folded."""
_RULE_BELOW_HEAD: Final = box.Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: heading.
        cells: texts, one per row.
        right: aligned right, as numbers are.
        optional: omitted where the terminal is too narrow, the last one first.
        spare: an optional column that is omitted before a cell of another one is wrapped.
    """

    title: str
    cells: Sequence[str]
    right: bool = True
    optional: bool = False
    spare: bool = False

    @property
    def full_width(self) -> int:
        """Characters that hold every cell on one line."""
        return max(len(text) for text in (self.title, *self.cells))

    @property
    def min_width(self) -> int:
        """Characters below which a number or an interval would be broken."""
        longest = max((len(word) for cell in self.cells for word in cell.split(" ")), default=0)
        return max(longest if self.right else min(longest, _MIN_CELL), self._min_heading)

    @property
    def cell_width(self) -> int:
        """Characters that hold every cell and a short heading on one line."""
        short = len(self.title) if len(self.title) <= _MIN_HEADING else 0
        return max(short, self._min_heading, *map(len, self.cells))

    @property
    def _min_heading(self) -> int:
        # In pieces, as ``_folded`` breaks it.
        pieces = self.title.replace("_", "_ ").split(" ")
        return min(max(map(len, pieces)), _MIN_HEADING)


@dataclass(frozen=True)
class Table:
    """A titled table.

    Attributes:
        title: what it shows.
        columns: of equal length.
        notes: sentences below it.
    """

    title: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


def to_text(*parts: str | Table, width: int | None = None) -> str:
    """Paragraphs and tables as plain text, an empty line between them.

    Cells that are too long are wrapped, never cut. Optional columns that do not fit are
    omitted and named below the table.

    Args:
        parts: in their order; empty texts are skipped.
        width: characters per line; default: ``COLUMNS``, else the terminal's, else 120.
    """
    width = output_width() if width is None else width
    texts = []
    for part in parts:
        if part:
            text = _paragraph(part, width) if isinstance(part, str) else _table_text(part, width)
            texts.append(text.replace(NO_BREAK, " "))
    return "\n\n".join(texts)


def output_width() -> int:
    """Characters per line of standard output: ``COLUMNS``, else the terminal's, else 120."""
    return shutil.get_terminal_size((PIPE_WIDTH, 0)).columns


def _paragraph(text: str, width: int) -> str:
    width = min(width, _TEXT_WIDTH)
    return "\n".join(
        textwrap.fill(line, width, break_on_hyphens=False) for line in text.splitlines()
    )


def _table_text(shown: Table, width: int) -> str:
    columns, omitted = _fitting(shown.columns, width)
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(_rich_table(columns, width))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    notes = [*shown.notes]
    if omitted:
        notes.append(f"Not shown at this width: {', '.join(omitted)}.")
    title = [_paragraph(shown.title, width)] if shown.title else []
    return "\n".join([*title, *lines, *(_paragraph(note, width) for note in notes)])


def _folded(text: str, width: int) -> str:
    """A cell's lines, broken at spaces and after underscores, but not at ``NO_BREAK``."""
    if len(text) <= width:
        return text
    lines = textwrap.wrap(text.replace("_", "_ "), width, break_on_hyphens=False)
    return "\n".join(lines).replace("_ ", "_")


def _fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit and the titles of the omitted ones."""
    kept, omitted = dict(enumerate(columns)), list[int]()
    spare = [place for place, column in kept.items() if column.spare]
    while spare and sum(column.cell_width + _GAP for column in kept.values()) - _GAP > width:
        omitted.append(spare.pop())
        del kept[omitted[-1]]
    while sum(column.min_width + _GAP for column in kept.values()) - _GAP > width:
        optional = [place for place, column in kept.items() if column.optional]
        if not optional:
            break
        omitted.append(optional[-1])
        del kept[omitted[-1]]
    return list(kept.values()), [columns[place].title for place in sorted(omitted)]


def _rich_table(columns: Sequence[Column], width: int) -> table.Table:
    """Each column gets its least width; cells, then headings that need more share what is left."""
    widths = [column.min_width for column in columns]
    left = width - sum(widths) - _GAP * (len(columns) - 1)
    for needs in ([one.cell_width for one in columns], [one.full_width for one in columns]):
        while left > 0 and (short := [n for n, need in enumerate(needs) if widths[n] < need]):
            widths[min(short, key=widths.__getitem__)] += 1
            left -= 1
    wrapped = any(
        len(cell) > own
        for column, own in zip(columns, widths, strict=True)
        for cell in column.cells
    )
    made = table.Table(
        box=_RULE_BELOW_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), leading=wrapped
    )
    for column, own in zip(columns, widths, strict=True):
        justify: Literal["right", "left"] = "right" if column.right else "left"
        made.add_column(Text(_folded(column.title, own)), width=own, justify=justify)
    for cells in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*(Text(_folded(*cell)) for cell in zip(cells, widths, strict=True)))
    return made


def to_markdown(shown: Table) -> list[str]:
    """A heading of the second level, the table, and one paragraph per note."""
    rules = ["---:" if column.right else "---" for column in shown.columns]
    titles = [markdown_text(column.title) for column in shown.columns]
    rows = zip(*(column.cells for column in shown.columns), strict=True)
    texts = ([markdown_text(cell) for cell in row] for row in rows)
    lines = [f"## {shown.title}", ""]
    lines += [f"| {' | '.join(cells)} |" for cells in (titles, rules, *texts)]
    return lines + [part for note in shown.notes for part in ("", markdown_text(note))]


def markdown_text(text: str) -> str:
    """Text in which no character means markup, on one line."""
    for mark in ("\\", "|", "*", "_", "<", ">", "`", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
