"""Locks between processes: of a study for as long as it runs, of a draft for a moment."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from hms_ray.errors import HmsRayError, LockedError, StudyError
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.drafts import NO_LOCKS, suppress_no_locks
from hms_ray.storage.structured_files import json_text, read_json

LOCK_FILE: Final = ".lock"
OWNER_FILE: Final = ".lock-owner.json"

_POLL_S: Final = 0.01
PATIENCE_S: Final = 0.2
"""``running_since`` holds a lock for less than this."""


class FolderLock:
    """The right to write to a folder, held by one process at a time.

    The operating system releases the lock of a process that ends, however it ends. While
    the lock is held, an owner record (host, process, time) stands beside it.

    Args:
        folder: must exist before the lock is taken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = _file_lock(folder, PATIENCE_S)

    def try_acquire(self) -> bool:
        """Takes the lock; False if it is not free within ``PATIENCE_S``.

        Raises:
            OSError: if the lock file or the owner record cannot be made, or the file system has
                no locks (``NO_LOCKS``). The lock is then free.
        """
        try:
            self._lock.acquire()
        except Timeout:
            return False
        try:
            self._record_owner()
        except BaseException:
            self._lock.release()
            raise
        return True

    def _record_owner(self) -> None:
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with whole_file(self._folder / OWNER_FILE, fsync=False) as draft:
            draft.write_text(json_text(owner), encoding="utf-8")

    def release(self) -> None:
        """Gives the lock back; nothing if it is not held."""
        if self._lock.is_locked:
            # A read-only disk must not hide the error that ends the run.
            with suppress(OSError):
                (self._folder / OWNER_FILE).unlink(missing_ok=True)
            self._lock.release()

    def owner(self) -> str:
        """The process that holds the lock, in parentheses; empty if it is not known."""
        # The record is written after the lock is taken, so it may be missing.
        with suppress(HmsRayError, KeyError):
            owner: dict[str, Any] = read_json(self._folder / OWNER_FILE, dict)
            return f" (host {owner['host']}, pid {owner['pid']}, since {owner['since']})"
        return ""


class StudyLock:
    """The lock of a study's folder: ``FolderLock`` with errors.

    Args:
        folder: must exist.
        noun: what is locked, for messages.
    """

    def __init__(self, folder: Path, noun: str = "study") -> None:
        self._folder, self._noun = folder, noun
        self._lock = FolderLock(folder)

    def acquire(self) -> None:
        """Takes the lock, or fails if it is not free within ``PATIENCE_S``.

        Raises:
            StudyError: if another process holds it, or the file system has no locks.
        """
        try:
            taken = self._lock.try_acquire()
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise StudyError(
                f"the file system of a {self._noun} must support file locks",
                got=error.strerror,
                where=self._folder,
                fix="Use another results folder.",
            ) from None
        if not taken:
            raise LockedError(
                f"{self._noun} is locked by another process{self._lock.owner()}",
                where=self._folder,
                fix="Wait for it to end, or stop it.",
            )

    def release(self) -> None:
        """Gives the lock back."""
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def running_since(folder: Path) -> datetime | None:
    """When the process that holds the lock of a folder took it; None if it is free.

    The time is the earliest possible one if it is not recorded.
    """
    if not (folder / LOCK_FILE).is_file():
        return None
    lock = _file_lock(folder, 0)
    try:
        lock.acquire()
    except Timeout:
        with suppress(HmsRayError, KeyError, TypeError, ValueError):
            return datetime.fromisoformat(read_json(folder / OWNER_FILE, dict)["since"])
        return datetime.min.replace(tzinfo=UTC)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    lock.release()
    return None


def _file_lock(folder: Path, timeout_s: float) -> FileLock:
    return FileLock(
        folder / LOCK_FILE, timeout=timeout_s, poll_interval=_POLL_S, fallback_to_soft=False
    )


@contextmanager
def short_lock(path: Path) -> Iterator[None]:
    """Keeps other processes out of a short section; waits for them to leave it.

    A file system without locks keeps nobody out: the section must be safe without.

    Args:
        path: lock file, made if missing; its folder must exist.

    Raises:
        FileNotFoundError: if the folder is gone.
    """
    lock = FileLock(path, poll_interval=_POLL_S, fallback_to_soft=False)
    # FileLock would make the folder.
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    with suppress_no_locks():
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
