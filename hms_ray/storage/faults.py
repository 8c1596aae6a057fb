"""Faults of storage that end a run: a disk that is full, read-only, failing or gone.

They are no failures of a trial: what was stored stays, what is open stays open, and the same
command continues once the fault is mended.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hms_ray.errors import HmsRayError, StorageError
from hms_ray.storage.drafts import draft_beside

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_FAILING: Final = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN})
"""The last two are those of network file systems whose server is lost."""
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_THEN: Final = "then run the same command again: it resumes."

PROBE_BYTES: Final = 2**16


def storage_error(error: BaseException, folder: Path) -> StorageError | None:
    """The fault of storage that is behind an error; None if another reason is.

    Args:
        error: of writing, with its causes: torch and Tune raise errors of their own.
        folder: that everything is written below.
    """
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno is not None):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    assert isinstance(cause, OSError)
    got, number = cause.strerror, cause.errno
    if number in _FULL:
        rule, fix = "the disk must have free space", "Free space"
    elif number in _READ_ONLY:
        rule, fix = "the folder must be writable", "Make it writable"
    elif number in _FAILING:
        rule, fix = "the disk must work", "Check it and its network"
    elif number in _MISSING and not folder.is_dir():
        return removed(folder)
    else:
        return None
    return StorageError(rule, got=got, where=folder, fix=f"{fix}, {_THEN}")


def removed(folder: Path) -> StorageError:
    """The fault of a folder that was removed while a command used it."""
    return StorageError(
        "a folder must stay while a command uses it",
        got="it was removed or moved",
        where=folder,
        fix="Put it back, or run the same command again: it starts anew.",
    )


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Runs a block that writes below a folder what must not be lost.

    Raises:
        StorageError: instead of an error that the storage has caused.
    """
    try:
        yield
    except HmsRayError:
        raise
    except Exception as error:
        found = storage_error(error, folder)
        if found is None:
            raise
        raise found from error


def make_folder(folder: Path, below: Path) -> None:
    """Makes a folder, and those above it up to one that must exist.

    Raises:
        StorageError: if ``below`` is gone: it is never made again for a part of its content.
    """
    if not below.is_dir():
        raise removed(below)
    folder.mkdir(parents=True, exist_ok=True)


def check_storage(folder: Path) -> None:
    """Checks that a folder can be written, by a small file that is removed again.

    Raises:
        StorageError: if it cannot.
    """
    if not folder.is_dir():
        raise removed(folder)
    probe = draft_beside(folder / "probe")
    with storage_errors(folder):
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
