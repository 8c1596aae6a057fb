"""Which columns of a file mean what, and what its rows are called."""

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
from hms_ray.competition.tables import whole_numbers, written
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import name_rows
from hms_ray.text import shortened_list

FILE_SUFFIXES: Final = (".csv", ".parquet")
KEY_NAMES: Final = ("row_id", "eeg_id", "eeg_sub_id")
OTHER_NAMES: Final = ("patient_id", "total_votes", "fold")
CLASS_NAMES: Final = tuple(name.lower() for name in CLASSES)

Keys = Literal["eeg_votes", "eeg", "label", "row_id", "eeg_id"]
"""How rows are called: by the row ids of a unit, by row ids of a unit that is not known
(those of ``label`` and of ``eeg_votes`` look alike), or by EEG alone."""

Columns = Mapping[str, str]
"""Our name -> the file's name of a column."""


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Our name -> the files' name, from words such as ``row_id=key,seizure=p_seizure``.

    Args:
        words: pairs joined by commas.

    Raises:
        PredictionError: for a word without ``=``, a name that is none of ours, and one
            that is given twice.
    """
    known = (*KEY_NAMES, *OTHER_NAMES, *CLASS_NAMES)
    columns: dict[str, str] = {}
    for part in (part for word in words for part in word.split(",")):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        name = ours.removesuffix("_vote")
        if not equals or not theirs or name not in known:
            raise PredictionError(
                f"a column is named as OURS=THEIRS, OURS one of {', '.join(known)}", got=part
            )
        if columns.get(name, theirs) != theirs:
            raise PredictionError(
                "a column must be named once",
                got=f"{columns[name]} and {theirs} for {name}",
            )
        columns[name] = theirs
    return columns


def read_table(path: str | Path, names: str) -> pd.DataFrame:
    """Reads a CSV or parquet file.

    Args:
        path: the file.
        names: column of a CSV whose cells stay the text that they are; it may be absent.

    Raises:
        PredictionError: where it is missing, of another kind, unreadable or empty.
    """
    path = Path(path)
    if path.suffix not in FILE_SUFFIXES:
        raise PredictionError(
            f"a table must be a file that ends in {' or '.join(FILE_SUFFIXES)}", got=str(path)
        )
    if not path.is_file():
        raise PredictionError(
            "a file must exist to be read",
            got="a folder" if path.is_dir() else "none",
            where=path,
        )
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype={names: str}, low_memory=False)
        else:
            table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PredictionError(
            f"a file that ends in {path.suffix} must be readable as such", got=reason, where=path
        ) from None
    if table.empty:
        raise PredictionError("a table must have rows and columns", got="none", where=path)
    return table


def row_keys(
    table: pd.DataFrame, columns: Columns, where: Path, row_unit: Unit | None = None
) -> tuple[pd.Index[str], Keys]:
    """What the rows of a table are called, as text.

    A label row is called ``<eeg_id>-<eeg_sub_id>``, as ``make_rows`` calls it.

    Args:
        table: of a file.
        columns: named columns.
        where: the file.
        row_unit: unit of its row ids, where it does not say so itself.

    Raises:
        PredictionError: without keys, where one is missing or no whole number, and where
            the file's own unit is not the one that was named.
    """
    row_id, eeg, sub = (column(table, columns, [name], where) for name in KEY_NAMES)
    if row_id is None and eeg is None:
        raise PredictionError(
            "rows must be named by row_id, by eeg_id and eeg_sub_id, or by eeg_id",
            got=f"the columns {shortened_list(list(table.columns))}",
            where=where,
            fix="Name the column with --columns (of targets --target-columns) row_id=THEIRS.",
        )
    if row_id is not None:
        absent = row_id.isna().to_numpy(bool)
        if absent.any():
            raise PredictionError(
                "every row must have a row_id",
                got=f"{int(absent.sum())} without",
                where=f"{where}, {lines_of(absent)}",
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
    """Row ids of a unit; of an unknown one where it is none of ours."""
    found: Keys = next((known for known in get_args(Unit) if known == unit), "row_id")
    return found


def _unit_of(
    ids: pd.Index[str], table: pd.DataFrame, columns: Columns, where: Path, named: Unit | None
) -> Keys:
    """The unit of row ids: the file's own, else the one that was named, else unknown."""
    own = table.attrs.get(ROW_UNIT)
    if own not in get_args(Unit):
        own = "label" if _are_labels(ids, table, columns, where) else None
    if None not in (own, named) and own != named:
        raise PredictionError(
            "--row-unit must be what a file says of its own row ids",
            got=f"{named} for row ids of {own}",
            where=where,
            fix=f"Leave it out, or say --row-unit {own}.",
        )
    return as_keys(own or named)


def _are_labels(ids: pd.Index[str], table: pd.DataFrame, columns: Columns, where: Path) -> bool:
    """Whether columns beside the row ids spell them as label rows'."""
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
        )
    names: pd.Index[str] = pd.Index(numbers.astype(str))
    return names


def lines_of(broken: NDArray[np.bool_]) -> str:
    """Rows of a table that have no name yet, counted from 1 without the head, as text."""
    numbers: NDArray[Any] = np.flatnonzero(broken) + 1
    return f"{len(numbers)} row(s), counted from 1: {name_rows(numbers)}"


def column(
    table: pd.DataFrame, columns: Columns, names: Sequence[str], where: Path
) -> pd.Series | None:
    """The column that was named for the first name, or the first name that is there.

    Raises:
        PredictionError: where the column that was named is not there.
    """
    named = columns.get(names[-1])
    if named is None:
        return next((table[name] for name in names if name in table), None)
    if named not in table:
        raise PredictionError(
            f"the column named for {names[-1]} must be in the file",
            got=f"no {named} among {shortened_list(list(table.columns))}",
            where=where,
        )
    return table[named]


def class_columns(
    table: pd.DataFrame, columns: Columns, endings: Sequence[str], where: Path
) -> pd.DataFrame:
    """The six classes' columns, in the order of the classes.

    Args:
        table: of a file.
        columns: named columns, which count before all others.
        endings: of a class's name, tried in this order; the bare name comes last.
        where: the file.

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
            fix=f"Name them with --columns (of targets --target-columns) {missing[0]}=THEIRS,...",
        )
    return pd.DataFrame(found)
