"""A run's progress on a terminal, as a live view, or in a pipe, as plain lines."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any, Final, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hms_ray.display.loop_progress import LoopProgress
from hms_ray.display.progress import Progress
from hms_ray.display.time_left import Clock
from hms_ray.errors import one_line
from hms_ray.storage.run_log import FaultLog, attached
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
    logged once and never raised; the next event is shown. Nothing is printed any more once
    the terminal or pipe is closed.

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
        self._stream = LastingStream(stream or sys.stdout)
        self._faults = FaultLog(logger)
        self._threaded = threaded
        self._start = self._last_line = clock()
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._live: Live | None = None

    def __enter__(self) -> ProgressView:
        self._stack.enter_context(attached(_Warnings(self._print)))
        with self._faults("the live view could not be started"):
            if self._stream.isatty() and os.environ.get("TERM") != "dumb":
                self._live = self._stack.enter_context(
                    Live(
                        console=Console(
                            file=cast("IO[str]", self._stream),
                            highlight=False,
                            markup=False,
                            emoji=False,
                        ),
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
        with self._faults("the live view could not be ended"):
            self._stack.close()
        self._live = None

    def handle(self, event: dict[str, Any]) -> None:
        """Takes an event of the run, from any thread."""
        with self._faults(f"progress of an event could not be shown, {event}"):
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
            self._stream.write(f"{lines}\n")
            self._stream.flush()
        else:
            self._live.console.print(Text(lines), soft_wrap=True)

    def _view(self) -> RenderableType:
        # Called by rich's thread too, which an error would end.
        with self._faults("the live view could not be drawn"):
            with self._lock:
                rows, summary = self._progress.table(), self._progress.summary()
            return self._drawn(rows, summary)
        return Text("")

    def _drawn(self, rows: list[tuple[str, ...]], summary: str) -> RenderableType:
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


class LastingStream:
    """Writes to a stream for as long as it can be written to, and then to nowhere.

    A closed pipe or terminal must not end the work whose progress is shown there.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._first = stream

    def write(self, text: str) -> int:
        """See ``TextIO.write``."""
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """See ``TextIO.flush``."""
        self._try(lambda stream: stream.flush())

    def _try(self, call: Callable[[TextIO], object]) -> None:
        if self._stream is None:
            return
        try:
            call(self._stream)
        except UnicodeError:
            raise  # One text that the stream cannot encode; the next one may be fine.
        except (OSError, ValueError) as error:
            self._stream = None
            discard(self._first)
            logger.warning("nothing more is printed: %s", one_line(error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


def discard(stream: TextIO) -> None:
    """Sends the rest of a closed stream to nowhere, as at the end Python writes what is left."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def print_text(text: str) -> None:
    """Prints a text as a command's result, whether it is read or not (see ``LastingStream``)."""
    stream = LastingStream(sys.stdout)
    stream.write(f"{text}\n")
    stream.flush()


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
