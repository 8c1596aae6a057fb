"""Log files of a run; the only place where logging is set up, and taken back afterwards."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hms_ray.errors import StorageError, one_line, stopped_by
from hms_ray.storage.faults import check_storage, removed, storage_error

LOG_FILE: Final = "log.txt"
WORKER_LOGS: Final = "logs"
"""Folder of the workers' logs, beside the run's own."""

_PACKAGE = logging.getLogger("hms_ray")
_fields: dict[str, object] = {}
"""What every record of this process is marked with, such as its trial, fold and rank."""


@contextmanager
def attached(handler: logging.Handler) -> Iterator[None]:
    """Gives records of ``hms_ray`` to a handler while a block runs."""
    _PACKAGE.addHandler(handler)
    try:
        yield
    finally:
        _PACKAGE.removeHandler(handler)
        # It writes what is left, for which a full disk has no room.
        with suppress(OSError):
            handler.close()


@contextmanager
def run_log(file: Path, level: str = "INFO") -> Iterator[None]:
    """Logs a run to a file: its command, its records, and the error that ended it, if any.

    Args:
        file: appended to; folders above it are made.
        level: least level of a record: DEBUG, INFO, WARNING or ERROR.
    """
    with file_log(file, level):
        _PACKAGE.info("start: %s (pid %d on %s)", sys.argv, os.getpid(), socket.gethostname())
        try:
            yield
        except KeyboardInterrupt as interrupt:
            by = stopped_by(interrupt)
            _PACKAGE.warning("interrupted by %s", by)
            raise
        except BaseException:
            _PACKAGE.exception("ended by an error")
            raise
        _PACKAGE.info("end")


@contextmanager
def file_log(file: Path, level: str = "INFO") -> Iterator[None]:
    """Appends the records of ``hms_ray`` to a file while a block runs; see ``run_log``."""
    level_before = _PACKAGE.level
    _PACKAGE.setLevel(level)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Each record is flushed, so that a run that hangs or dies can be read.
        handler = _File(file, encoding="utf-8")
        handler.setFormatter(_Formatter())
        with attached(handler):
            yield
    finally:
        _PACKAGE.setLevel(level_before)


@contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Marks every record of this process, such as with its trial, while a block runs.

    Args:
        fields: added to those of blocks around it.
    """
    before = dict(_fields)
    _fields.update(fields)
    try:
        yield
    finally:
        _fields.clear()
        _fields.update(before)


class FaultLog:
    """Logs faults of reporting instead of raising them: work must not end because of them.

    Args:
        logger: gets a warning with the traceback; repetitions of a fault are not logged.
        folder: that the work needs, if it writes there: after a fault of its storage, the
            work continues only if the folder can still be written.
    """

    def __init__(self, logger: logging.Logger, folder: Path | None = None) -> None:
        self._logger, self._folder, self._known = logger, folder, set[str]()

    @contextmanager
    def __call__(self, text: str) -> Iterator[None]:
        """Runs a block; ``text`` is logged with its error, if it has one.

        Raises:
            StorageError: if the block has raised it, or ``folder`` cannot be written.
        """
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            if self._folder is not None and storage_error(error, self._folder) is not None:
                check_storage(self._folder)
            message = f"{text}: {one_line(error)}"
            if message not in self._known:
                self._known.add(message)
                self._logger.warning("%s", message, exc_info=True)


@dataclass(frozen=True)
class WorkerLogs:
    """Where the other processes of a run log, each in a file of its own.

    Attributes:
        folder: the run's folder; the files are in ``logs/`` below it.
        level: least level of a record.
        fields: what all records of a process are marked with, such as its trial.
    """

    folder: Path
    level: str = "INFO"
    fields: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def as_here(cls, folder: Path) -> WorkerLogs:
        """With the level that this process logs at."""
        return cls(folder, logging.getLevelName(_PACKAGE.getEffectiveLevel()))

    @property
    def file(self) -> Path:
        """The file of this process; its name has host and pid."""
        return self.folder / WORKER_LOGS / f"{socket.gethostname()}-{os.getpid()}.txt"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Logs this process's records in ``file`` while a block runs.

        A file that cannot be opened does not end the work; a line on standard error names it.
        """
        file = self.file
        with ExitStack() as stack:
            try:
                if not self.folder.is_dir():
                    raise removed(self.folder)
                stack.enter_context(file_log(file, self.level))
            except (OSError, StorageError) as error:
                _PACKAGE.warning("the log %s could not be opened: %s", file, error)
            stack.enter_context(log_fields(**self.fields))
            yield


class _File(logging.FileHandler):
    """A log file whose faults are named once on standard error: work continues without it."""

    _named = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._named:
            self._named = True
            with suppress(OSError, ValueError):
                text = f"warning: the log {self.baseFilename} is incomplete: {one_line(error)}"
                print(text, file=sys.stderr)


class _Formatter(logging.Formatter):
    """UTC time, level, module, fields, text; then the traceback, if there is one."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        marks = " ".join(f"{name} {value}" for name, value in _fields.items())
        if marks:
            record.message = f"[{marks}] {record.message}"
        return super().formatMessage(record)
