"""A ladder's folder: its rows, its steps and their out-of-fold predictions.

``rows.parquet`` holds the rows that every step is scored on, ``oof/NN.parquet`` the
predictions of step NN (counted from 0, in the ladder's order) and ``steps.json``
everything else. ``steps.json`` names the content of the other files and is taken away
first and written last: while it is there, the folder is whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_ray.competition.rows import table_fingerprint
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.metric import check_distributions
from hms_ray.evaluate.oof import OOF_COLUMNS, check_oof, read_oof, write_oof
from hms_ray.files import replacing
from hms_ray.ladder.result import Kind, PublishedRows, StepResult
from hms_ray.study.files import json_text, read_json, write_text

FORMAT: Final = 1
ROWS_FILE: Final = "rows.parquet"
STEPS_FILE: Final = "steps.json"
OOF_FOLDER: Final = "oof"
ROW_COLUMNS: Final = ("row_id", "eeg_id", "patient_id", "fold", "total_votes", *TARGET_COLUMNS)
ABOUT_KEYS: Final = (
    *("data", "simulated", "simulator", "scale", "command"),
    *("seed", "machine", "date", "floors"),
)
"""What is told of a ladder: where its data are, whether and how they were simulated, the
scale, command and seed of the run, its machine and date, and the KL that simulated votes
leave (floor -> score -> nats), None where that is not known."""

_FIX: Final = "Run the ladder again: steps that are in the fold store are not trained again."
_STEP_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "name": (str,),
    "chain": (str,),
    "change": (str,),
    "before": (str, type(None)),
    "kind": (str,),
    "optimistic": (bool,),
    "weights": (dict, type(None)),
    "fold_minutes": (float, int),
    "saved_minutes": (float, int),
    "published_cv": (float, int, type(None)),
    "published_lb": (float, int, type(None)),
    "published_rows": (str,),
    "keys": (dict, type(None)),
}
_STAGE_2_FIGURES: Final = frozenset({0.4142, 0.4240, 0.4608})
"""Published two-stage figures, for ladders written before manifests named a figure's rows."""


