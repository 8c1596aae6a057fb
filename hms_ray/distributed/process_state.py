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

from hms_ray.errors import StoppedByRequest, Terminated

_STOPPING: Final = {
    signal.SIGINT: "stopping; press Ctrl-C again to end at once",
    signal.SIGTERM: "stopping after SIGTERM; another one ends at once",
}
"""Signal that ends a command -> what it answers to the first one."""


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
def stop_signals() -> Iterator[None]:
    """Ends a block at the first Ctrl-C or SIGTERM, and the process at once at the second.

    Raises:
        KeyboardInterrupt: at Ctrl-C.
        Terminated: at SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _first, _requested
    _first, _requested = None, False
    with signal_handlers(tuple(_STOPPING)):
        for number in _STOPPING:
            signal.signal(number, _stop)
        yield


_first: KeyboardInterrupt | None = None
_requested = False
_end_status = 0


def _stop(number: int, frame: FrameType | None) -> None:
    """The handler of both signals."""
    global _first
    if _first is not None:
        # No clean-up: Ray's processes end with this one, and files are whole or absent.
        _write("ended at once")
        os._exit(interrupt_status(_first))
    if number == signal.SIGTERM:
        _first = Terminated()
    else:
        _first = StoppedByRequest() if _requested else KeyboardInterrupt()
    _write(_STOPPING[signal.Signals(number)])
    raise _first


def stop_by_request() -> None:
    """Ends this process as Ctrl-C does, for ``hms-ray stop``; from any thread."""
    global _requested
    _requested = True
    os.kill(os.getpid(), signal.SIGINT)


def as_signalled(interrupt: KeyboardInterrupt) -> KeyboardInterrupt:
    """The error that the handler has raised: Ray's calls raise one of their own instead."""
    return interrupt if _first is None else _first


def interrupt_status(interrupt: KeyboardInterrupt) -> int:
    """Exit status of a command that a signal has ended: 128 and the signal's number."""
    number = signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT
    return 128 + number


def end_without_ray(status: int) -> None:
    """Makes this process end before Ray disconnects, once it has come to its end.

    A thread that then still uses Ray, such as one that waits for a worker group, would end the
    process with status 1.
    """
    set_end_status(status)

    def end() -> None:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(_end_status)

    # Registered after Ray's own, hence called before it.
    atexit.register(end)


def set_end_status(status: int) -> None:
    """The exit status of a process that ``end_without_ray`` ends."""
    global _end_status
    _end_status = status


def _write(line: str) -> None:
    """Writes a line to the terminal, also in the middle of one, and shows the cursor again."""
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):
        os.write(2, f"{cursor}\n{line}\n".encode())
