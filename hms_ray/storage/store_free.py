"""Frees the fold store: what goes, and why the rest stays."""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hms_ray.errors import ConfigError, StudyError
from hms_ray.storage.drafts import remove_draft
from hms_ray.storage.fold_store import FREED_PREFIX, FoldStore
from hms_ray.storage.folder_names import kind_of, require_inside
from hms_ray.storage.locks import StudyLock, running_since
from hms_ray.storage.resume_folder import remove_unless_in_work
from hms_ray.storage.store_contents import StoreEntry, store_entries
from hms_ray.text import closest

DAY_S: Final = 24 * 3600.0
RECENT_S: Final = DAY_S
"""Entries used within this time, or since this time before the oldest running command has
started, may belong to a trial that has not ended; they stay."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to free; conditions narrow each other.

    Drafts, damaged results and checkpoints of stored folds go always.

    Attributes:
        studies: only folds of these studies, ladders or blends; default: only folds that
            nothing uses.
        age_days: only what was neither written nor reused for so many days.
        max_bytes: only until the store is smaller than this, the least recently used first.
        force: with ``studies``: also folds that others use; else: also folds in use.
        damaged: folds that are damaged, by path, with the reason; they go too.
    """

    studies: tuple[str, ...] = ()
    age_days: float | None = None
    max_bytes: float | None = None
    force: bool = False
    damaged: Mapping[Path, str] | None = None

    def __post_init__(self) -> None:
        for name, value in (("--age", self.age_days), ("--size", self.max_bytes)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"{name} must be a number of at least 0", got=value, fix=f"Give {name} N."
                )

    @property
    def selects_folds(self) -> bool:
        """Whether anything but drafts and damaged results may go."""
        return bool(self.studies) or self.age_days is not None or self.max_bytes is not None


Freed = list[tuple[StoreEntry, str]]
"""Entries with the reason why they go."""


def free(results: Path, choice: Choice, *, dry_run: bool = False) -> Freed:
    """Removes what is chosen, and returns it.

    A removed entry is renamed first, so that no reader finds a part of it, and a running
    command that misses it trains it again.

    Args:
        results: folder of the store.
        choice: what goes.
        dry_run: remove nothing.

    Raises:
        StudyError: if a named study does not exist, or another command runs it.
    """
    with ExitStack() as stack:
        for name in choice.studies:
            folder = results / name
            require_inside(folder, results)
            if kind_of(folder) in ("study", "ladder"):
                stack.enter_context(StudyLock(folder))
        running = [
            since.timestamp()
            for folder in sorted(results.glob("*"))
            if folder.name not in choice.studies and (since := running_since(folder)) is not None
        ]
        entries = store_entries(results)
        _require_names(choice.studies, entries, results)
        chosen = choose(entries, choice, now=time.time(), running=running)
        return chosen if dry_run else [one for one in chosen if _remove(one[0], results)]


def _require_names(names: Collection[str], entries: Sequence[StoreEntry], results: Path) -> None:
    known = {name for entry in entries for name in entry.used_by}
    for name in names:
        if name not in known:
            raise StudyError(
                "--study must name a study, ladder or blend that uses stored folds",
                got=f"{name}{closest(name, known)}",
                where=results,
                fix="List them with: hms-ray store",
            )


def choose(
    entries: Sequence[StoreEntry], choice: Choice, *, now: float, running: Sequence[float] = ()
) -> Freed:
    """The entries that go, the least recently used first.

    Args:
        entries: of the store, the least recently used first.
        choice: what goes.
        now: Unix time.
        running: when other commands that run now have started.
    """
    oldest = math.inf if choice.age_days is None else now - choice.age_days * DAY_S
    damaged = choice.damaged or {}
    chosen: Freed = []
    left = sum(entry.n_bytes for entry in entries)
    for entry in entries:
        reason = damaged.get(entry.path) or _leftover(entry, choice, oldest)
        if reason is not None:
            chosen.append((entry, reason))
            left -= entry.n_bytes
    gone = {entry.path for entry, _ in chosen}
    for entry in entries:
        if entry.path in gone or entry.kind not in ("fold", "rows"):
            continue
        if choice.max_bytes is not None and left < choice.max_bytes:
            break
        reason = _reason(entry, choice)
        if (
            reason is None
            or entry.last_used > oldest
            or _may_be_needed(entry, choice, now, running)
        ):
            continue
        chosen.append((entry, reason))
        left -= entry.n_bytes
    return chosen


def _leftover(entry: StoreEntry, choice: Choice, oldest: float) -> str | None:
    """Why something goes that no command reads."""
    if entry.kind == "damaged":
        return "damaged"
    if entry.kind not in ("draft", "checkpoint") or entry.in_work:
        return None
    old = choice.age_days is not None and entry.last_used <= oldest
    if entry.kind == "checkpoint":
        if entry.is_stored:
            return "its fold is in the store"
        return "a fold that is not being trained" if old else None
    if entry.path.name.startswith(FREED_PREFIX):
        return "was being removed"
    if not entry.has_weights:
        return "a draft without a checkpoint"
    return "a draft that is not in work" if old else None


def _reason(entry: StoreEntry, choice: Choice) -> str | None:
    """Why an entry may go, whatever its age."""
    named = set(choice.studies)
    if not choice.selects_folds or (named and entry.kind == "rows"):
        return None
    if named:
        users = set(entry.used_by)
        if users and (users <= named or (choice.force and users & named)):
            return f"used by {', '.join(entry.used_by)}"
        return None
    if not entry.used_by:
        return "in no study" if entry.kind == "fold" else "rows of an earlier run"
    return f"used by {', '.join(entry.used_by)}" if choice.force else None


def _may_be_needed(entry: StoreEntry, choice: Choice, now: float, running: Sequence[float]) -> bool:
    """Whether an entry may belong to a trial that has not ended."""
    if entry.kind == "rows" and running:
        return True
    if choice.studies and not running:
        return False
    return entry.last_used > min((now, *running)) - RECENT_S


def _remove(entry: StoreEntry, results: Path) -> bool:
    """Removes an entry; False if it has been used or removed since it was listed."""
    if entry.kind == "draft":
        if entry.path.is_dir():
            remove_draft(entry.path)
        entry.path.unlink(missing_ok=True)
        return True
    freed = FoldStore(results).root / f"{FREED_PREFIX}{uuid.uuid4().hex}"
    if entry.kind == "checkpoint":
        with suppress(FileNotFoundError):
            return remove_unless_in_work(entry.path, freed)
        return False
    with suppress(FileNotFoundError):
        if entry.path.stat().st_mtime != entry.last_used:
            return False
        os.rename(entry.path, freed)
        if freed.is_dir():
            shutil.rmtree(freed, ignore_errors=True)
        else:
            freed.unlink()
        return True
    return False
