"""The hold-out of a study: its rows, and a record of every time that it was opened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pandas as pd

from hms_ray.errors import StudyError
from hms_ray.storage.structured_files import json_text, read_json, write_text
from hms_ray.study.folder import StudyFolder, study_names

OPENINGS_FILE: Final = "holdout_openings.json"

_FIX: Final = "Restore it from a backup: it states when the hold-out was opened, and for what."


def require_held_out_rows(folder: StudyFolder) -> pd.DataFrame:
    """Rows of the study's held-out patients, see ``make_rows``.

    Raises:
        StudyError: if it has no hold-out, or the file is missing or damaged.
    """
    rows = folder.held_out_rows()
    if rows is None:
        raise StudyError(
            "the study must have a hold-out",
            got="data.holdout: 0",
            where=folder.path,
            fix="Search again with held-out patients, under another name: --set data.holdout=0.15",
        )
    return rows


def openings(folder: StudyFolder) -> list[dict[str, Any]]:
    """Every time that the hold-out was opened, oldest first; see ``record_opening``.

    Also those of other studies in the same results folder that hold out the same rows.

    Raises:
        StudyError: if a record is damaged.
    """
    mine = _fingerprint(folder)
    if mine is None:
        return []
    results, found = folder.path.resolve().parent, []
    for name in study_names(results):
        try:
            study = StudyFolder(results / name)
        except StudyError:
            continue  # Damaged or of another version: another study is not blocked by it.
        if _fingerprint(study) == mine:
            found += [{"study": name, **opening} for opening in _own(study)]
    return sorted(found, key=lambda opening: str(opening.get("date")))


def record_opening(folder: StudyFolder, opening: Mapping[str, Any]) -> None:
    """Adds an opening, with its time, to the study's record; the caller holds the lock.

    Args:
        folder: the study.
        opening: what was opened, as plain data: ``trial`` (number), ``keys`` (fold -> cache
            key), ``blend`` (method and members' keys; None if there is none), ``scores``.

    Raises:
        StudyError: if the record is damaged.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    content = [*_own(folder), {"date": date, **opening}]
    write_text(folder.path / OPENINGS_FILE, json_text(content))


def _own(folder: StudyFolder) -> list[dict[str, Any]]:
    file = folder.path / OPENINGS_FILE
    return read_json(file, list, _FIX) if file.is_file() else []


def _fingerprint(folder: StudyFolder) -> str | None:
    data = folder.identity.get("data")
    return data.get("holdout") if isinstance(data, dict) else None
