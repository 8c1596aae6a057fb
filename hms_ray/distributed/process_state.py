"""State of the calling process that Ray changes, as it was once a run has ended."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

INTERRUPTED_STATUS: Final = 130
"""Exit status of a command that Ctrl-C has ended."""


@contextmanager
def log_levels(levels: Mapping[str, int]) -> Iterator[None]:
    """Levels of loggers, by name, while a block runs."""
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of this process while a block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def signal_handlers(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Puts the handlers of signals back when a block ends; only the main thread can."""
    before = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                # None is a handler that was not installed from Python.
                if handler is not None:
                    signal.signal(number, handler)


@contextmanager
def ctrl_c_twice() -> Iterator[None]:
    """Ends a block at the first Ctrl-C, and the process at once at the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    n_pressed = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal n_pressed
        n_pressed += 1
        if n_pressed > 1:
            # No clean-up: Ray's processes end with this one, and files are whole or absent.
            _write("ended at once")
            os._exit(INTERRUPTED_STATUS)
        _write("stopping; press Ctrl-C again to end at once")
        # Registered after Ray's own, hence called before it.
        atexit.register(_end_without_ray)
        raise KeyboardInterrupt

    with signal_handlers((signal.SIGINT,)):
        signal.signal(signal.SIGINT, interrupt)
        yield


def _end_without_ray() -> None:
    """Ends the process before Ray disconnects.

    A thread that then still uses Ray, such as one that waits for a worker group, would end the
    process with status 1.
    """
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(INTERRUPTED_STATUS)


def _write(line: str) -> None:
    """Writes a line to the terminal, also in the middle of one, and shows the cursor again."""
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):
        os.write(2, f"{cursor}\n{line}\n".encode())
