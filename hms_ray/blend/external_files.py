"""Predictions and targets from files made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.blend.row_keys import Keys, row_keys
from hms_ray.competition.cells import numbers, whole_numbers, written
from hms_ray.competition.rows import Unit
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.competition.tables import Columns, Table, read_table, short_name
from hms_ray.config.space import Objective
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.oof import OPTIMISTIC
from hms_ray.evaluate.shares import Renormalised, are_percentages, read_shares
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
        renormalised: what was renormalised in a file.
    """

    rows: pd.DataFrame
    keys: Keys
    name: str
    n_unknown: int = 0
    objective: Objective | None = None
    renormalised: Renormalised | None = None


class Predictions(NamedTuple):
    """Predictions of a file.

    Attributes:
        ids: (n) unique ids of its rows.
        keys: what the ids identify.
        probabilities: (n, 6) float64.
        optimistic: whether the file states that models were chosen on these rows.
        renormalised: what was renormalised.
    """

    ids: pd.Index[str]
    keys: Keys
    probabilities: Array
    optimistic: bool
    renormalised: Renormalised | None = None


def read_external_predictions(
    path: str | Path,
    columns: Columns | None = None,
    row_unit: Unit | None = None,
    *,
    renormalise: bool = False,
) -> Predictions:
    """Predictions of a file.

    Args:
        path: ``.csv`` or ``.parquet``.
        columns: names of its columns that the user gave.
        row_unit: unit of its row ids, if the file does not state it.
        renormalise: see ``read_shares``.

    Raises:
        DataError: see ``read_table`` and ``Table.frame``.
        PredictionError: naming the file and the rows: see ``row_keys`` and ``read_shares``; if
            a row is duplicated.
    """
    table = read_table(path, columns, option="--columns")
    ids, keys = row_keys(table, row_unit)
    _refuse_doubled(ids, "a row must be predicted once", "several predictions", table.path)
    probabilities, done = _probabilities(table, ids, renormalise)
    optimistic = table.cells.attrs.get(OPTIMISTIC) is True
    return Predictions(ids, keys, probabilities, optimistic, done)


def read_test_predictions(
    path: str | Path,
    columns: Columns | None = None,
    fitted_columns: Columns | None = None,
    *,
    renormalise: bool = False,
) -> tuple[NDArray[np.int64], Array, Renormalised | None]:
    """Predictions of test recordings: EEGs (n,), probabilities (n, 6), what was renormalised.

    Args:
        path: ``.csv`` or ``.parquet``; EEGs in the column ``eeg_id``, or else ``row_id``.
        columns: names of its columns that the user gave.
        fitted_columns: names in the file that the blend was fitted on; those that this file
            has are used too.
        renormalise: see ``read_shares``.

    Raises:
        DataError: see ``read_table`` and ``Table.frame``; if an EEG's id is no whole number.
        PredictionError: see ``read_shares``.
    """
    table = read_table(path, columns, option="--columns")
    kept = {ours: name for ours, name in (fitted_columns or {}).items() if name in table.names}
    table = replace(table, columns={**kept, **table.columns})
    key = "eeg_id" if table.column("eeg_id") is not None else "row_id"
    eegs = table.whole(key if table.column(key) is not None else "eeg_id")
    probabilities, done = _probabilities(table, pd.Index(eegs), renormalise)
    return eegs, probabilities, done


def _probabilities(
    table: Table, ids: pd.Index, renormalise: bool
) -> tuple[Array, Renormalised | None]:
    values = _numbers(table.frame(PROBABILITY_COLUMNS), "predictions", ids, table.path)
    return _distributions(values, "predictions", ids, table.path, renormalise)


def read_targets(
    path: str | Path,
    columns: Columns | None = None,
    row_unit: Unit | None = None,
    *,
    renormalise: bool = False,
) -> Targets:
    """Votes or shares, patients and totals of a file.

    Whole numbers are votes; their sum is the total unless ``total_votes`` is given. Other
    numbers are shares, which need ``total_votes``; so do tables of one vote per row, which
    could be shares. A total may be below the sum of the votes, because votes of several
    label rows can be added up.

    Raises:
        DataError: see ``read_table`` and ``Table.frame``.
        PredictionError: naming the file and the rows: see ``read_external_predictions``;
            if patients are missing, or totals are missing, invalid or above the votes.
    """
    table = read_table(path, columns, option="--target-columns")
    path = table.path
    ids, keys = row_keys(table, row_unit)
    _refuse_doubled(ids, "a row must have one target", "several", path)
    votes = _numbers(table.frame(TARGET_COLUMNS), "votes", ids, path)
    infinite = np.asarray(~np.isfinite(votes).all(axis=1))
    fix = "Fill in the votes, or remove these rows."
    _refuse(infinite, "votes must be finite numbers, none missing", votes, ids, path, fix)
    negative = np.asarray((votes < 0).any(axis=1))
    _refuse(negative, "votes must not be negative", votes, ids, path, "Correct these rows.")
    sums = votes.sum(axis=1)
    fix = "Remove rows without votes from the targets."
    _refuse(sums == 0, "each row of targets must have votes", votes, ids, path, fix)
    counted = bool((votes == np.round(votes)).all())
    fix = "Divide the six columns by 100."
    rule = "targets must be votes, or shares that sum to 1"
    _refuse(_percentages(sums), rule, "percentages: rows sum to about 100", ids, path, fix)
    totals = _totals(table, sums, counted, ids)
    rows = pd.DataFrame(
        {
            "row_id": ids,
            "eeg_id": _whole(table, "eeg_id", ids),
            "patient_id": _patients(table, ids),
            "fold": _whole(table, "fold", ids),
            # Rows with an unknown total count as rows with few votes.
            "total_votes": np.nan_to_num(totals),
        }
    )
    fix = "Give votes as whole numbers, or shares that sum to 1."
    shares = votes / sums[:, None] if counted else votes
    rows[list(TARGET_COLUMNS)], done = _distributions(
        shares, "targets", ids, path, renormalise, fix
    )
    return Targets(rows, keys, str(path), int(np.isnan(totals).sum()), renormalised=done)


