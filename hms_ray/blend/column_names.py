"""Columns of files made elsewhere: their names, and the ids of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from hms_ray.competition.rows import ROW_UNIT, Unit
from hms_ray.competition.schema import CLASSES
from hms_ray.competition.tables import TABLE_SUFFIXES, whole_numbers, written
from hms_ray.errors import PredictionError
from hms_ray.text import shortened_list

KEY_NAMES: Final = ("row_id", "eeg_id", "eeg_sub_id")
OTHER_NAMES: Final = ("patient_id", "total_votes", "fold")
CLASS_NAMES: Final = tuple(name.lower() for name in CLASSES)

Keys = Literal["eeg_votes", "eeg", "label", "row_id", "eeg_id"]
"""What ids of rows identify: rows of a unit, rows of an unknown unit (``row_id``; ids of
``label`` and of ``eeg_votes`` look alike), or EEGs."""

Columns = Mapping[str, str]
"""Our name of a column -> the file's name."""


def parse_columns(arguments: Sequence[str]) -> dict[str, str]:
    """Our names -> the file's names, from arguments such as ``row_id=key,seizure=p_seizure``.

    Raises:
        PredictionError: if a pair has no ``=``, an unknown name, or a name given twice.
    """
    known = (*KEY_NAMES, *OTHER_NAMES, *CLASS_NAMES)
    columns: dict[str, str] = {}
    for part in (part for argument in arguments for part in argument.split(",")):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        name = ours.removesuffix("_vote")
        if not equals or not theirs or name not in known:
            raise PredictionError(
                f"columns must be given as OURS=THEIRS, with OURS one of {', '.join(known)}",
                got=part,
            )
        if columns.get(name, theirs) != theirs:
            raise PredictionError(
                "a column must be given once",
                got=f"{columns[name]} and {theirs} for {name}",
                fix="Remove one of them.",
            )
        columns[name] = theirs
    return columns


def read_external_table(path: str | Path, text_column: str) -> pd.DataFrame:
    """Reads a CSV or parquet file made elsewhere.

    Args:
        path: the file.
        text_column: column of a CSV that is kept as text; it may be missing.

    Raises:
        PredictionError: if the file is missing, of another type, unreadable or empty.
    """
    path = Path(path)
    if path.suffix not in TABLE_SUFFIXES:
        raise PredictionError(
            f"a table must be a {' or '.join(TABLE_SUFFIXES)} file",
            got=str(path),
            fix="Write the table as one of them.",
        )
    if not path.is_file():
        raise PredictionError(
            "the file must exist",
            got="a folder" if path.is_dir() else "none",
            where=path,
            fix="Check the path.",
        )
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype={text_column: str}, low_memory=False)
        else:
            table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PredictionError(
            f"a {path.suffix} file must be readable",
            got=reason,
            where=path,
            fix="Write the file again.",
        ) from None
    if table.empty:
        raise PredictionError("a table must have rows and columns", got="none", where=path)
    return table


def row_keys(
    table: pd.DataFrame, columns: Columns, where: Path, row_unit: Unit | None = None
) -> tuple[pd.Index[str], Keys]:
    """Ids of the rows of a table, as text, and what they identify.

    The id of a label row is ``<eeg_id>-<eeg_sub_id>`` (see ``make_rows``).

    Args:
        table: of a file.
        columns: names of its columns.
        where: the file, for messages.
        row_unit: unit of its row ids, if the file does not state it.

    Raises:
        PredictionError: if there are no ids, one is empty or not a whole number, or the
            file states another unit than ``row_unit``.
    """
    row_id, eeg, sub = (column(table, columns, [name], where) for name in KEY_NAMES)
    if row_id is None and eeg is None:
        raise PredictionError(
            "rows need row_id, eeg_id and eeg_sub_id, or eeg_id",
            got=f"the columns {shortened_list(list(table.columns))}",
            where=where,
            fix="Name the column: --columns (for targets --target-columns) row_id=THEIRS.",
        )
    if row_id is not None:
        absent = row_id.isna().to_numpy(bool)
        if absent.any():
            raise PredictionError(
                "every row must have a row_id",
                got=f"{int(absent.sum())} without",
                where=f"{where}, {lines_of(absent)}",
                fix="Fill in the ids, or remove these rows.",
            )
        ids = pd.Index(row_id.astype(str))
        return ids, _unit_of(ids, table, columns, where, row_unit)
    assert eeg is not None
    names = _key_numbers(eeg, "eeg_id", where)
    if sub is None:
        return names, "eeg_id"
    labels: pd.Index[str] = names + "-" + _key_numbers(sub, "eeg_sub_id", where)
    return labels, "label"


