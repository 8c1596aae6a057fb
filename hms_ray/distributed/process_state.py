"""State of the calling process that Ray changes, as it was once a run has ended."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


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
