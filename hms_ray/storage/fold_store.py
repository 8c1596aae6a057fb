"""The fold store: results of trained folds, by cache key.

All studies of a results folder share one store. To resume or extend a study, to skip
duplicate trials and to retry after a lost node is one operation: look up the key.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hms_ray.errors import StudyError, one_line
from hms_ray.storage.atomic import IfExists, move_folder, whole_folder
from hms_ray.storage.faults import make_folder, storage_errors
from hms_ray.storage.fold_uses import how_to_train
from hms_ray.storage.folder_names import STORE_NAME
from hms_ray.storage.hashing import file_sha256
from hms_ray.storage.structured_files import json_text
from hms_ray.storage.visibility import wait_until

logger = logging.getLogger(__name__)

OOF_FILE, RECORD_FILE, WEIGHTS_FILE = "oof.parquet", "record.json", "weights.pt"
FREED_FILE = "weights.freed"
"""Empty file of a result whose weights were freed; its record stays as it was written."""
DAMAGED = "damaged"
"""Folder of the store for damaged results."""
FREED_PREFIX = ".freed-"
"""First characters of the name of what is being removed."""
_REQUIRED = ("checksums", "seconds", "saved_s")


@dataclass(frozen=True)
class StoredFold:
    """The stored result of one fold.

    Attributes:
        key: cache key.
        oof: validation rows of the fold: ids, patient, fold and six probabilities.
        record: plain data: inputs of the cache key, history, timings, scores.
        weights: file with the weights of the model; missing if they were freed.
    """

    key: str
    oof: pd.DataFrame
    record: dict[str, Any]
    weights: Path

    @property
    def has_weights(self) -> bool:
        """Whether the weights were not freed."""
        return self.weights.is_file()

    @property
    def saved_s(self) -> float:
        """Seconds of training that stages reused from the store saved."""
        return float(self.record["saved_s"])

    @property
    def minutes(self) -> float:
        """Minutes of training without reused stages."""
        return (float(self.record["seconds"]) + self.saved_s) / 60


class StoredFoldError(StudyError):
    """A stored fold that is missing or damaged."""


class FoldStore:
    """Results of folds by cache key; a result is either whole or absent.

    The weights of a whole result may be freed: its predictions and record stay. Training it
    again stores it with its weights.

    Args:
        results: folder of all studies; the store is its subfolder ``.store``.
    """

    def __init__(self, results: str | Path) -> None:
        self.root = Path(results) / STORE_NAME

    def path(self, key: str) -> Path:
        """Folder of a key; it need not exist."""
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether the store has a result for a key."""
        return (self.path(key) / RECORD_FILE).is_file()

    def has_weights(self, key: str) -> bool:
        """Whether the store has a result for a key, with the weights of its model."""
        return self.has(key) and (self.path(key) / WEIGHTS_FILE).is_file()

    def free_weights(self, key: str) -> int:
        """Removes the weights of a result; its predictions and record stay.

        Returns:
            Number of bytes that were freed; 0 without a result or weights.
        """
        folder, n_bytes = self.path(key), 0
        with suppress(FileNotFoundError):
            if self.has(key):
                used = folder.stat()
                n_bytes = (folder / WEIGHTS_FILE).stat().st_size
                # Written first: a result must never lack weights without it.
                with (folder / FREED_FILE).open("wb") as file:
                    os.fsync(file.fileno())
                (folder / WEIGHTS_FILE).unlink()
                os.utime(folder, (used.st_atime, used.st_mtime))
        return n_bytes

    def remove(self, key: str) -> None:
        """Removes a result; nothing happens without one."""
        freed = self.root / f"{FREED_PREFIX}{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            # No reader finds a part of it.
            os.rename(self.path(key), freed)
            shutil.rmtree(freed, ignore_errors=True)

    def parts(self) -> list[Path]:
        """The folders that the results lie in, each with the results of some keys."""
        return list(self.root.glob("??"))

    def folders(self) -> list[Path]:
        """Folders of all results, in no fixed order; a record may be damaged."""
        return [file.parent for part in self.parts() for file in part.glob(f"*/{RECORD_FILE}")]

    def wait_for(self, keys: Sequence[str]) -> None:
        """Waits until results that other machines have stored are visible here.

        Those that are not visible after ``VISIBLE_TIMEOUT_S`` are given up.
        """
        wait_until(lambda: all(map(self.has, keys)))

    def read(self, key: str) -> StoredFold:
        """The result of a key, whose checksums are checked.

        A damaged result is set aside (see ``set_aside``), so that its fold is trained again.

        Raises:
            StoredFoldError: if it is missing or damaged.
        """
        folder, inode = self.path(key), self._inode(key)
        try:
            record = self.record(key)
            check_files(folder, record)
        except StoredFoldError as error:
            if inode is None:
                raise
            raise self.set_aside(key, str(error.got), inode) from None
        oof = pd.read_parquet(folder / OOF_FILE)
        with suppress(OSError):
            os.utime(folder)  # Last used now, see ``store_contents``.
        return StoredFold(key, oof, record, folder / WEIGHTS_FILE)

    def find(self, key: str) -> StoredFold | None:
        """The result of a key; None if it is missing, or damaged and set aside now."""
        if not self.has(key):
            return None
        try:
            return self.read(key)
        except StoredFoldError:
            return None

    def record(self, key: str) -> dict[str, Any]:
        """The record of a result, without reading the result itself.

        Raises:
            StoredFoldError: if it is missing or damaged.
        """
        folder = self.path(key)
        try:
            text = (folder / RECORD_FILE).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise StoredFoldError(
                "a fold must be in the store before it is read",
                got=f"no result of cache key {key}",
                where=self.root,
                fix=how_to_train(self.root.parent, key),
            ) from None
        except UnicodeDecodeError:
            text = ""
        return _parsed(text, folder)

    def _inode(self, key: str) -> int | None:
        """Identifies the folder of a key, which another process may replace."""
        try:
            return self.path(key).stat().st_ino if self.has(key) else None
        except FileNotFoundError:
            return None

    def set_aside(self, key: str, reason: str, inode: int | None = None) -> StoredFoldError:
        """Moves a damaged result to the folder ``damaged`` of the store.

        Args:
            key: cache key.
            reason: what is wrong with it.
            inode: of the damaged folder, if known: a result that another process has stored
                meanwhile stays.

        Returns:
            The error to raise if the caller cannot train the fold.
        """
        folder, aside = self.path(key), self.root / DAMAGED / f"{key}-{uuid.uuid4().hex[:8]}"
        place: Path = folder
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder, aside)
            place = aside
        except OSError as error:
            logger.warning("stored fold %s is damaged and stays in place: %s", key, error)
        else:
            if inode is not None and aside.stat().st_ino != inode:
                move_folder(aside, folder, "keep")
                shutil.rmtree(aside, ignore_errors=True)
                place = folder
            else:
                logger.warning("a damaged stored fold was moved to %s: %s", aside, reason)
        return damaged_fold(place, reason, how_to_train(self.root.parent, key))

    def write(
        self,
        key: str,
        oof: pd.DataFrame,
        record: Mapping[str, Any],
        save_weights: Callable[[Path], object],
    ) -> None:
        """Stores a result as a whole; an existing result with weights stays.

        Args:
            key: cache key.
            oof: see ``StoredFold``.
            record: plain data without NaN.
            save_weights: writes ``StoredFold.weights``.

        Raises:
            StoredFoldError: if the folder of the key exists without a record and stays.
            StorageError: if it cannot be written; nothing of it is left then.
        """
        if self.has_weights(key):
            return
        with storage_errors(self.root.parent):
            self._write(key, oof, record, save_weights)

    def _write(
        self,
        key: str,
        oof: pd.DataFrame,
        record: Mapping[str, Any],
        save_weights: Callable[[Path], object],
    ) -> None:
        folder, freed = self.path(key), self.has(key)
        if folder.exists() and not freed:
            self.set_aside(key, f"no {RECORD_FILE}")
        make_folder(folder.parent, self.root.parent)
        # A second writer of a key has equal content.
        if_exists: IfExists = "replace" if freed else "keep"
        with whole_folder(folder, if_exists=if_exists) as draft:
            oof.to_parquet(draft / OOF_FILE, index=False)
            save_weights(draft / WEIGHTS_FILE)
            checksums = {path.name: file_sha256(path) for path in sorted(draft.iterdir())}
            content = json_text({**record, "checksums": checksums})
            (draft / RECORD_FILE).write_text(content, encoding="utf-8")
        # The result of another machine may become visible later.
        if not wait_until(lambda: self.has(key)):
            raise damaged_fold(folder, f"no {RECORD_FILE}")


