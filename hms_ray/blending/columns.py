"""Which columns of a file mean what, and what its rows are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from hms_ray.competition.schema import CLASSES
from hms_ray.errors import PredictionError

FILE_SUFFIXES: Final = (".csv", ".parquet")
KEY_NAMES: Final = ("row_id", "eeg_id", "eeg_sub_id")
OTHER_NAMES: Final = ("patient_id", "total_votes", "fold")
CLASS_NAMES: Final = tuple(name.lower() for name in CLASSES)

Keys = Literal["row_id", "label", "eeg_id"]
"""How rows are called: by row id, by EEG and sub id (a label row), or by EEG alone."""

Columns = Mapping[str, str]


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Our name -> the files' name, from words such as ``row_id=key,seizure=p_seizure``.

    Raises:
        PredictionError: for a word without ``=``, or a name that is none of ours.
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
        columns[name] = theirs
    return columns


def read_table(path: str | Path, columns: Columns) -> pd.DataFrame:
    """Reads a CSV or parquet file; row ids of a CSV stay the text that they are.

    Raises:
        PredictionError: where it is missing, of another kind, unreadable, or without
            a column that was named.
    """
    path = Path(path)
    if path.suffix not in FILE_SUFFIXES:
        raise PredictionError(
            f"a file of predictions or targets must end in {' or '.join(FILE_SUFFIXES)}",
            got=path.name,
        )
    if not path.is_file():
        raise PredictionError("a file of predictions or targets must exist", got="none", where=path)
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype={columns.get("row_id", "row_id"): str})
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PredictionError(
            f"a file that ends in {path.suffix} must be readable as such", got=reason, where=path
        ) from None


def row_keys(table: pd.DataFrame, columns: Columns, where: Path) -> tuple[pd.Index[str], Keys]:
    """What the rows of a table are called, as text.

    A label row is called ``<eeg_id>-<eeg_sub_id>``, as ``make_rows`` calls it.

    Raises:
        PredictionError: without keys, where one is missing, and for doubled rows.
    """
    row_id, eeg, sub = (column(table, columns, [name], where) for name in KEY_NAMES)
    kind: Keys
    if row_id is not None:
        ids, kind = row_id.astype(str), "row_id"
        absent = row_id.isna()
    elif eeg is not None:
        ids, kind = _whole(eeg, "eeg_id", where).astype(str), "eeg_id"
        absent = eeg.isna()
        if sub is not None:
            ids, kind = ids + "-" + _whole(sub, "eeg_sub_id", where).astype(str), "label"
            absent = absent | sub.isna()
    else:
        raise PredictionError(
            "rows must be named by row_id, by eeg_id and eeg_sub_id, or by eeg_id",
            got=f"the columns {', '.join(map(str, table.columns))}",
            where=where,
            fix="Name the column with --columns (of targets --target-columns) row_id=THEIRS.",
        )
    if absent.any():
        raise PredictionError(
            "every row must have a key", got=f"{int(absent.sum())} without", where=where
        )
    return pd.Index(ids), kind


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
            got=f"no {named} among {', '.join(map(str, table.columns))}",
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


def _whole(values: pd.Series, name: str, where: Path) -> pd.Series:
    if not pd.api.types.is_integer_dtype(values):
        raise PredictionError(f"{name} must be whole numbers", got=str(values.dtype), where=where)
    return values
