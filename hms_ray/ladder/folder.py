"""A ladder's folder: its rows, its steps and their out-of-fold predictions.

``rows.parquet`` holds the rows that every step is scored on, ``oof/NN.parquet`` the
predictions of step NN (counted from 0, in the ladder's order) and ``steps.json``
everything else. ``steps.json`` has the fingerprints of the other files; it is removed first
and written last, so a folder that has it is complete.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.display.folder_list import FolderSummary
from hms_ray.display.ladder_report import Checkpoint, PublishedRows, StepKind
from hms_ray.errors import HmsRayError, PredictionError, StudyError
from hms_ray.evaluate.metric import check_distributions
from hms_ray.evaluate.oof import OOF_COLUMNS, check_oof, read_oof, write_oof
from hms_ray.ladder.result import StepResult
from hms_ray.ladder.steps_file import (
    FIX,
    FORMAT,
    STEP_TYPES,
    STEPS_FILE,
    check_about,
    check_content,
    with_new_fields,
)
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.folder_names import places
from hms_ray.storage.hashing import table_fingerprint
from hms_ray.storage.structured_files import json_text, read_json, write_text
from hms_ray.text import closest

ROWS_FILE: Final = "rows.parquet"
OOF_FOLDER: Final = "oof"
LADDER_COLUMNS: Final = ("row_id", "eeg_id", "patient_id", "fold", "total_votes", *TARGET_COLUMNS)


@dataclass(frozen=True)
class StoredLadder:
    """Content of a ladder's folder.

    Attributes:
        rows: the scored rows, columns ``LADDER_COLUMNS``.
        results: the steps, in the ladder's order.
        about: facts of the run, keys ``steps_file.ABOUT_KEYS``.
    """

    rows: pd.DataFrame
    results: tuple[StepResult, ...]
    about: dict[str, Any]


def write_ladder(
    folder: str | Path,
    rows: pd.DataFrame,
    results: Sequence[StepResult],
    about: Mapping[str, Any],
) -> None:
    """Writes a ladder's folder; other files in it stay.

    Args:
        folder: created if missing.
        rows: (n rows) at least ``LADDER_COLUMNS``; targets sum to 1.
        results: steps with predictions of these rows, in their order.
        about: ``steps_file.ABOUT_KEYS`` with plain values.

    Raises:
        StudyError: if steps or ``about`` break a rule.
        PredictionError: if predictions do not fit the rows.
    """
    folder = Path(folder)
    check_about(about, folder / STEPS_FILE)
    check_ladder(rows, results)
    kept = rows[list(LADDER_COLUMNS)].reset_index(drop=True)
    tables = [result.oof[list(OOF_COLUMNS)] for result in results]
    text = json_text(
        {
            "format": FORMAT,
            "about": dict(about),
            "rows": table_fingerprint(kept),
            "steps": [
                {name: getattr(result, name) for name in STEP_TYPES}
                | {"oof": table_fingerprint(table)}
                for result, table in zip(results, tables, strict=True)
            ],
        }
    )
    (folder / STEPS_FILE).unlink(missing_ok=True)
    with whole_file(folder / ROWS_FILE) as draft:
        pq.write_table(pa.Table.from_pandas(kept, preserve_index=False), draft)
    for number, table in enumerate(tables):
        write_oof(_oof_file(folder, number), table)
    known = {_oof_file(folder, number) for number in range(len(tables))}
    for file in set((folder / OOF_FOLDER).glob("*.parquet")) - known:
        file.unlink()
    write_text(folder / STEPS_FILE, text)


def read_ladder(folder: str | Path) -> StoredLadder:
    """Reads and checks a folder that ``write_ladder`` wrote.

    Raises:
        StudyError: if a file is missing, cannot be read, or belongs to another run.
        PredictionError: if predictions are missing or do not fit the rows.
    """
    folder = Path(folder)
    file = folder / STEPS_FILE
    if not file.is_file():
        raise StudyError(
            f"a ladder's folder must hold {STEPS_FILE}",
            got="none",
            where=folder,
            fix="Name the folder of a finished ladder, or run it: hms-ray ladder",
        )
    content = read_json(file, dict, FIX)
    check_content(content, file)
    rows = _read_rows(folder / ROWS_FILE, content["rows"])
    results = []
    for number, step in enumerate(content["steps"]):
        place = _oof_file(folder, number)
        oof = read_oof(place, rows)
        _check_fingerprint(oof, step["oof"], place)
        known = with_new_fields(step)
        results.append(StepResult(oof=oof, **{name: known[name] for name in STEP_TYPES}))
    try:
        check_ladder(rows, results)
    except StudyError as error:
        raise StudyError(error.rule, got=error.got, where=file, fix=FIX) from None
    return StoredLadder(rows, tuple(results), content["about"])


def check_ladder(rows: pd.DataFrame, results: Sequence[StepResult]) -> None:
    """Checks that steps are a ladder on these rows.

    Args:
        rows: at least ``LADDER_COLUMNS``.
        results: the steps.

    Raises:
        StudyError: for no steps, repeated names, an unknown baseline or kind, weights of
            an experiment or none of a blend, and invalid minutes.
        PredictionError: if rows lack columns, targets are no distributions, or
            predictions do not fit the rows or their order.
    """
    missing = [name for name in LADDER_COLUMNS if name not in rows]
    if missing:
        raise PredictionError(
            f"a ladder's rows must have the columns {', '.join(LADDER_COLUMNS)}",
            got=f"no {', '.join(missing)}",
        )
    check_distributions(rows[list(TARGET_COLUMNS)], "targets", rows["row_id"].to_numpy())
    if not results:
        raise StudyError("a ladder must have steps", got="none")
    names = [result.name for result in results]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise StudyError("a ladder's steps must have different names", got=", ".join(repeated))
    for result in results:
        _check_step(result, names)
        where = f"step {result.name}"
        check_oof(result.oof, rows, where)
        if list(result.oof["row_id"]) != list(rows["row_id"]):
            raise PredictionError(
                "a step's predictions must be in the order of the ladder's rows",
                got="another order",
                where=where,
                fix="Align them with evaluate.oof.align_oof.",
            )


def _check_step(result: StepResult, names: Sequence[str]) -> None:
    where = f"step {result.name}"
    if result.before is not None and (result.before not in names or result.before == result.name):
        raise StudyError(
            "a baseline must be another step of the ladder", got=result.before, where=where
        )
    for name, allowed in (
        ("kind", StepKind),
        ("published_rows", PublishedRows),
        ("checkpoint", Checkpoint),
    ):
        values, value = get_args(allowed), getattr(result, name)
        if value not in values and not (name == "checkpoint" and value is None):
            raise StudyError(
                f"a step's {name} must be one of {', '.join(values)}", got=value, where=where
            )
    if (result.weights is None) != (result.kind == "experiment"):
        raise StudyError(
            "a blend must have weights and an experiment must not", got=result.weights, where=where
        )
    for name in ("fold_minutes", "saved_minutes"):
        value = getattr(result, name)
        if not (math.isfinite(value) and value >= 0):
            raise StudyError(f"{name} must be at least 0", got=value, where=where)


def _read_rows(file: Path, fingerprint: str) -> pd.DataFrame:
    try:
        rows = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(
            f"a ladder's {ROWS_FILE} must be readable parquet", got=reason, where=file, fix=FIX
        ) from None
    _check_fingerprint(rows, fingerprint, file)
    return rows


def _check_fingerprint(table: pd.DataFrame, expected: str, file: Path) -> None:
    if table_fingerprint(table) != expected:
        raise StudyError(
            f"{file.name} must be the file that {STEPS_FILE} was written with",
            got="other content",
            where=file,
            fix=FIX,
        )


def _oof_file(folder: Path, number: int) -> Path:
    return folder / OOF_FOLDER / f"{number:02d}.parquet"


def find_ladder(name: str | Path, results: Path) -> Path:
    """The folder of a ladder, by name or path.

    Args:
        name: a name below the results folder, or the path of a ladder's folder.
        results: folder of all ladders and studies.

    Raises:
        StudyError: if neither is a ladder; it names the nearest ladder.
    """
    for place in places(name, results):
        if (place / STEPS_FILE).is_file():
            return place
    known = ladder_names(results)
    raise StudyError(
        f"a ladder must be a folder with {STEPS_FILE}",
        got=f"{name}{closest(Path(name).name, known)}",
        where=results,
        fix=None if known else "Run one first: hms-ray ladder",
    )


def ladder_names(results: Path) -> list[str]:
    """Names of all ladders below a results folder, sorted."""
    return sorted(file.parent.name for file in results.glob(f"*/{STEPS_FILE}"))


def summarise_ladders(results: Path) -> list[FolderSummary]:
    """All ladders of a results folder, each with the reason if it cannot be read."""
    return [_summary(results / name / STEPS_FILE) for name in ladder_names(results)]


def _summary(file: Path) -> FolderSummary:
    problem, steps, failed = None, 0, 0
    try:
        content = read_json(file, dict)
        steps, failed = len(content["steps"]), len(content["about"].get("failed") or ())
    except HmsRayError as error:
        problem = str(error)
    except (KeyError, TypeError, AttributeError):
        problem = f"{STEPS_FILE} has no steps"
    written = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
    folder = file.parent
    return FolderSummary(
        folder.name, "ladder", str(folder), written, steps, failed=failed, problem=problem
    )
