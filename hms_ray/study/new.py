"""Creating the folder of a new study, or opening that of the same study to resume it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray.config.space import Objective, Space
from hms_ray.dataset.folds import folds_fingerprint
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import HmsRayError, StudyError
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.drafts import DRAFT_PREFIX
from hms_ray.storage.folder_names import (
    BOARD,
    REPORT_FILE,
    checked_name,
    require_inside,
    require_kind,
)
from hms_ray.storage.hashing import table_fingerprint
from hms_ray.storage.lease import LEASE_FILE
from hms_ray.storage.locks import LOCK_FILE, OWNER_FILE, StudyLock
from hms_ray.storage.run_log import LOG_FILE, WORKER_LOGS
from hms_ray.storage.stop_requests import STOP_FOLDER
from hms_ray.storage.structured_files import json_text, write_text
from hms_ray.study.folder import (
    FORMAT,
    HOLDOUT_FILE,
    JOURNAL,
    ROWS_FILE,
    SPACE_FILE,
    STUDY_FILE,
    TRIALS,
    StudyFolder,
    write_space,
)
from hms_ray.study.identity import (
    differences,
    space_identity,
    study_identity,
    with_added_fields,
)
from hms_ray.study.run_outcome import OUTCOME_FILE
from hms_ray.study.warm_start import warm_start_studies
from hms_ray.text import counted, shortened_list

_LOCK_FILES: Final = frozenset({LEASE_FILE, LOCK_FILE, OWNER_FILE})
_RUN_FILES: Final = frozenset(
    {
        ROWS_FILE,
        HOLDOUT_FILE,
        SPACE_FILE,
        LOG_FILE,
        WORKER_LOGS,
        ".ray",
        STOP_FOLDER,
        "environment.json",
        "leaderboard.csv",
        "costs.json",
        BOARD,
        OUTCOME_FILE,
        REPORT_FILE,
    }
)
"""Files of a study in which no trial has ended, besides its lock and journal."""


def create_study(results: str | Path, name: str, space: Space, prepared: Prepared) -> StudyFolder:
    """Creates a study's folder, or opens it, without keeping it locked; see ``open_study``."""
    with open_study(results, name, space, prepared) as folder:
        return folder


@contextmanager
def open_study(
    results: str | Path,
    name: str,
    space: Space,
    prepared: Prepared,
    *,
    announce: Callable[[str], None] | None = None,
    on_lost: Callable[[HmsRayError], None] = lambda error: None,
) -> Iterator[StudyFolder]:
    """Creates a study's folder, or opens it to resume the same study, and keeps it locked.

    More trials and other resources are the same study, and become part of its stored space;
    another search space, objective, seed, world size, device class, weights or data are
    another study. A study in which no trial has ended yet is replaced.

    Args:
        results: folder of all studies.
        name: of the study's folder.
        space: what to search.
        prepared: rows, folds and packs.
        announce: see ``StudyLock``.
        on_lost: see ``StudyLock``.

    Raises:
        StudyError: if the name is not a folder name, another command has the lock, or the
            folder holds another study or other files; nothing is written then.
        ModelError: if a weights file cannot be read.
    """
    path = Path(results) / checked_name(name)
    require_inside(path, Path(results))
    identity = study_identity(space, prepared)
    if not _is_replaceable(path, identity):
        folder = StudyFolder(path)
        _require_same(folder, folder.identity, identity)
    path.mkdir(parents=True, exist_ok=True)
    with StudyLock(path, announce=announce, on_lost=on_lost):
        # Another command may have created it meanwhile, or ended a trial of it.
        if _is_replaceable(path, identity):
            _write_new(path, identity, space, prepared)
        folder = StudyFolder(path)
        _require_same(folder, folder.identity, identity)
        folder.write_space(space)
        yield folder


def check_study(results: str | Path, name: str, space: Space, rows: pd.DataFrame) -> None:
    """Checks, before recordings are read, that a study can be created or resumed.

    Args:
        results: folder of all studies.
        name: of the study's folder.
        space: what to search.
        rows: training rows with their folds, see ``dataset.prepare.RowsCheck``.

    Raises:
        StudyError: see ``open_study``; or if no row counts for the objective.
        ConfigError: if the pruning rule can stop no trial.
        ModelError: if a weights file cannot be read.
    """
    path = Path(results) / checked_name(name)
    require_inside(path, Path(results))
    require_objective_rows(space.objective, rows)
    space.pruning.require_effect(rows["fold"].nunique())
    identity = space_identity(space)
    if space.experiment.data.unusable != "drop":
        # Otherwise the rows and folds are known only once the recordings were read.
        made = rows.drop(columns="fold")
        identity["data"] = {"rows": table_fingerprint(made), "folds": folds_fingerprint(rows)}
        warm_start_studies(space, results, identity["data"])
    if _is_replaceable(path, {}):
        return
    folder = StudyFolder(path)
    stored = {key: folder.identity.get(key) for key in identity}
    if "data" in stored:
        stored["data"] = {key: (stored["data"] or {}).get(key) for key in identity["data"]}
    _require_same(folder, stored, identity)


def require_objective_rows(objective: Objective, rows: pd.DataFrame) -> None:
    """Checks that some row counts for the objective.

    Raises:
        StudyError: if none does.
    """
    min_votes = OBJECTIVES[objective]
    if not (rows["total_votes"] >= min_votes).any():
        raise StudyError(
            f"the metric {objective} needs rows with at least {min_votes} votes",
            got=f"none among {counted(len(rows), 'row')}",
            where="metric",
            fix="Use another metric: --set metric=kl_all",
        )


def _require_same(
    folder: StudyFolder, before: Mapping[str, Any], identity: Mapping[str, Any]
) -> None:
    changed = differences(with_added_fields(before), identity)
    if changed:
        raise StudyError(
            "a study can only be resumed with its own space and data",
            got=shortened_list(changed, separator="; "),
            where=folder.path,
            fix="Use another name, --study NAME: finished folds are shared by all studies.",
        )


def _is_replaceable(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a folder is free, or holds another study without any result.

    A run that failed before its first result must not block the name of a study.

    Raises:
        StudyError: if it holds other files.
    """
    if (path / STUDY_FILE).is_file():
        if (path / TRIALS).exists():
            return False
        return bool(differences(with_added_fields(StudyFolder(path).identity), identity))
    require_kind(path, "study", "--study NAME")
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
    (path / REPORT_FILE).unlink(missing_ok=True)
    shutil.rmtree(path / BOARD, ignore_errors=True)
    with whole_file(path / ROWS_FILE) as draft:
        prepared.rows().to_parquet(draft, index=False)
    (path / HOLDOUT_FILE).unlink(missing_ok=True)
    if prepared.holdout is not None:
        with whole_file(path / HOLDOUT_FILE) as draft:
            prepared.holdout.rows().to_parquet(draft, index=False)
    write_space(path, space)
    write_text(path / STUDY_FILE, json_text({"format": FORMAT, "identity": identity}))
