"""Resume folders: the latest checkpoint of each fold in training, held by one writer."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from hms_ray.errors import StudyError
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.drafts import DRAFT_PREFIX, suppress_no_locks
from hms_ray.storage.faults import make_folder, storage_errors
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.locks import FolderLock

RESUME: Final = "resume"
"""Folder of the store for resume folders, named by cache key."""
CHECKPOINT_FILE: Final = "checkpoint.pt"

_DIGEST: Final = hashlib.sha256
_N_DIGEST: Final = _DIGEST().digest_size


class ResumeFolder:
    """Where a fold that is being trained keeps its latest checkpoint.

    Its writer holds the folder's lock, which the operating system releases when that process
    ends, however it ends. On a file system without locks nobody is kept out: writers of a
    key have equal content, and a checkpoint is replaced as a whole.

    Args:
        results: folder of all studies.
        key: cache key of the fold.
    """

    def __init__(self, results: Path, key: str) -> None:
        self._results = results
        self.folder = FoldStore(results).root / RESUME / key
        self._lock = FolderLock(self.folder)
        self._file = self.folder / CHECKPOINT_FILE
        self._taken = False

    def take(self) -> bool:
        """Makes this process the writer; False if another one is, or was until now.

        Raises:
            StorageError: if the folder cannot be written.
        """
        with storage_errors(self._results):
            return self._take()

    def _take(self) -> bool:
        make_folder(self.folder, self._results)
        try:
            with suppress_no_locks():
                if not self._lock.try_acquire():
                    return False
        except FileNotFoundError:
            # Its writer has just removed the folder.
            return False
        for draft in self.folder.glob(f"{DRAFT_PREFIX}*"):
            draft.unlink(missing_ok=True)
        self._taken = True
        return True

    def writer(self) -> str:
        """Host, process and start of the writer, in parentheses; empty if not known."""
        return self._lock.owner()

    def write(self, content: bytes) -> None:
        """Replaces the checkpoint as a whole."""
        with whole_file(self._file) as draft, draft.open("wb") as file:
            file.write(_DIGEST(content).digest())
            file.write(content)

    def read(self) -> bytes | None:
        """The checkpoint; None if there is none.

        Raises:
            StudyError: if it does not match its checksum.
        """
        try:
            found = self._file.read_bytes()
        except FileNotFoundError:
            return None
        content = memoryview(found)[_N_DIGEST:]
        if _DIGEST(content).digest() != found[:_N_DIGEST]:
            raise StudyError(
                "a checkpoint must match its checksum",
                got=f"a damaged file of {len(found)} bytes",
                where=self._file,
                fix="Remove it; the fold is then trained from its last stage.",
            )
        return bytes(content)

    def remove_checkpoint(self) -> None:
        """Removes the checkpoint, if there is one."""
        self._file.unlink(missing_ok=True)

    def release(self, *, remove: bool) -> None:
        """Ends the writing, if this process is the writer.

        Args:
            remove: remove the folder. Without a checkpoint it is removed in any case.
        """
        if not self._taken:
            return
        self._taken = False
        if remove or not self._file.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


def remove_unless_in_work(folder: Path, moved: Path) -> bool:
    """Removes a resume folder; False if a process holds it.

    Args:
        folder: the folder.
        moved: a free name, to which it is moved first, so that nobody finds a part of it.
    """
    lock = FolderLock(folder)
    with suppress_no_locks():
        if not lock.try_acquire():
            return False
    try:
        folder.rename(moved)
        shutil.rmtree(moved, ignore_errors=True)
    finally:
        lock.release()
    return True