def _percentages(sums: Array) -> NDArray[np.bool_]:
    """Marks all rows if most sums are about 100; a single row may have 100 votes."""
    return np.full(len(sums), len(sums) > 1 and are_percentages(sums))


def _totals(table: Table, sums: Array, counted: bool, ids: pd.Index[str]) -> Array:
    """Total votes (n,), NaN if unknown."""
    values, where = table.column("total_votes"), table.path
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
            fix=f"Name it: {table.option} total_votes=THEIRS"
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


def _numbers(values: pd.DataFrame, name: str, ids: pd.Index, where: Path) -> Array:
    """Six columns as (n, 6) float64, NaN for empty cells."""
    found = np.empty(values.shape)
    for number, title in enumerate(values):
        cells = values[title]
        found[:, number], broken = numbers(cells)
        fix = "Write numbers in these cells."
        place = f"{where}, class {short_name(str(title))}"
        _refuse(broken, f"{name} must be numbers", cells, ids, place, fix)
    return found


def _refuse(
    broken: NDArray[np.bool_],
    rule: str,
    values: pd.Series | Array | str,
    ids: pd.Index,
    where: object,
    fix: str,
) -> None:
    """Raises for the rows that are broken, if any, showing the first, or a text."""
    if not broken.any():
        return
    first = int(np.argmax(broken))
    if isinstance(values, str):
        got = values
    elif isinstance(values, np.ndarray):
        got = np.array2string(values[first], separator=", ", precision=6)
    else:
        got = written(values.iloc[first])
    named = shortened_list(ids[broken].tolist())
    raise PredictionError(
        rule, got=got, where=f"{where}, {int(broken.sum())} row(s): {named}", fix=fix
    )


def _distributions(
    values: Array,
    name: str,
    ids: pd.Index,
    where: Path,
    renormalise: bool,
    fix: str = "Correct these rows, or remove them.",
) -> tuple[Array, Renormalised | None]:
    """See ``read_shares``; errors name the file."""
    try:
        return read_shares(values, name, ids.to_numpy(), renormalise=renormalise, fix=fix)
    except PredictionError as error:
        place = where if error.where is None else f"{where}, {error.where}"
        raise PredictionError(error.rule, got=error.got, where=place, fix=error.fix) from None


def _refuse_doubled(ids: pd.Index[str], rule: str, got: str, where: Path) -> None:
    doubled = ids[ids.duplicated()].unique()
    if len(doubled):
        place = f"{where}, {len(doubled)} row(s): {shortened_list(doubled.tolist())}"
        raise PredictionError(rule, got=got, where=place, fix="Remove all but one of them.")


def _patients(table: Table, ids: pd.Index[str]) -> NDArray[np.int64]:
    values = table.column("patient_id")
    if values is None:
        raise PredictionError(
            "targets need a column patient_id",
            got="no such column",
            where=table.path,
            fix=f"Name it: {table.option} patient_id=THEIRS",
        )
    found, broken = whole_numbers(values)
    rule, fix = "patient_id must be whole numbers, none missing", "Number the patients from 0."
    _refuse(broken, rule, values, ids, table.path, fix)
    return found


def _whole(table: Table, name: str, ids: pd.Index[str]) -> NDArray[np.int64]:
    """Whole numbers of a column, -1 for empty cells or without the column."""
    values = table.column(name)
    if values is None:
        return np.full(len(ids), UNKNOWN)
    found, broken = whole_numbers(values)
    empty = values.isna().to_numpy(bool)
    fix = "Correct these cells, or leave them empty."
    _refuse(broken & ~empty, f"{name} must be whole numbers", values, ids, table.path, fix)
    return np.where(empty, UNKNOWN, found)
