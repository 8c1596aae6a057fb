"""Locks between processes: of a study for as long as it runs, of a draft for a moment."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, LeaseCompromise, Timeout

from hms_ray.errors import HmsRayError, LockedError
from hms_ray.storage import lease
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.drafts import NO_LOCKS, suppress_no_locks
from hms_ray.storage.faults import removed, storage_error
from hms_ray.storage.structured_files import json_text, read_json

LOCK_FILE: Final = ".lock"
OWNER_FILE: Final = ".lock-owner.json"

_POLL_S: Final = 0.01
WATCH_S: Final = 1.0
"""Seconds between two looks at a lease of another machine."""
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
            record_owner(self._folder)
        except BaseException:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        """Gives the lock back; nothing if it is not held."""
        if self._lock.is_locked:
            # A read-only disk must not hide the error that ends the run.
            with suppress(OSError):
                (self._folder / OWNER_FILE).unlink(missing_ok=True)
            self._lock.release()

    def owner(self) -> str:
        """See ``owner_of``."""
        return owner_of(self._folder)


class StudyLock:
    """The right to run a study or ladder, on whichever machine: a ``FolderLease`` with errors.

    While it is held, an owner record (host, process, time) stands beside it.

    Args:
        folder: must exist.
        noun: what is locked, for messages.
        announce: shows a line while the owner is on another machine, which may be gone, and is
            watched; default: an owner anywhere is refused at once.
        on_lost: called once, from a thread, with the reason if another command takes the lock,
            because this process was suspended, or if it cannot be renewed.
    """

    def __init__(
        self,
        folder: Path,
        noun: str = "study",
        *,
        announce: Callable[[str], None] | None = None,
        on_lost: Callable[[HmsRayError], None] = lambda error: None,
    ) -> None:
        self._folder, self._noun, self._announce = folder, noun, announce
        self._on_lost = on_lost
        self._lease = lease.FolderLease(folder, self._lose)
        self._lost: HmsRayError | None = None

    def acquire(self) -> None:
        """Takes the lock, or fails if another process holds it.

        Raises:
            LockedError: if a process on this machine holds it, or one on another machine that
                renews it.
        """
        if not self._try_acquire():
            raise LockedError(
                f"{self._noun} is locked by another process{owner_of(self._folder)}",
                where=self._folder,
                fix="Wait for it to end, or stop it.",
            )
        try:
            record_owner(self._folder)
        except BaseException:
            self._lease.release()
            raise

    def _try_acquire(self) -> bool:
        if self._lease.try_acquire(PATIENCE_S):
            return True
        if self._announce is None or self._owner_lives_here():
            return False
        owner, renewal = owner_of(self._folder), self._lease.renewal()
        self._announce(
            f"the {self._noun} is held by a process on another machine{owner}: taken over if it "
            f"gives no sign of life for {lease.LEASE_S:.0f} s"
        )
        while not self._lease.try_acquire(WATCH_S):
            now = self._lease.renewal()
            if now is not None and now != renewal:
                return False
        self._announce(f"the {self._noun} is taken over{owner}")
        return True

    def _owner_lives_here(self) -> bool:
        with suppress(HmsRayError, KeyError, TypeError, ProcessLookupError):
            owner = read_json(self._folder / OWNER_FILE, dict)
            if owner["host"] == socket.gethostname() and self._lease.age_s() < lease.LEASE_S:
                with suppress(PermissionError):
                    os.kill(int(owner["pid"]), 0)
                return True
        return False

    def _lose(self, loss: LeaseCompromise) -> None:
        lost: HmsRayError | None = None
        if loss.error is not None:
            lost = storage_error(loss.error, self._folder)
        if not self._folder.is_dir():
            lost = removed(self._folder)
        self._lost = lost or LockedError(
            f"a {self._noun} must be run by one command at a time",
            got=f"another one, which has taken it over{owner_of(self._folder)}"
            if loss.reason == "owner-changed"
            else "a lock that was removed",
            where=self._folder,
            fix="Let the other one continue: nothing that was trained is lost.",
        )
        self._on_lost(self._lost)

    def check(self) -> None:
        """Checks that the lock is still held.

        Raises:
            HmsRayError: if it was lost.
        """
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Gives the lock back."""
        if self._lost is None:
            with suppress(OSError):
                (self._folder / OWNER_FILE).unlink(missing_ok=True)
        self._lease.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def running_since(folder: Path) -> datetime | None:
    """When the process that holds the lock of a folder took it; None if it is free.

    The time is the earliest possible one if it is not recorded.
    """
    if not (lease.is_leased(folder) or _is_locked(folder)):
        return None
    with suppress(HmsRayError, KeyError, TypeError, ValueError):
        return datetime.fromisoformat(read_json(folder / OWNER_FILE, dict)["since"])
    return datetime.min.replace(tzinfo=UTC)


def _is_locked(folder: Path) -> bool:
    if not (folder / LOCK_FILE).is_file():
        return False
    lock = _file_lock(folder, 0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    lock.release()
    return False


def owner_of(folder: Path) -> str:
    """The process that holds a folder's lock, in parentheses; empty if it is not known."""
    # The record is written after the lock is taken, so it may be missing.
    with suppress(HmsRayError, KeyError):
        owner: dict[str, Any] = read_json(folder / OWNER_FILE, dict)
        return f" (host {owner['host']}, pid {owner['pid']}, since {owner['since']})"
    return ""


def record_owner(folder: Path) -> None:
    """Writes the owner record of this process."""
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with whole_file(folder / OWNER_FILE, fsync=False) as draft:
        draft.write_text(json_text(owner), encoding="utf-8")


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
