"""How a study's folder begins: its name, its lock and its first files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import StudyError
from hms_ray.storage.atomic import DRAFT_PREFIX, whole_file
from hms_ray.storage.fold_store import STORE_NAME
from hms_ray.storage.locks import LOCK_FILE, OWNER_FILE
from hms_ray.storage.run_log import LOG_FILE, WORKER_LOGS
from hms_ray.storage.structured_files import json_text, write_text, yaml_text

FORMAT: Final = 1
STUDY_FILE: Final = "study.json"
ROWS_FILE, SPACE_FILE, JOURNAL = "rows.parquet", "space.yaml", "optuna.journal"
RESERVED: Final = frozenset({STORE_NAME, "local"})

_LOCK_FILES: Final = frozenset({LOCK_FILE, OWNER_FILE})
_LEFT_BY_A_RUN: Final = frozenset(
    {ROWS_FILE, SPACE_FILE, LOG_FILE, WORKER_LOGS, ".ray", "environment.json", "leaderboard.csv"}
)
"""What a study can hold of which no trial has ended, beside its lock and journal."""


def checked_name(name: str) -> str:
    """The name of a study, which must be a plain folder name.

    Raises:
        StudyError: where it is another one.
    """
    if not name or name in RESERVED or name.startswith(".") or {"/", "\\", "\0"} & set(name):
        raise StudyError(
            "a study's name must be a plain folder name",
            got=name,
            fix=f"No slashes, no leading dot, and none of {', '.join(sorted(RESERVED))}.",
        )
    return name


def is_vacant(path: Path) -> bool:
    """Whether a folder holds nothing but what a kill leaves while a study is made."""
    if not path.is_dir():
        return False
    names = {file.name for file in path.iterdir() if not file.name.startswith(DRAFT_PREFIX)}
    if ROWS_FILE not in names:
        # Without the rows, which are written first, a space.yaml is the user's own.
        return names <= _LOCK_FILES
    others = {name for name in names if not name.startswith(JOURNAL)}
    return others <= _LEFT_BY_A_RUN | _LOCK_FILES


def write_new(path: Path, identity: Mapping[str, Any], space: Space, prepared: Prepared) -> None:
    """Writes a study's first files, in place of those of a study that came to nothing.

    Args:
        path: its folder, of which the caller holds the lock.
        identity: what ``study.json`` says of space and data.
        space: what is searched.
        prepared: has the rows.
    """
    # Gone first and written last: while this file is there, rows and space are those
    # that it tells of.
    (path / STUDY_FILE).unlink(missing_ok=True)
    (path / JOURNAL).unlink(missing_ok=True)
    with whole_file(path / ROWS_FILE) as draft:
        prepared.rows().to_parquet(draft, index=False)
    write_space(path, space)
    write_text(path / STUDY_FILE, json_text({"format": FORMAT, "identity": identity}))


def write_space(path: Path, space: Space) -> None:
    """Writes a study's resolved space."""
    write_text(path / SPACE_FILE, yaml_text(space.model_dump(mode="json", by_alias=True)))
