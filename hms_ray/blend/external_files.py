"""Predictions and targets from files made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.blend.column_names import (
    Columns,
    Keys,
    class_columns,
    column,
    read_external_table,
    row_keys,
)
from hms_ray.competition.rows import Unit
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.competition.tables import numbers, whole_numbers, written
from hms_ray.config.space import Objective
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array, check_distributions
from hms_ray.evaluate.oof import OPTIMISTIC
from hms_ray.text import shortened_list

UNKNOWN = -1
"""An unknown EEG or fold in a column of whole numbers."""


@dataclass(frozen=True)
class Targets:
    """Rows with their votes.

    Attributes:
        rows: see ``ladder.folder.LADDER_COLUMNS``; ``eeg_id`` and ``fold`` are -1 if unknown.
        keys: what ``row_id`` identifies.
        name: study, ladder or file, for messages.
        n_unknown: rows with an unknown total of votes, stored as 0.
        objective: of the study.
    """

    rows: pd.DataFrame
    keys: Keys
    name: str
    n_unknown: int = 0
    objective: Objective | None = None


class Predictions(NamedTuple):
    """Predictions of a file.

    Attributes:
        ids: (n) unique ids of its rows.
        keys: what the ids identify.
        probabilities: (n, 6) float64.
        optimistic: whether the file states that models were chosen on these rows.
    """

    ids: pd.Index[str]
    keys: Keys
    probabilities: Array
    optimistic: bool


def read_external_predictions(
    path: str | Path, columns: Columns, row_unit: Unit | None = None
) -> Predictions:
    """Predictions of a file.

    Raises:
        PredictionError: naming the file and the rows: see ``read_external_table``,
            ``row_keys`` and ``class_columns``; if a row is duplicated or not a distribution.
    """
    path = Path(path)
    table = read_external_table(path, columns.get("row_id", "row_id"))
    ids, keys = row_keys(table, columns, path, row_unit)
    _refuse_doubled(ids, "a row must be predicted once", "several predictions", path)
    values = _numbers(class_columns(table, columns, ["_vote"], path), "predictions", ids, path)
    probabilities = _distributions(values, "predictions", ids, path)
    return Predictions(ids, keys, probabilities, table.attrs.get(OPTIMISTIC) is True)


def read_targets(path: str | Path, columns: Columns, row_unit: Unit | None = None) -> Targets:
    """Votes or shares, patients and totals of a file.

    Whole numbers are votes; their sum is the total unless ``total_votes`` is given. Other
    numbers are shares, which need ``total_votes``; so do tables of one vote per row, which
    could be shares. A total may be below the sum of the votes, because votes of several
    label rows can be added up.

    Raises:
        PredictionError: naming the file and the rows: see ``read_external_predictions``;
            if patients are missing, or totals are missing, invalid or above the votes.
    """
    path = Path(path)
    table = read_external_table(path, columns.get("row_id", "row_id"))
    ids, keys = row_keys(table, columns, path, row_unit)
    _refuse_doubled(ids, "a row must have one target", "several", path)
    votes = _numbers(class_columns(table, columns, ["_target", "_vote"], path), "votes", ids, path)
    infinite = np.asarray(~np.isfinite(votes).all(axis=1))
    _refuse(infinite, "votes must be finite numbers, none missing", votes, ids, path)
    negative = np.asarray((votes < 0).any(axis=1))
    _refuse(negative, "votes must not be negative", votes, ids, path)
    sums = votes.sum(axis=1)
    fix = "Remove rows without votes from the targets."
    _refuse(sums == 0, "each row of targets must have votes", votes, ids, path, fix)
    counted = bool((votes == np.round(votes)).all())
    totals = _totals(table, columns, sums, counted, ids, path)
    rows = pd.DataFrame(
        {
            "row_id": ids,
            "eeg_id": _whole(table, columns, "eeg_id", ids, path),
            "patient_id": _patients(table, columns, ids, path),
            "fold": _whole(table, columns, "fold", ids, path),
            # Rows with an unknown total count as rows with few votes.
            "total_votes": np.nan_to_num(totals),
        }
    )
    shares = votes / sums[:, None] if counted else votes
    rows[list(TARGET_COLUMNS)] = _distributions(
        shares, "targets", ids, path, "Give votes as whole numbers, or shares that sum to 1."
    )
    return Targets(rows, keys, str(path), int(np.isnan(totals).sum()))


def _totals(
    table: pd.DataFrame,
    columns: Columns,
    sums: Array,
    counted: bool,
    ids: pd.Index[str],
    where: Path,
) -> Array:
    """Total votes (n,), NaN if unknown."""
    values = column(table, columns, ["total_votes"], where)
    one_each = counted and bool((sums == 1).all())
    if values is None:
        if counted and not one_each:
            return sums
        raise PredictionError(
            "targets that are all 0 or 1 could be shares and need a column total_votes"
            if one_each
            else "targets that are shares need a column total_votes",
            got="no such column",
            where=where,
            fix="Name it with --target-columns total_votes=THEIRS"
            + (", or add it: 1 in each row if these are votes." if one_each else "."),
        )
    totals, broken = numbers(values)
    totals = totals.astype(np.float64)
    given = ~np.isnan(totals)
    broken |= given & ~((totals >= 1) & (totals < np.inf) & (totals == np.floor(totals)))
    fix = "Leave unknown totals empty."
    _refuse(broken, "total_votes must be whole numbers of at least 1", values, ids, where, fix)
    if counted and not one_each:
        _refuse(
            totals > sums,
            "total_votes must not exceed the sum of the row's six votes",
            values,
            ids,
            where,
            "Give the votes themselves, or shares that sum to 1.",
        )
    return totals


def _numbers(values: pd.DataFrame, name: str, ids: pd.Index[str], where: Path) -> Array:
    """Six columns as (n, 6) float64, NaN for empty cells."""
    found = np.empty(values.shape)
    for number, title in enumerate(values):
        cells = values[title]
        found[:, number], broken = numbers(cells)
        _refuse(broken, f"{name} must be numbers", cells, ids, f"{where}, class {title}")
    return found


def _refuse(
    broken: NDArray[np.bool_],
    rule: str,
    values: pd.Series | Array,
    ids: pd.Index[str],
    where: object,
    fix: str | None = None,
) -> None:
    """Raises for the rows that are broken, if any, showing the first."""
    if not broken.any():
        return
    first = int(np.argmax(broken))
    shown = values[first] if isinstance(values, np.ndarray) else values.iloc[first]
    got = (
        np.array2string(shown, separator=", ", precision=6)
        if isinstance(shown, np.ndarray)
        else written(shown)
    )
    named = shortened_list(ids[broken].tolist())
    raise PredictionError(
        rule, got=got, where=f"{where}, {int(broken.sum())} row(s): {named}", fix=fix
    )


def _distributions(
    values: Array, name: str, ids: pd.Index[str], where: Path, fix: str | None = None
) -> Array:
    try:
        return check_distributions(values, name, ids.to_numpy())
    except PredictionError as error:
        place = where if error.where is None else f"{where}, {error.where}"
        raise PredictionError(error.rule, got=error.got, where=place, fix=fix) from None


def _refuse_doubled(ids: pd.Index[str], rule: str, got: str, where: Path) -> None:
    doubled = ids[ids.duplicated()].unique()
    if len(doubled):
        place = f"{where}, {len(doubled)} row(s): {shortened_list(doubled.tolist())}"
        raise PredictionError(rule, got=got, where=place)


def _patients(
    table: pd.DataFrame, columns: Columns, ids: pd.Index[str], where: Path
) -> NDArray[np.int64]:
    values = column(table, columns, ["patient_id"], where)
    if values is None:
        raise PredictionError(
            "targets need a column patient_id",
            got="no such column",
            where=where,
            fix="Name it with --target-columns patient_id=THEIRS.",
        )
    found, broken = whole_numbers(values)
    fix = "Number the patients; any numbers will do."
    _refuse(broken, "patient_id must be whole numbers, none missing", values, ids, where, fix)
    return found


def _whole(
    table: pd.DataFrame, columns: Columns, name: str, ids: pd.Index[str], where: Path
) -> NDArray[np.int64] | int:
    """Whole numbers of a column, -1 for empty cells or without the column."""
    values = column(table, columns, [name], where)
    if values is None:
        return UNKNOWN
    found, broken = whole_numbers(values)
    empty = values.isna().to_numpy(bool)
    _refuse(broken & ~empty, f"{name} must be whole numbers", values, ids, where)
    return np.where(empty, UNKNOWN, found)