@dataclass(frozen=True)
class StoredLadder:
    """What a ladder's folder holds.

    Attributes:
        rows: the rows scored, columns ``ROW_COLUMNS``.
        results: the steps, in the ladder's order.
        about: what is told of the run, keys ``ABOUT_KEYS``.
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
        folder: made where absent.
        rows: (n rows) at least ``ROW_COLUMNS``; targets sum to 1.
        results: steps whose predictions are of these rows, in their order.
        about: ``ABOUT_KEYS`` with plain values.

    Raises:
        StudyError: where steps or ``about`` are not what a ladder holds.
        PredictionError: where predictions do not fit the rows.
    """
    folder = Path(folder)
    _check_about(about, folder / STEPS_FILE)
    check_ladder(rows, results)
    kept = rows[list(ROW_COLUMNS)].reset_index(drop=True)
    tables = [result.oof[list(OOF_COLUMNS)] for result in results]
    text = json_text(
        {
            "format": FORMAT,
            "about": dict(about),
            "rows": table_fingerprint(kept),
            "steps": [
                {name: getattr(result, name) for name in _STEP_TYPES}
                | {"oof": table_fingerprint(table)}
                for result, table in zip(results, tables, strict=True)
            ],
        }
    )
    (folder / STEPS_FILE).unlink(missing_ok=True)
    with replacing(folder / ROWS_FILE) as draft:
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
        StudyError: where a file is missing, cannot be read, or is not of this ladder.
        PredictionError: where predictions are missing or do not fit the rows.
    """
    folder = Path(folder)
    file = folder / STEPS_FILE
    if not file.is_file():
        raise StudyError(
            f"a ladder's folder must hold {STEPS_FILE}",
            got="none",
            where=folder,
            fix="Name the folder of a ladder that ran to its end: hms-ray ladder",
        )
    content = _with_newer_facts(read_json(file, dict, _FIX))
    _check_content(content, file)
    rows = _read_rows(folder / ROWS_FILE, content["rows"])
    results = []
    for number, step in enumerate(content["steps"]):
        place = _oof_file(folder, number)
        oof = read_oof(place, rows)
        _check_fingerprint(oof, step["oof"], place)
        results.append(StepResult(oof=oof, **{name: step[name] for name in _STEP_TYPES}))
    try:
        check_ladder(rows, results)
    except StudyError as error:
        raise StudyError(error.rule, got=error.got, where=file, fix=_FIX) from None
    return StoredLadder(rows, tuple(results), content["about"])


def check_ladder(rows: pd.DataFrame, results: Sequence[StepResult]) -> None:
    """Refuses steps that are not a ladder on these rows.

    Args:
        rows: at least ``ROW_COLUMNS``.
        results: the steps.

    Raises:
        StudyError: without steps, for names that repeat, a step before that is not
            there, a kind that is none, weights of an experiment or none of a blend,
            and minutes that are no times.
        PredictionError: where rows lack columns, targets are no distributions, or
            predictions do not fit the rows or are in another order.
    """
    missing = [name for name in ROW_COLUMNS if name not in rows]
    if missing:
        raise PredictionError(
            f"a ladder's rows must have the columns {', '.join(ROW_COLUMNS)}",
            got=f"none called {', '.join(missing)}",
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
            "the step before must be another step of the ladder", got=result.before, where=where
        )
    if result.kind not in get_args(Kind):
        raise StudyError(
            f"a step's kind must be one of {', '.join(get_args(Kind))}",
            got=result.kind,
            where=where,
        )
    if (result.weights is None) != (result.kind == "experiment"):
        raise StudyError(
            "a blend must have weights and an experiment none", got=result.weights, where=where
        )
    if result.published_rows not in get_args(PublishedRows):
        raise StudyError(
            f"the rows of a published figure must be one of {', '.join(get_args(PublishedRows))}",
            got=result.published_rows,
            where=where,
        )
    for name in ("fold_minutes", "saved_minutes"):
        value = getattr(result, name)
        if not (math.isfinite(value) and value >= 0):
            raise StudyError(f"{name} must be at least 0", got=value, where=where)


def _check_about(about: Any, where: Path) -> None:
    missing = [name for name in ABOUT_KEYS if name not in about] if about else list(ABOUT_KEYS)
    if missing or not isinstance(about["simulated"], bool):
        raise StudyError(
            f"a ladder must be told about by {', '.join(ABOUT_KEYS)}, simulated true or false",
            got=f"nothing about {', '.join(missing)}" if missing else about["simulated"],
            where=where,
            fix=_FIX,
        )


def _with_newer_facts(content: dict[str, Any]) -> dict[str, Any]:
    """The same, and of older ladders the rows of published figures and no addresses."""
    if not isinstance(content.get("steps"), list):
        return content
    return {
        **content,
        "steps": [
            {
                "published_rows": "stage_2"
                if step.get("published_cv") in _STAGE_2_FIGURES
                else "all",
                "keys": None,
                **step,
            }
            if isinstance(step, dict)
            else step
            for step in content["steps"]
        ],
    }


def _check_content(content: Mapping[str, Any], file: Path) -> None:
    """What can be wrong with a readable ``steps.json``."""
    if content.get("format") != FORMAT:
        raise StudyError(
            f"the format of {STEPS_FILE} must be {FORMAT}",
            got=content.get("format", "none"),
            where=file,
            fix="It is another release's: run the ladder again with this one.",
        )
    for name, kind in (("about", dict), ("rows", str), ("steps", list)):
        if not isinstance(content.get(name), kind):
            raise StudyError(
                f"{STEPS_FILE} must have {name}", got=content.get(name), where=file, fix=_FIX
            )
    _check_about(content["about"], file)
    for number, step in enumerate(content["steps"]):
        for name, kinds in {**_STEP_TYPES, "oof": (str,)}.items():
            if not (isinstance(step, dict) and name in step and isinstance(step[name], kinds)):
                raise StudyError(
                    f"step {number} must have {name}",
                    got=step.get(name, "none") if isinstance(step, dict) else step,
                    where=file,
                    fix=_FIX,
                )


def _read_rows(file: Path, fingerprint: str) -> pd.DataFrame:
    try:
        rows = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(
            f"a ladder's {ROWS_FILE} must be readable parquet", got=reason, where=file, fix=_FIX
        ) from None
    _check_fingerprint(rows, fingerprint, file)
    return rows


def _check_fingerprint(table: pd.DataFrame, expected: str, file: Path) -> None:
    if table_fingerprint(table) != expected:
        raise StudyError(
            f"{file.name} must be the one that {STEPS_FILE} was written with",
            got="other content",
            where=file,
            fix=_FIX,
        )


def _oof_file(folder: Path, number: int) -> Path:
    return folder / OOF_FOLDER / f"{number:02d}.parquet"


def ladder_place(name: str | Path, results: Path) -> Path:
    """The folder that a ladder's name or path means.

    Args:
        name: a name below the results folder, or the path of a ladder's folder.
        results: folder of all ladders and studies.

    Raises:
        StudyError: where neither holds a ladder.
    """
    for place in (results / name, Path(name)):
        if (place / STEPS_FILE).is_file():
            return place
    raise StudyError(
        f"a ladder must be a folder that holds {STEPS_FILE}",
        got=str(name),
        where=results,
        fix="Run it first (hms-ray ladder), or name its folder.",
    )
