"""A run's progress on a terminal, as a live view, or in a pipe, as plain lines."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hms_ray.report.progress import LoopProgress, Progress
from hms_ray.report.time_left import Clock
from hms_ray.storage.run_log import attached
from hms_ray.text import clock_text

logger = logging.getLogger(__name__)

PIPE_WIDTH: Final = 80
QUIET_S: Final = 30.0
"""A pipe gets a line between events after so many seconds without one."""
REFRESH_PER_S: Final = 2
SHORT_LOOP_S: Final = 2.0
"""A counted loop that takes less shows nothing."""


class ProgressView:
    """Shows a run's progress while a block runs.

    On a terminal, what runs now stands below the lasting lines and is redrawn; in a pipe
    there are the lasting lines, and at most one other line every ``QUIET_S`` seconds.
    Warnings of ``hms_ray``'s loggers are printed as lines. A failure to show something is
    logged and never raised.

    Args:
        progress: the run's model.
        stream: where it is shown; default: standard output.
        threaded: whether a thread redraws the live view. Without one it is redrawn at
            events alone, so that a debugger can use the terminal in between.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        progress: Progress,
        stream: TextIO | None = None,
        *,
        threaded: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        self._progress, self._clock = progress, clock
        self._stream = stream or sys.stdout
        self._threaded = threaded
        self._start = self._last_line = clock()
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._live: Live | None = None

    def __enter__(self) -> ProgressView:
        self._stack.enter_context(attached(_Warnings(self._print)))
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._live = self._stack.enter_context(
                Live(
                    console=Console(file=self._stream, highlight=False, markup=False, emoji=False),
                    get_renderable=self._view,
                    auto_refresh=self._threaded,
                    refresh_per_second=REFRESH_PER_S,
                    redirect_stdout=self._threaded,
                    redirect_stderr=self._threaded,
                    transient=True,
                )
            )
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()
        self._live = None

    def handle(self, event: dict[str, Any]) -> None:
        """Takes an event of the run, from any thread."""
        try:
            # Not while printing: rich holds a lock of its own when it draws and prints.
            with self._lock:
                notice = self._progress.update(event)
            details = f"\n{notice.details}" if notice.details else ""
            logger.log(notice.level, "%s%s", notice.text, details)
            quiet = self._live is None and self._clock() - self._last_line >= QUIET_S
            if quiet or not notice.passing:
                self._print(notice.text)
            if self._live is not None and not self._threaded:
                self._live.refresh()
        except Exception:
            logger.exception("progress of an event could not be shown: %s", event)

    def _print(self, text: str) -> None:
        """Prints a text with the time since the start; broken at spaces alone."""
        self._last_line = self._clock()
        clock = f"{clock_text(self._last_line - self._start):>7} "
        lines = textwrap.fill(
            clock + text.rstrip(),
            PIPE_WIDTH if self._live is None else self._live.console.width,
            subsequent_indent=" " * (len(clock) + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        if self._live is None:
            print(f"{lines}\n", end="", file=self._stream, flush=True)
        else:
            self._live.console.print(Text(lines), soft_wrap=True)

    def _view(self) -> RenderableType:
        # Called by rich's thread too, which an error would end.
        try:
            with self._lock:
                rows, summary = self._progress.table(), self._progress.summary()
        except Exception:
            logger.exception("the live view could not be drawn")
            return Text("")
        height = self._live.console.height if self._live is not None else 25
        shown = rows[: max(2, height - 4)]
        more = f"and {len(rows) - len(shown)} more\n" if len(rows) > len(shown) else ""
        last = Text(f"{more}{clock_text(self._clock() - self._start):>7} {summary}")
        if not shown:
            return last
        table = Table(*shown[0], box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
        for row in shown[1:]:
            table.add_row(*map(Text, row))
        return Group(table, last)


class _Warnings(logging.Handler):
    """Prints warnings of all modules but this one, whose texts are printed already."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.name != __name__:
                self._show(f"{record.levelname.lower()}: {record.getMessage()}")
        except Exception:
            self.handleError(record)


@contextmanager
def bar(
    name: str, unit: str, delay_s: float = SHORT_LOOP_S
) -> Iterator[Callable[[int, int], None]]:
    """Progress of a counted loop on standard error, driven by calls with (done, total).

    Args:
        name: of the work, such as ``packing eeg``.
        unit: what is counted, in the plural.
        delay_s: seconds before anything is shown; a shorter loop shows nothing.
    """
    view = ProgressView(LoopProgress(name, unit), sys.stderr)
    started, shown = time.monotonic(), False

    def show(done: int, total: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started >= delay_s:
            shown = True
            view.__enter__()
        view.handle({"event": "counted", "done": done, "total": total})

    try:
        yield show
        if shown:
            view.handle({"event": "ended"})
    finally:
        view.__exit__()