def as_keys(unit: object) -> Keys:
    """Row ids of a unit; ``row_id`` if the unit is not a known one."""
    found: Keys = next((known for known in get_args(Unit) if known == unit), "row_id")
    return found


def _unit_of(
    ids: pd.Index[str], table: pd.DataFrame, columns: Columns, where: Path, named: Unit | None
) -> Keys:
    """The unit of row ids: the file's own, else the given one, else unknown."""
    own = table.attrs.get(ROW_UNIT)
    if own not in get_args(Unit):
        own = "label" if _are_labels(ids, table, columns, where) else None
    if None not in (own, named) and own != named:
        raise PredictionError(
            "--row-unit must be the unit that the file states",
            got=f"{named} for row ids of {own}",
            where=where,
            fix=f"Omit it, or use --row-unit {own}.",
        )
    return as_keys(own or named)


def _are_labels(ids: pd.Index[str], table: pd.DataFrame, columns: Columns, where: Path) -> bool:
    """Whether the row ids are ``<eeg_id>-<eeg_sub_id>`` of the other id columns."""
    eeg, sub = (column(table, columns, [name], where) for name in KEY_NAMES[1:])
    if eeg is None or sub is None:
        return False
    numbers = [whole_numbers(values) for values in (eeg, sub)]
    if any(broken.any() for _, broken in numbers):
        return False
    named, subs = (pd.Index(values.astype(str)) for values, _ in numbers)
    return bool((named + "-" + subs == ids).all())


def _key_numbers(values: pd.Series, name: str, where: Path) -> pd.Index[str]:
    numbers, broken = whole_numbers(values)
    if broken.any():
        raise PredictionError(
            f"{name} must be whole numbers, none missing",
            got=written(values[broken].iloc[0]),
            where=f"{where}, {lines_of(broken)}",
            fix="Correct the ids, or remove these rows.",
        )
    names: pd.Index[str] = pd.Index(numbers.astype(str))
    return names


def lines_of(broken: NDArray[np.bool_]) -> str:
    """Positions of rows without an id, counted from 1 after the header, as text."""
    numbers: NDArray[Any] = np.flatnonzero(broken) + 1
    return f"{len(numbers)} row(s), counted from 1: {shortened_list(numbers.tolist())}"


def column(
    table: pd.DataFrame, columns: Columns, names: Sequence[str], where: Path
) -> pd.Series | None:
    """The column named by the user; default: the first of the usual names in the table.

    Raises:
        PredictionError: if the given column is missing.
    """
    named = columns.get(names[-1])
    if named is None:
        return next((table[name] for name in names if name in table), None)
    if named not in table:
        raise PredictionError(
            f"the column given for {names[-1]} must be in the file",
            got=f"no {named} among {shortened_list(list(table.columns))}",
            where=where,
            fix="Correct --columns or --target-columns.",
        )
    return table[named]


def class_columns(
    table: pd.DataFrame, columns: Columns, endings: Sequence[str], where: Path
) -> pd.DataFrame:
    """The six classes' columns, in the order of the classes.

    Columns named by the user come first, then the class names with these endings in order,
    then the bare names.

    Raises:
        PredictionError: naming the classes without a column.
    """
    found: dict[str, pd.Series | None] = {}
    for name, title in zip(CLASS_NAMES, CLASSES, strict=True):
        names = [*(name + ending for ending in endings), title, name]
        found[name] = column(table, columns, names, where)
    missing = [name for name, values in found.items() if values is None]
    if missing:
        raise PredictionError(
            "a file must have a column for each of the six classes",
            got=f"none for {', '.join(missing)}",
            where=where,
            fix=f"Name them: --columns (for targets --target-columns) {missing[0]}=THEIRS,...",
        )
    return pd.DataFrame(found)
