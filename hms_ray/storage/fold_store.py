"""Every fold's result under the hash of all that made it.

One store serves all studies below a results folder. Resuming, extending a
study, skipping duplicates and retrying after a lost node all are the same
question to it: is this key there already?
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
from hms_ray.storage.hashing import file_sha256
from hms_ray.storage.structured_files import json_text

STORE_NAME = ".store"
OOF_FILE, RECORD_FILE, WEIGHTS_FILE = "oof.parquet", "record.json", "weights.pt"
LAST_FILE = "last.pt"


@dataclass(frozen=True)
class StoredFold:
    """One fold as the store holds it.

    Attributes:
        key: hex digest of everything that changes the result.
        oof: the fold's validation rows: ids, patient, fold and six probabilities.
        record: plain data: what made the result, history, timings, scores.
        weights: file with the model's weights.
        last: file with the weights after the last step, from which training can go on;
            None where no others than ``weights`` were stored.
    """

    key: str
    oof: pd.DataFrame
    record: dict[str, Any]
    weights: Path
    last: Path | None = None

    @property
    def saved_s(self) -> float:
        """Seconds of stages taken from other folds; 0 where it was stored before that was."""
        return float(self.record.get("saved_s", 0.0))

    @property
    def minutes(self) -> float:
        """What the fold takes by itself, stages taken from others included."""
        return (float(self.record["seconds"]) + self.saved_s) / 60


class FoldStore:
    """Content-addressed results of folds; a result is either whole or absent.

    Args:
        results: folder that holds the studies; the store is ``.store`` in it.
    """

    def __init__(self, results: str | Path) -> None:
        self.root = Path(results) / STORE_NAME

    def path(self, key: str) -> Path:
        """Folder of a key, whether it exists or not."""
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether the result of a key is there."""
        return (self.path(key) / RECORD_FILE).is_file()

    def read(self, key: str) -> StoredFold:
        """The result of a key.

        Raises:
            StudyError: where it is absent or does not match its checksums.
        """
        record = self.record(key)
        folder = self.path(key)
        for name, expected in record["checksums"].items():
            file = folder / name
            if not file.is_file() or file_sha256(file) != expected:
                raise damaged_fold(folder, f"{name} does not match its checksum")
        last = folder / LAST_FILE if LAST_FILE in record["checksums"] else None
        oof = pd.read_parquet(folder / OOF_FILE)
        return StoredFold(key, oof, record, folder / WEIGHTS_FILE, last)

    def record(self, key: str) -> dict[str, Any]:
        """What is written beside a result, without reading the result itself."""
        folder = self.path(key)
        if not self.has(key):
            raise StudyError(
                "a fold must be in the store before it is read",
                got=f"nothing under {key}",
                where=self.root,
                fix="Train it first.",
            )
        try:
            record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise damaged_fold(folder, f"{RECORD_FILE} is not readable JSON") from None
        if not isinstance(record, dict) or "checksums" not in record:
            raise damaged_fold(folder, f"{RECORD_FILE} has no checksums")
        return record

    def write(
        self,
        key: str,
        oof: pd.DataFrame,
        record: Mapping[str, Any],
        save_weights: Callable[[Path], None],
        save_last: Callable[[Path], None] | None = None,
    ) -> None:
        """Stores a result, all of it or nothing; a key that is there stays as it is.

        Args:
            key: hex digest of everything that changes the result.
            oof: validation rows with their probabilities.
            record: plain data; NaN is refused.
            save_weights: writes the model's weights to the path it is given.
            save_last: writes the weights after the last step, where they are others.
        """
        if self.has(key):
            return
        folder = self.path(key)
        # A second writer of a key has equal content.
        with whole_folder(folder, if_exists="keep") as draft:
            oof.to_parquet(draft / OOF_FILE, index=False)
            save_weights(draft / WEIGHTS_FILE)
            if save_last is not None:
                save_last(draft / LAST_FILE)
            checksums = {path.name: file_sha256(path) for path in sorted(draft.iterdir())}
            content = json_text({**record, "checksums": checksums})
            (draft / RECORD_FILE).write_text(content, encoding="utf-8")
        if not self.has(key):
            raise damaged_fold(folder, f"no {RECORD_FILE}")


def damaged_fold(folder: Path, reason: str) -> StudyError:
    """What is said of a fold's folder that does not hold what was stored."""
    return StudyError(
        "a stored fold must be whole",
        got=reason,
        where=folder,
        fix="Move that folder away to have the fold trained again.",
    )
