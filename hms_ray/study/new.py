"""Creating the folder of a new study, or opening that of the same study to resume it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import StudyError
from hms_ray.storage.atomic import DRAFT_PREFIX, whole_file
from hms_ray.storage.fold_store import STORE_NAME
from hms_ray.storage.locks import LOCK_FILE, OWNER_FILE, StudyLock
from hms_ray.storage.run_log import LOG_FILE, WORKER_LOGS
from hms_ray.storage.structured_files import json_text, write_text
from hms_ray.study.folder import (
    FORMAT,
    JOURNAL,
    ROWS_FILE,
    SPACE_FILE,
    STUDY_FILE,
    TRIALS,
    StudyFolder,
    write_space,
)
from hms_ray.study.identity import differences, study_identity
from hms_ray.text import shortened_list

RESERVED: Final = frozenset({STORE_NAME, "local"})

_LOCK_FILES: Final = frozenset({LOCK_FILE, OWNER_FILE})
_RUN_FILES: Final = frozenset(
    {ROWS_FILE, SPACE_FILE, LOG_FILE, WORKER_LOGS, ".ray", "environment.json", "leaderboard.csv"}
)
"""Files of a study in which no trial has ended, besides its lock and journal."""


def checked_name(name: str) -> str:
    """The name of a study, which must be a plain folder name.

    Raises:
        StudyError: if it is not.
    """
    if not name or name in RESERVED or name.startswith(".") or {"/", "\\", "\0"} & set(name):
        raise StudyError(
            "a study's name must be a plain folder name",
            got=name,
            fix="Use a name without slashes or a leading dot, and none of "
            f"{', '.join(sorted(RESERVED))}.",
        )
    return name


def create_study(results: str | Path, name: str, space: Space, prepared: Prepared) -> StudyFolder:
    """Creates a study's folder, or opens it to resume the same study.

    More trials and other resources are the same study; another search space, objective,
    seed, world size, device class, weights or data are another one. A study in which no
    trial has ended yet is replaced. A study to resume is not written to, because another
    command may be running it.

    Raises:
        StudyError: if the name is not a folder name, or the folder holds another study or
            other files; nothing is written then.
        ModelError: if a weights file cannot be read.
    """
    path = Path(results) / checked_name(name)
    identity = study_identity(space, prepared)
    if _is_replaceable(path, identity):
        path.mkdir(parents=True, exist_ok=True)
        with StudyLock(path):
            # Another command may have created it meanwhile, or ended a trial of it.
            if _is_replaceable(path, identity):
                _write_new(path, identity, space, prepared)
    folder = StudyFolder(path)
    changed = differences(folder.identity, identity)
    if changed:
        raise StudyError(
            "a study can only be resumed with its own space and data",
            got=shortened_list(changed, separator="; "),
            where=path,
            fix="Use another name, --study NAME: finished folds are shared by all studies.",
        )
    return folder


def _is_replaceable(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a folder is free, or holds another study without any result.

    A run that failed before its first result must not block the name of a study.

    Raises:
        StudyError: if it holds other files.
    """
    if (path / STUDY_FILE).is_file():
        if (path / TRIALS).exists():
            return False
        return bool(differences(StudyFolder(path).identity, identity))
    if path.exists() and not _is_vacant(path):
        raise StudyError(
            "a new study needs a folder of its own",
            got="other files" if path.is_dir() else "a file",
            where=path,
            fix="Use another name, --study NAME.",
        )
    return True


def _is_vacant(path: Path) -> bool:
    """Whether a folder holds only what a process killed while creating a study leaves."""
    if not path.is_dir():
        return False
    names = {file.name for file in path.iterdir() if not file.name.startswith(DRAFT_PREFIX)}
    if ROWS_FILE not in names:
        # The rows are written first: without them, a space.yaml is the user's own.
        return names <= _LOCK_FILES
    others = {name for name in names if not name.startswith(JOURNAL)}
    return others <= _RUN_FILES | _LOCK_FILES


def _write_new(path: Path, identity: Mapping[str, Any], space: Space, prepared: Prepared) -> None:
    """Writes a study's first files; the caller holds the lock of the folder."""
    # Removed first and written last: while study.json exists, rows and space belong to it.
    (path / STUDY_FILE).unlink(missing_ok=True)
    (path / JOURNAL).unlink(missing_ok=True)
    with whole_file(path / ROWS_FILE) as draft:
        prepared.rows().to_parquet(draft, index=False)
    write_space(path, space)
    write_text(path / STUDY_FILE, json_text({"format": FORMAT, "identity": identity}))
