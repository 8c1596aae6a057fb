"""Predictions and targets from files that were made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.blending.columns import (
    Columns,
    Keys,
    class_columns,
    column,
    read_table,
    row_keys,
)
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config import Objective
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array, check_distributions, name_rows

UNKNOWN = -1
"""Stands for an EEG or a fold that is not known, where a table has whole numbers."""

ROW_COLUMNS = ("row_id", "eeg_id", "patient_id", "fold", "total_votes", *TARGET_COLUMNS)


@dataclass(frozen=True)
class Targets:
    """Rows with what was voted.

    Attributes:
        rows: columns ``ROW_COLUMNS``; ``eeg_id`` and ``fold`` are -1 where not known.
        keys: how the rows are called.
        name: study or file, for messages.
        n_unknown: rows whose total of votes is not known, counted as 0.
        objective: of the study.
    """

    rows: pd.DataFrame
    keys: Keys
    name: str
    n_unknown: int = 0
    objective: Objective | None = None


def read_predictions(path: str | Path, columns: Columns) -> tuple[pd.Index[str], Keys, Array]:
    """Row keys, how rows are called, and (n, 6) probabilities of a file.

    Raises:
        PredictionError: naming the file and the rows: as ``read_table``, ``row_keys``
            and ``class_columns``; for doubled rows, and rows that are no distribution.
    """
    path = Path(path)
    table = read_table(path, columns)
    ids, keys = row_keys(table, columns, path)
    _refuse_doubled(ids, "a row must be predicted once", "several predictions", path)
    values = class_columns(table, columns, ["_vote"], path)
    return ids, keys, _distributions(values, "predictions", ids, path)


def read_targets(path: str | Path, columns: Columns) -> Targets:
    """Votes or shares, patients and totals of a file.

    Six whole numbers are votes, whose sum is the total where no ``total_votes`` is
    given; others are shares, which need it.

    Raises:
        PredictionError: naming the file and the rows: as ``read_predictions``, and for
            missing patients or totals.
    """
    path = Path(path)
    table = read_table(path, columns)
    ids, keys = row_keys(table, columns, path)
    _refuse_doubled(ids, "a row must have one target", "several", path)
    votes = _numbers(class_columns(table, columns, ["_target", "_vote"], path), path)
    counted = bool((votes == np.round(votes)).all())
    totals = column(table, columns, ["total_votes"], path)
    if totals is None and not counted:
        raise PredictionError(
            "targets that are shares need the total_votes of each row",
            got="no such column",
            where=path,
            fix="Name it with --target-columns total_votes=THEIRS.",
        )
    sums = votes.sum(axis=1, keepdims=True)
    shares = votes / np.where(sums > 0, sums, 1.0) if counted else votes
    known = pd.Series(sums[:, 0]) if totals is None else pd.to_numeric(totals, errors="coerce")
    rows = pd.DataFrame(
        {
            "row_id": ids,
            "eeg_id": _whole(table, columns, "eeg_id", path),
            "patient_id": _whole(table, columns, "patient_id", path, needed=True),
            "fold": _whole(table, columns, "fold", path),
            # Rows of unknown totals count as rows of few votes.
            "total_votes": known.fillna(0).to_numpy(np.float64),
        }
    )
    rows[list(TARGET_COLUMNS)] = _distributions(pd.DataFrame(shares), "targets", ids, path)
    return Targets(rows, keys, str(path), int(known.isna().sum()))


def _numbers(values: pd.DataFrame, where: Path) -> Array:
    try:
        return values.to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        raise PredictionError("votes must be numbers", got=str(error), where=where) from None


def _distributions(values: pd.DataFrame, name: str, ids: pd.Index[str], where: Path) -> Array:
    try:
        return check_distributions(_numbers(values, where), name, ids.to_numpy())
    except PredictionError as error:
        place = where if error.where is None else f"{where}, {error.where}"
        raise PredictionError(error.rule, got=error.got, where=place) from None


def _refuse_doubled(ids: pd.Index[str], rule: str, got: str, where: Path) -> None:
    doubled = ids[ids.duplicated()].unique()
    if len(doubled):
        place = f"{where}, {len(doubled)} row(s): {name_rows(doubled.to_numpy())}"
        raise PredictionError(rule, got=got, where=place)


def _whole(
    table: pd.DataFrame, columns: Columns, name: str, where: Path, needed: bool = False
) -> object:
    """Whole numbers of a column, or -1 where there is none and none is needed."""
    values = column(table, columns, [name], where)
    if values is None:
        if not needed:
            return UNKNOWN
        raise PredictionError(
            f"targets need the {name} of each row",
            got="no such column",
            where=where,
            fix=f"Name it with --target-columns {name}=THEIRS.",
        )
    if not pd.api.types.is_integer_dtype(values) or values.isna().any():
        raise PredictionError(
            f"{name} must be whole numbers, none missing", got=str(values.dtype), where=where
        )
    return values.to_numpy(np.int64)
