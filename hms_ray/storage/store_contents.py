"""What the fold store contains: results, who uses them, and what no command reads."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hms_ray.storage.drafts import DRAFT_PREFIX, UNLOCKED_AGE_S, is_in_work
from hms_ray.storage.fold_store import DAMAGED, FREED_PREFIX, WEIGHTS_FILE, FoldStore, fault_of
from hms_ray.storage.fold_uses import owner, uses
from hms_ray.storage.locks import running_since
from hms_ray.storage.resume_folder import RESUME

ROWS: Final = "rows"
"""Folder of the store for tables of training rows."""

EntryKind = Literal["fold", "draft", "checkpoint", "damaged", "rows"]

_KEY: Final = re.compile(r"[0-9a-f]{64}")
_SHARD: Final = re.compile(r"[0-9a-f]{2}")


@dataclass(frozen=True)
class StoreEntry:
    """One thing in the fold store.

    Attributes:
        kind: ``fold``: the result of one; ``draft``: one that is being written or that a
            killed process left; ``checkpoint``: the resume folder of a fold that is not
            finished; ``damaged``: a result that was set aside; ``rows``: a table of training
            rows.
        path: its file or folder.
        n_bytes: its size.
        last_used: Unix time at which it was written or last reused.
        used_by: names of the studies, ladders and blends that use it.
    """

    kind: EntryKind
    path: Path
    n_bytes: int
    last_used: float
    used_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Cache key of a fold or a checkpoint; else the name of its file or folder."""
        return self.path.name

    @property
    def is_stored(self) -> bool:
        """Whether the result of a checkpoint's fold is in the store."""
        return FoldStore(self.path.parents[2]).has(self.name)

    @property
    def has_weights(self) -> bool:
        """Whether a fold or a draft holds weights; those of a fold may have been freed."""
        return (self.path / WEIGHTS_FILE).is_file()

    @property
    def in_work(self) -> bool:
        """Whether a process is writing this draft, or trains from this checkpoint."""
        if self.kind == "checkpoint":
            return running_since(self.path) is not None
        if self.path.name.startswith(FREED_PREFIX):
            return False
        if self.path.is_dir():
            return is_in_work(self.path)
        return time.time() - self.last_used < UNLOCKED_AGE_S


def store_entries(results: Path) -> list[StoreEntry]:
    """Everything in the fold store of a results folder, the least recently used first."""
    return sorted(_entries(results), key=lambda entry: (entry.last_used, entry.name))


def _entries(results: Path) -> Iterator[StoreEntry]:
    users = {
        key: tuple(sorted({owner(file) for file in files})) for key, files in uses(results).items()
    }
    root = FoldStore(results).root
    for folder in (root, *(path for path in root.glob("*") if path.is_dir())):
        for path in folder.glob("*"):
            kind = _kind(path, root)
            if kind is None:
                continue
            try:
                # The time of the folder itself: its files are not used one by one.
                last_used, n_bytes = path.stat().st_mtime, _size(path)
            except FileNotFoundError:
                continue  # Finished, removed or set aside meanwhile.
            used_by = users.get(path.name, ()) if kind == "fold" else ()
            yield StoreEntry(kind, path, n_bytes, last_used, used_by)


def _kind(path: Path, root: Path) -> EntryKind | None:
    if path.name.startswith((DRAFT_PREFIX, FREED_PREFIX)):
        return None if path.suffix == ".lock" else "draft"
    if path.parent == root / DAMAGED:
        return "damaged"
    if path.parent == root / ROWS:
        return "rows"
    if path.parent == root / RESUME:
        return "checkpoint"
    is_fold = _SHARD.fullmatch(path.parent.name) and _KEY.fullmatch(path.name)
    return "fold" if is_fold else None


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def damaged_entries(entries: Sequence[StoreEntry]) -> dict[Path, str]:
    """Path of each damaged fold -> what is wrong with it; all files are read."""
    found = {entry.path: fault_of(entry.path) for entry in entries if entry.kind == "fold"}
    return {path: fault for path, fault in found.items() if fault is not None and path.exists()}
