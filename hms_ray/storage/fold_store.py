"""The fold store: results of trained folds, by cache key.

All studies of a results folder share one store. To resume or extend a study, to skip
duplicate trials and to retry after a lost node is one operation: look up the key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hms_ray.errors import StudyError
from hms_ray.storage.atomic import whole_folder
from hms_ray.storage.folder_names import STORE_NAME
from hms_ray.storage.hashing import file_sha256
from hms_ray.storage.structured_files import json_text

OOF_FILE, RECORD_FILE, WEIGHTS_FILE = "oof.parquet", "record.json", "weights.pt"
_REQUIRED = ("checksums", "seconds", "saved_s")


@dataclass(frozen=True)
class StoredFold:
    """The stored result of one fold.

    Attributes:
        key: cache key.
        oof: validation rows of the fold: ids, patient, fold and six probabilities.
        record: plain data: inputs of the cache key, history, timings, scores.
        weights: file with the weights of the model.
    """

    key: str
    oof: pd.DataFrame
    record: dict[str, Any]
    weights: Path

    @property
    def saved_s(self) -> float:
        """Seconds of training that stages reused from the store saved."""
        return float(self.record["saved_s"])

    @property
    def minutes(self) -> float:
        """Minutes of training without reused stages."""
        return (float(self.record["seconds"]) + self.saved_s) / 60


class FoldStore:
    """Results of folds by cache key; a result is either whole or absent.

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

    def read(self, key: str) -> StoredFold:
        """The result of a key.

        Raises:
            StudyError: if it is missing or does not match its checksums.
        """
        record = self.record(key)
        folder = self.path(key)
        for name, expected in record["checksums"].items():
            file = folder / name
            if not file.is_file() or file_sha256(file) != expected:
                raise damaged_fold(folder, f"{name} does not match its checksum")
        oof = pd.read_parquet(folder / OOF_FILE)
        return StoredFold(key, oof, record, folder / WEIGHTS_FILE)

    def record(self, key: str) -> dict[str, Any]:
        """The record of a result, without reading the result itself.

        Raises:
            StudyError: if it is missing or damaged.
        """
        folder = self.path(key)
        if not self.has(key):
            raise StudyError(
                "a fold must be in the store before it is read",
                got=f"no result of cache key {key}",
                where=self.root,
                fix="Train the fold first.",
            )
        try:
            record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise damaged_fold(folder, f"an unreadable {RECORD_FILE}") from None
        missing = [name for name in _REQUIRED if not isinstance(record, dict) or name not in record]
        if missing:
            raise damaged_fold(folder, f"no {missing[0]} in {RECORD_FILE}")
        return record

    def write(
        self,
        key: str,
        oof: pd.DataFrame,
        record: Mapping[str, Any],
        save_weights: Callable[[Path], object],
    ) -> None:
        """Stores a result as a whole; an existing result of the key stays.

        Args:
            key: cache key.
            oof: see ``StoredFold``.
            record: plain data without NaN.
            save_weights: writes ``StoredFold.weights``.

        Raises:
            StudyError: if the folder of the key exists without a record.
        """
        if self.has(key):
            return
        folder = self.path(key)
        # A second writer of a key has equal content.
        with whole_folder(folder, if_exists="keep") as draft:
            oof.to_parquet(draft / OOF_FILE, index=False)
            save_weights(draft / WEIGHTS_FILE)
            checksums = {path.name: file_sha256(path) for path in sorted(draft.iterdir())}
            content = json_text({**record, "checksums": checksums})
            (draft / RECORD_FILE).write_text(content, encoding="utf-8")
        if not self.has(key):
            raise damaged_fold(folder, f"no {RECORD_FILE}")


def damaged_fold(folder: Path, reason: str) -> StudyError:
    """The error for a folder of the store that does not hold what was written."""
    return StudyError(
        "a stored fold must be complete and unchanged",
        got=reason,
        where=folder,
        fix="Move that folder away; the fold is then trained again.",
    )
