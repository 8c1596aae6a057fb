"""Drafts of folders: each is held by the process that writes it, for as long as it lives.

Beside a draft stands its lock file, which the operating system releases when the process
ends, however it ends, on whichever machine. So a later process can tell a draft in work
from one that a killed process left.
"""

from __future__ import annotations

import errno
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

DRAFT_PREFIX: Final = ".draft-"
"""First characters of a draft's name; a killed process may leave its draft behind."""

NO_LOCKS: Final = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
"""What flock reports on a file system that has no locks."""

UNLOCKED_AGE_S: Final = 24 * 3600.0
"""A draft that cannot be locked is in work if something in it is younger than this."""

_LOCK_SUFFIX: Final = ".lock"


def draft_beside(path: Path, label: str = "") -> Path:
    """A new name for a draft in the folder of ``path``, with ``label`` in it."""
    return path.with_name(f"{DRAFT_PREFIX}{label}{uuid.uuid4().hex}")


@contextmanager
def held(draft: Path) -> Iterator[None]:
    """Marks a draft as in work while a block runs; its parent folder must exist."""
    lock = _lock_of(draft)
    with suppress_no_locks():
        lock.acquire()
    try:
        yield
    finally:
        # While it is held: a new draft never has the same name.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def suppress_no_locks() -> Iterator[None]:
    """Continues without a lock on a file system that has none."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def drafts_in(folder: Path, label: str = "") -> list[Path]:
    """Drafts of folders, in work or left behind, whose names begin with ``label``."""
    found = folder.glob(f"{DRAFT_PREFIX}*")
    start = f"{DRAFT_PREFIX}{label}"
    return sorted(path for path in found if path.name.startswith(start) and path.is_dir())


def is_in_work(draft: Path) -> bool:
    """Whether a process still writes a draft; without locks, whether it is young."""
    lock = _lock_of(draft)
    if Path(lock.lock_file).exists():
        try:
            lock.acquire()
        except Timeout:
            return True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        else:
            lock.release()
            return False
    return time.time() - newest_change(draft) < UNLOCKED_AGE_S


def newest_change(folder: Path) -> float:
    """Unix time of the latest change within a folder; 0 if it is gone."""
    newest = 0.0
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            newest = max(newest, path.stat().st_mtime)
    return newest


def remove_draft(draft: Path) -> None:
    """Removes a draft that is not in work, and its lock file."""
    shutil.rmtree(draft, ignore_errors=True)
    Path(_lock_of(draft).lock_file).unlink(missing_ok=True)


def remove_leftovers(folder: Path, label: str) -> None:
    """Removes drafts with a label that are not in work."""
    for draft in drafts_in(folder, label):
        if not is_in_work(draft):
            remove_draft(draft)


def _lock_of(draft: Path) -> FileLock:
    return FileLock(f"{draft}{_LOCK_SUFFIX}", timeout=0, fallback_to_soft=False)
