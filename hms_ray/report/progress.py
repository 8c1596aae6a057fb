"""Progress of long loops in the terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from hms_ray.report.text_table import WIDTH


@contextmanager
def bar(name: str, unit: str, delay_s: float = 0) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with rate and time left, driven by (done, in all).

    It shows nothing until its first call, so work that needs no time leaves no
    trace. What that call says is done took no time of this run, so the rate leaves
    it out. Where standard error is no terminal it writes a line every 10 s.

    Args:
        name: what is being done.
        unit: what is counted.
        delay_s: seconds after which it shows; work that is done before leaves no trace.
    """
    terminal = sys.stderr.isatty()
    line: tqdm[NoReturn] | None = None

    def show(done: int, total: int) -> None:
        nonlocal line
        if line is None:
            line = tqdm(
                total=total,
                initial=done,
                desc=name,
                unit=f" {unit}",
                ncols=79,
                mininterval=0.2 if terminal else 10,
                delay=delay_s,
                file=sys.stderr,
            )
        line.total = total
        line.update(done - line.n)

    try:
        yield show
    finally:
        if line is not None:
            line.close()


def stamped(line: str, seconds: float) -> list[str]:
    """A line of progress with the time since the start before it, in lines of 80 columns.

    Args:
        line: what happened; broken at spaces, and what goes on stands below the text,
            not below the clock.
        seconds: since the start.
    """
    clock = f"{clock_text(seconds):>7} "
    return textwrap.wrap(
        clock + line.rstrip(),
        WIDTH,
        subsequent_indent=" " * (len(clock) + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def clock_text(seconds: float) -> str:
    """A duration as ``m:ss`` or ``h:mm:ss``, in days from a hundred hours on."""
    if seconds >= 100 * 3600:
        return f"{seconds / 86400:.0f} days"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
