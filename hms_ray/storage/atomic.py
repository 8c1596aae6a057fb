"""One writer for whole files and folders: a reader finds all of one, or none of it.

Each is written as a draft beside its place, flushed to disk and then renamed, so that
neither a killed process nor a power failure leaves a part of it.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, Literal

from hms_ray.errors import ConfigError
from hms_ray.storage.drafts import draft_beside, held

IfExists = Literal["fail", "keep", "replace"]
"""What happens to a folder with content that is there by the time a draft is finished."""

_OCCUPIED: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_PAUSES_S: Final = (0.1, 0.5, 2.0, 5.0)
"""Waits for a folder that a shared file system does not show yet."""


def keep_nothing(_: Path) -> bool:
    """The default of ``keep_if``, see ``move_folder``."""
    return False


def require_writable(path: str | Path) -> None:
    """Checks that a file can be written, before anything is computed for it.

    Raises:
        ConfigError: if the path is a folder, or its folder is read-only or a file.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError("the file to write must not be a folder", got=str(path))
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(
            "the file to write must be in a writable folder",
            got=f"{above}, which {'is read-only' if above.is_dir() else 'is a file'}",
        )


@contextmanager
def whole_file(path: str | Path, *, fsync: bool = True) -> Iterator[Path]:
    """Writes or replaces a file as a whole; on an error the old file stays.

    Draft names are random, since processes of two containers on shared storage may have
    equal numbers. They contain nothing of the file's name, so that no reader that looks
    for names (TensorBoard, a glob) takes a draft for the file.

    Args:
        path: the file; missing parent folders are created.
        fsync: flush to disk before the rename. False only for files whose content is stored
            elsewhere too.

    Yields:
        Path of the draft, in the same folder, to be written by the caller.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_beside(path)
    try:
        yield draft
        if fsync:
            _flush(draft)
        os.replace(draft, path)
        if fsync:
            _flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(
    path: str | Path,
    *,
    if_exists: IfExists = "fail",
    keep_if: Callable[[Path], bool] = keep_nothing,
    fsync: bool = True,
    label: str = "",
) -> Iterator[Path]:
    """Writes a folder as a whole; on an error the draft is removed.

    Args:
        path: the folder; missing parent folders are created.
        if_exists: ``keep`` is for writers of equal content: the first one's folder stays.
        keep_if: see ``move_folder``.
        fsync: flush every file to disk before the rename.
        label: text in the draft's name, by which ``drafts.remove_leftovers`` finds it.

    Yields:
        Path of the empty draft folder, beside ``path``, to be filled by the caller.

    Raises:
        OSError: see ``move_folder``.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(
            errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)
        ) from None
    draft = draft_beside(path, label)
    with held(draft):
        try:
            draft.mkdir()
            yield draft
            if fsync:
                for entry in (*draft.rglob("*"), draft):
                    _flush(entry)
            move_folder(draft, path, if_exists, keep_if)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def move_folder(
    draft: Path, path: Path, if_exists: IfExists, keep_if: Callable[[Path], bool] = keep_nothing
) -> None:
    """Renames a finished folder to its place, on the same file system.

    Args:
        draft: folder to move; it stays where it is if ``path`` is kept.
        path: its place; an empty folder there is always replaced.
        if_exists: what happens to a folder with content at ``path``.
        keep_if: with ``replace``: whether a folder with content stays nevertheless.

    Raises:
        OSError: if the folder cannot be moved, or ``path`` has content and ``if_exists``
            is ``fail``; what was at ``path`` stays.
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            os.rename(draft, path)
            break
        except OSError as error:
            # A folder cannot be renamed onto one that has content. A shared file system may
            # report that content before it shows the folder itself.
            occupied = error.errno in _OCCUPIED or path.is_dir()
            if if_exists == "fail" or not occupied:
                raise
            if if_exists == "keep":
                return
            if _replaced(draft, path, keep_if):
                break
            if pause_s is None:
                raise
        time.sleep(pause_s)
    _flush(path.parent)


def _replaced(draft: Path, path: Path, keep_if: Callable[[Path], bool]) -> bool:
    """Exchanges a folder, unless it is to be kept; False if another writer interferes."""
    old = draft_beside(path)
    with held(old):
        try:
            os.rename(path, old)
        except FileNotFoundError:
            # Not visible here yet, or another writer is replacing it.
            return False
        # Looked at only now: no other process can exchange it any more.
        if keep_if(old):
            move_folder(old, path, "replace")
            return True
        try:
            os.rename(draft, path)
        except OSError as error:
            if error.errno not in _OCCUPIED:
                os.rename(old, path)
                raise
            return False
        finally:
            # Whoever has files of the old folder open keeps them.
            shutil.rmtree(old, ignore_errors=True)
    return True


def _flush(path: Path) -> None:
    """Flushes a file or a folder's entries to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems cannot flush a folder.
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(fd)
    finally:
        os.close(fd)