def check_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Checks the files of a stored fold against the checksums of its record.

    Raises:
        StoredFoldError: if one is missing and was not freed, or differs.
    """
    for name, expected in record["checksums"].items():
        if not _matches(folder / name, expected):
            raise damaged_fold(folder, f"{name} does not match its checksum")


def _matches(file: Path, sha256: str) -> bool:
    try:
        return file_sha256(file) == sha256
    except (FileNotFoundError, IsADirectoryError):
        # Looked at only now: weights may be freed while this runs.
        return file.name == WEIGHTS_FILE and (file.parent / FREED_FILE).is_file()


def fault_of(folder: Path) -> str | None:
    """What is wrong with a stored fold; None if it is complete, unchanged and readable."""
    try:
        check_files(folder, _parsed((folder / RECORD_FILE).read_text(encoding="utf-8"), folder))
        pd.read_parquet(folder / OOF_FILE)
    except StoredFoldError as error:
        return str(error.got)
    except (OSError, ValueError) as error:
        return one_line(error)
    return None


def _parsed(text: str, folder: Path) -> dict[str, Any]:
    """The content of a record.

    Raises:
        StoredFoldError: if it is not JSON, or lacks a field.
    """
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError:
        raise damaged_fold(folder, f"an unreadable {RECORD_FILE}") from None
    missing = [name for name in _REQUIRED if not isinstance(record, dict) or name not in record]
    if missing:
        raise damaged_fold(folder, f"no {missing[0]} in {RECORD_FILE}")
    if not isinstance(record["checksums"], dict):
        raise damaged_fold(folder, f"no checksums in {RECORD_FILE}")
    return record


def damaged_fold(folder: Path, reason: str, fix: str | None = None) -> StoredFoldError:
    """The error for a folder of the store that does not hold what was written."""
    return StoredFoldError(
        "a stored fold must be complete and unchanged",
        got=reason,
        where=folder,
        fix=fix or "Move that folder away; the fold is then trained again.",
    )
