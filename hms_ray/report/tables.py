"""Tables as plain data: printed by rich in the terminal's width, or written as Markdown."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich import box, table
from rich.console import Console
from rich.text import Text

PIPE_WIDTH: Final = 120
"""Characters per line where standard output is no terminal and ``COLUMNS`` is not set."""

NO_BREAK: Final = "\xa0"
"""A space at which a cell is not broken."""

_TEXT_WIDTH: Final = 100
"""Longer lines of prose are hard to read."""
_GAP: Final = 2
_MIN_CELL, _MIN_HEADING = 16, 10
"""Characters that a column of text and a heading keep; longer words are folded."""
_UNBROKEN: Final = "\u2800"
"""Stands for ``NO_BREAK`` while rich lays a table out, since rich breaks at every white space."""
_RULE_BELOW_HEAD: Final = box.Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: heading.
        cells: texts, one per row.
        right: aligned right, as numbers are.
        optional: omitted where the terminal is too narrow, the last one first.
    """

    title: str
    cells: Sequence[str]
    right: bool = True
    optional: bool = False

    @property
    def full_width(self) -> int:
        """Characters that hold every cell on one line."""
        return max(len(text) for text in (self.title, *self.cells))

    @property
    def min_width(self) -> int:
        """Characters below which a number or an interval would be broken."""
        longest = max((len(word) for cell in self.cells for word in cell.split(" ")), default=0)
        heading = max((len(word) for word in self.title.split(" ")), default=0)
        return max(longest if self.right else min(longest, _MIN_CELL), min(heading, _MIN_HEADING))


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
        width: characters per line; default: the terminal's, or in a pipe the variable
            ``COLUMNS`` or 120.
    """
    width = output_width() if width is None else width
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    texts = []
    for part in parts:
        if not part:
            continue
        with console.capture() as capture:
            _print(console, part, width)
        lines = [line.rstrip() for line in capture.get().replace(_UNBROKEN, " ").splitlines()]
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def output_width() -> int:
    """Characters per line of standard output."""
    if sys.stdout.isatty():
        return os.get_terminal_size(sys.stdout.fileno()).columns
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) else PIPE_WIDTH


def _print(console: Console, part: str | Table, width: int) -> None:
    def paragraph(text: str) -> None:
        shown = Text(text.replace(NO_BREAK, _UNBROKEN), overflow="fold")
        console.print(shown, width=min(width, _TEXT_WIDTH))

    if isinstance(part, str):
        paragraph(part)
        return
    columns, omitted = _fitting(part.columns, width)
    if part.title:
        paragraph(part.title)
    console.print(_rich_table(columns, width))
    for note in part.notes:
        paragraph(note)
    if omitted:
        paragraph(f"Not shown at this width: {', '.join(omitted)}.")


def _fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit and the titles of the omitted ones."""
    kept, omitted = list(columns), list[str]()
    while sum(column.min_width + _GAP for column in kept) - _GAP > width:
        optional = [position for position, column in enumerate(kept) if column.optional]
        if not optional:
            break
        omitted.insert(0, kept.pop(optional[-1]).title)
    return kept, omitted


def _rich_table(columns: Sequence[Column], width: int) -> table.Table:
    """Each column gets its least width, and all that need more share what is left."""
    widths = [column.min_width for column in columns]
    for _ in range(width - sum(widths) - _GAP * (len(columns) - 1)):
        short = [n for n, column in enumerate(columns) if widths[n] < column.full_width]
        if short:
            widths[min(short, key=widths.__getitem__)] += 1
    wrapped = any(
        len(cell) > own
        for column, own in zip(columns, widths, strict=True)
        for cell in column.cells
    )
    made = table.Table(
        box=_RULE_BELOW_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), leading=wrapped
    )
    for column, own in zip(columns, widths, strict=True):
        made.add_column(
            Text(column.title, overflow="fold"),
            width=own,
            justify="right" if column.right else "left",
            overflow="fold",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*(Text(cell.replace(NO_BREAK, _UNBROKEN)) for cell in cells))
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
