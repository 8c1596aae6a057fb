"""The fold store as tables: what it holds, what is freed, what is damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hms_ray.display.tables import Column, Table, to_text
from hms_ray.storage.store_contents import StoreEntry
from hms_ray.text import counted

_KEY_LENGTH: Final = 12
_UNUSED: Final = "no study"
_LEGEND: Final = (
    "last used, oldest: time since the latest and the earliest use; folds are used when trained "
    "or reused."
)
_FREED: Final = (
    "no weights: folds whose weights resources.keep_weights freed; their predictions stay."
)
_STAY: Final = (
    "Folds that were used within a day stay, unless their study is named (--study); so do "
    "folds that others use, without --force."
)
_GROUPS: Final = {
    "draft": "drafts",
    "checkpoint": "checkpoints of unfinished folds",
    "damaged": "damaged, set aside",
    "rows": "row tables",
}


def size_text(n_bytes: float) -> str:
    """A size with its unit, in powers of 1000: ``0.3 MB``, ``12.5 GB``."""
    giga = n_bytes >= 1e9
    return f"{n_bytes / (1e9 if giga else 1e6):,.1f} {'GB' if giga else 'MB'}"


def age_text(seconds: float) -> str:
    """Time since something was used last: in hours, from two days on in days."""
    hours = max(0.0, seconds) / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


@dataclass
class _Group:
    """Entries with the same users."""

    n: int = 0
    n_freed: int = 0
    n_bytes: int = 0
    used: list[float] = field(default_factory=list)


def render_store(entries: Sequence[StoreEntry], root: Path, now: float) -> str:
    """One row per group of users: number of entries, size, and when they were last used.

    Args:
        entries: of the store.
        root: folder of the store.
        now: Unix time.
    """
    total = sum(entry.n_bytes for entry in entries)
    title = f"Fold store {root}: {_entries(len(entries))}, {size_text(total)}"
    if not entries:
        return title
    groups: dict[str, _Group] = {}
    for entry in sorted(entries, key=lambda entry: (entry.kind != "fold", entry.used_by)):
        name = _GROUPS.get(entry.kind) or ", ".join(entry.used_by) or _UNUSED
        group = groups.setdefault(name, _Group())
        group.n, group.n_bytes = group.n + 1, group.n_bytes + entry.n_bytes
        group.n_freed += entry.kind == "fold" and not entry.has_weights
        group.used.append(entry.last_used)
    made = list(groups.values())
    freed = Column("no weights", [f"{group.n_freed:,}" for group in made])
    columns = (
        Column("used by", list(groups), right=False),
        Column("entries", [f"{group.n:,}" for group in made]),
        *((freed,) if any(group.n_freed for group in made) else ()),
        Column("size", [size_text(group.n_bytes) for group in made]),
        Column("last used", [age_text(now - max(group.used)) for group in made]),
        Column("oldest", [age_text(now - min(group.used)) for group in made]),
    )
    notes = (_LEGEND, _FREED) if any(group.n_freed for group in made) else (_LEGEND,)
    return to_text(Table(title, columns, notes))


def render_freed(
    freed: Sequence[tuple[StoreEntry, str]], left: int, now: float, *, dry_run: bool
) -> str:
    """One row per entry that goes, with the reason.

    Args:
        freed: entries with the reason.
        left: bytes that stay.
        now: Unix time.
        dry_run: whether nothing was removed.
    """
    verb = "To be freed" if dry_run else "Freed"
    total = sum(entry.n_bytes for entry, _ in freed)
    title = f"{verb}: {_entries(len(freed))}, {size_text(total)}; {size_text(left)} stay"
    if not freed:
        return to_text(title, _STAY)
    columns = (
        Column("entry", [_short(entry) for entry, _ in freed], right=False),
        Column("size", [size_text(entry.n_bytes) for entry, _ in freed]),
        Column("last used", [age_text(now - entry.last_used) for entry, _ in freed]),
        Column("why", [reason for _, reason in freed], right=False),
    )
    return to_text(Table(title, columns))


def render_verified(n_folds: int, damaged: Mapping[Path, str]) -> str:
    """How many stored folds are complete and unchanged, and the faults of the others."""
    good = f"{counted(n_folds - len(damaged), 'stored fold')} complete and unchanged"
    if not damaged:
        return good
    columns = (
        Column("damaged", [f"fold {path.name:.{_KEY_LENGTH}}" for path in damaged], right=False),
        Column("fault", list(damaged.values()), right=False),
    )
    note = "A run that needs a damaged fold sets it aside and trains it again."
    return to_text(good, Table("", columns, (note,)))


def entry_record(entry: StoreEntry, reason: str | None = None) -> dict[str, Any]:
    """An entry as plain data, with the reason why it goes or what is wrong with it, if given."""
    return {
        "kind": entry.kind,
        "name": entry.name,
        "path": str(entry.path),
        "bytes": entry.n_bytes,
        "last_used": entry.last_used,
        "used_by": list(entry.used_by),
        **({"weights": entry.has_weights} if entry.kind == "fold" else {}),
        **({} if reason is None else {"reason": reason}),
    }


def _short(entry: StoreEntry) -> str:
    """Kind and beginning of the name; ``entry_record`` has the path."""
    if entry.kind == "draft":
        return f"draft {entry.name.rpartition('-')[2][:_KEY_LENGTH]}"
    word = entry.kind if entry.kind in ("rows", "checkpoint") else "fold"
    return f"{word} {entry.name[:_KEY_LENGTH]}"


def _entries(n: int) -> str:
    return f"{n:,} {'entry' if n == 1 else 'entries'}"
