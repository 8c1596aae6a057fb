"""Counts, durations, lists, nearest names and command lines, as every command prints them."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence


def counted(n: float, noun: str) -> str:
    """A count with its noun, such as ``1 row``, ``1,200 rows`` and ``0.5 GPUs``.

    Args:
        n: the count.
        noun: in the singular; the plural must end in s.
    """
    number = f"{int(n):,}" if n == int(n) else f"{n:g}"
    return f"{number} {noun}" + ("" if n == 1 else "s")


def command_line(*words: object) -> str:
    """``hms-ray`` with these words, quoted so that it can be pasted into a shell."""
    return shlex.join(["hms-ray", *map(str, words)])


def shortened_list(items: Sequence[object], shown: int = 5, separator: str = ", ") -> str:
    """The first items, and how many more there are: ``a, b and 3 more``."""
    text = separator.join(map(str, items[:shown]))
    return text + (f" and {len(items) - shown:,} more" if len(items) > shown else "")


def closest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean NAME?)`` for the nearest known name, or known names if none is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f" (did you mean {near[0]}?)"
    return f" (known: {shortened_list(sorted(known), 12)})" if known else ""


def clock_text(seconds: float) -> str:
    """A duration as ``m:ss`` or ``h:mm:ss``, and in days from 100 hours on."""
    if seconds >= 100 * 3600:
        return f"{seconds / 86400:.0f} days"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
