"""A titled table with notes, as text of 80 columns or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hms_ray.report.text_table import WIDTH, Column, text_table, wrapped

Style = Literal["text", "markdown"]
_NARROWEST: Final = 8


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        title: what it shows.
        columns: of equal length.
        notes: sentences below it.
        elastic: titles of columns whose cells are cut where a line is too short for
            them, the one to be cut first coming first.
    """

    title: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    elastic: tuple[str, ...] = ("step",)

    def to_text(self, width: int = WIDTH) -> list[str]:
        """Lines of at most ``width`` characters."""
        columns = list(self.columns)
        for title in self.elastic:
            excess = sum(column.width + 2 for column in columns) - 2 - width
            position = [column.title for column in columns].index(title)
            if excess > 0:
                room = max(columns[position].width - excess, _NARROWEST)
                columns[position] = columns[position].cut(room)
        lines = [*wrapped(self.title, width), *text_table(columns)]
        return lines + [line for note in self.notes for line in wrapped(note, width)]

    def to_markdown(self) -> list[str]:
        """A heading of the second level, the table, and a paragraph a note."""
        lines = [f"## {self.title}", "", *markdown_table(self.columns)]
        return lines + [part for note in self.notes for part in ("", markdown_text(note))]


def markdown_table(columns: Sequence[Column]) -> list[str]:
    """Lines of a Markdown table; numbers are aligned right."""
    rules = ["---:" if column.right else "---" for column in columns]
    rows = zip(*(column.cells for column in columns), strict=True)
    titles = [markdown_text(column.title) for column in columns]
    texts = ([markdown_text(cell) for cell in row] for row in rows)
    return [f"| {' | '.join(cells)} |" for cells in (titles, rules, *texts)]


def markdown_text(text: str) -> str:
    """Text in which no character means markup, on one line."""
    for mark in ("\\", "|", "*", "_", "<", ">", "`", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
