"""Text tables and lines for a terminal of 80 columns."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

WIDTH: Final = 80

OPTIMISTIC_LEGEND: Final = (
    "* optimistic: its checkpoints were chosen on the rows that it is scored on"
)
TIED_LEGEND: Final = "= a tie with the best trial: the paired 95% interval by patient contains 0"


@dataclass(frozen=True)
class Column:
    """A column of a text table.

    Attributes:
        title: heading; it breaks at spaces and underscores.
        cells: texts, one a row.
        right: aligned right, as numbers are.
        worth: columns of least worth are left out first where width is short;
            None is never left out.
        longest_word: words of the heading longer than this are hyphenated.
        names: cells are names, which must stay different where they are cut.
    """

    title: str
    cells: Sequence[str]
    right: bool = True
    worth: int | None = None
    longest_word: int | None = None
    names: bool = False

    @property
    def width(self) -> int:
        """Characters that the column takes."""
        return max(map(len, (*self.title_lines, *self.cells)), default=0)

    def cut(self, width: int) -> Column:
        """The column with cells of at most so many characters."""
        if self.names:
            return replace(self, cells=shortened_names(self.cells, width))
        return replace(self, cells=[shortened(cell, width) for cell in self.cells])

    @property
    def title_lines(self) -> list[str]:
        """The heading, broken so that it widens the column as little as possible."""
        # An underscore begins its line, to show that the name goes on.
        words = self.title.replace("_", " _").split()
        cells = max(map(len, self.cells), default=0)
        longest = max(map(len, words), default=0)
        room = max(cells, longest if self.longest_word is None else self.longest_word)
        lines = [""]
        for word in words:
            joint = "" if not lines[-1] or word.startswith("_") else " "
            if len(lines[-1]) + len(joint) + len(word) <= room:
                lines[-1] += joint + word
                continue
            while len(word) > room:
                lines.append(word[: room - 1] + "-")
                word = word[room - 1 :]
            lines.append(word)
        return [line for line in lines if line] or [""]


def text_table(columns: Sequence[Column]) -> list[str]:
    """Lines of a table: headings at the bottom of their cells, a rule, the rows."""
    depth = max(len(column.title_lines) for column in columns)
    lines = []
    for level in range(depth):
        titles = [([""] * depth + column.title_lines)[-depth:][level] for column in columns]
        lines.append(_line(columns, titles))
    lines.append("  ".join("-" * column.width for column in columns))
    rows = zip(*(column.cells for column in columns), strict=True)
    return lines + [_line(columns, cells) for cells in rows]


def score(value: float | None) -> str:
    """A KL divergence with four decimals, ``-`` where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _line(columns: Sequence[Column], cells: Sequence[str]) -> str:
    aligned = [
        cell.rjust(column.width) if column.right else cell.ljust(column.width)
        for column, cell in zip(columns, cells, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def shortened(text: str, width: int) -> str:
    """The text, or its beginning and three dots, in so many characters."""
    return text if len(text) <= width else text[: width - 3] + "..."


def shortened_names(names: Sequence[str], width: int) -> list[str]:
    """Names in so many characters each; different ones stay different.

    The longest words of a name lose their ends, for it is often a number or the last word
    that tells it from others: ``3_ensemble_fixed`` is ``3_ensem_fixed`` in 13 characters.
    What comes out alike is numbered.

    Args:
        names: words parted by underscores or other marks; equal ones stay equal.
        width: at least 8.
    """
    cut = {name: _abbreviated(name, width) for name in names}
    taken = Counter(cut.values())
    alike = [name for name, text in cut.items() if taken[text] > 1 and text != name]
    marks = (f"~{number}" for number in count(1))
    for name in alike:
        marked = (cut[name][: width - len(mark)] + mark for mark in marks)
        cut[name] = next(text for text in marked if text not in taken)
    return [cut[name] for name in names]


def _abbreviated(name: str, width: int) -> str:
    parts = re.split(r"([\W_])", name)
    words = range(0, len(parts), 2)
    while sum(map(len, parts)) > width:
        longest = max(words, key=lambda word: len(parts[word]))
        if len(parts[longest]) <= 1:
            break
        parts[longest] = parts[longest][:-1]
    return "".join(parts)[:width]


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of so many characters, broken at spaces."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines
