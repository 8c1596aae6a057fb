"""Table files to frames, and their cells to numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hms_ray.competition.file_errors import (
    EmptyFileError,
    MissingFileError,
    UnreadableFileError,
    WrongColumnsError,
)

_NAMES_SHOWN: Final = 5
_LARGEST_EXACT: Final = 2.0**53
"""Whole numbers beyond it are not all float64 values."""


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table's columns as they are written, in the order asked for.

    Args:
        path: a ``.parquet`` file, or comma-separated text under any other name.
        columns: names that must be there; others are left out.

    Raises:
        DataError: no such file, not a table, missing columns, no rows.
    """
    if not path.is_file():
        raise MissingFileError(f"{path.name} must exist", where=path)
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    check_columns(table.columns, columns, path.name, path)
    if table.empty:
        raise EmptyFileError(f"{path.name} must hold rows", got="none", where=path)
    return table[list(columns)].reset_index(drop=True)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, low_memory=False)
    except pd.errors.EmptyDataError:
        raise EmptyFileError(f"{path.name} must hold rows", got="none", where=path) from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, "a comma-separated table", error) from None


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        # pandas' own notes in a file could turn columns into an index.
        with pq.ParquetFile(path) as file:
            table: pd.DataFrame = file.read().to_pandas(ignore_metadata=True)
            return table
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "whole parquet", error) from None


def _unreadable(path: Path, what: str, error: Exception) -> UnreadableFileError:
    reason = " ".join(str(error).split())
    return UnreadableFileError(f"{path.name} must be {what}", got=reason, where=path)


def check_columns(found: Iterable[str], expected: Sequence[str], name: str, path: Path) -> None:
    """Makes sure that a file holds columns.

    Args:
        found: its columns.
        expected: those that must be among them.
        name: what the message calls the file.
        path: where it is.

    Raises:
        WrongColumnsError: naming those that are missing.
    """
    there, wanted = dict.fromkeys(found), set(expected)
    missing = [column for column in expected if column not in there]
    unknown = [column for column in there if column not in wanted]
    if missing:
        got = f"no {some(missing)}" + (f" but {some(unknown)}" if unknown else "")
        rule = f"{name} must hold its {len(expected)} columns"
        raise WrongColumnsError(rule, got=got, where=path)


def some(names: Sequence[object]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    first = ", ".join(map(str, names[:_NAMES_SHOWN]))
    return first + (f" and {more} more" if more > 0 else "")


def numbers(column: pd.Series[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A column's numbers, whatever else stands between them.

    Returns:
        int64 (n,) where all cells are whole numbers of a numeric column, else
        float64 (n,) with NaN for empty cells and text; and bool (n,), the
        cells that are neither empty nor a number.
    """
    empty = column.isna().to_numpy(bool)
    if column.dtype.kind == "i" and not empty.any():
        return column.to_numpy(np.int64), np.zeros(len(column), bool)
    if column.dtype.kind in "iuf":
        return column.to_numpy(np.float64, na_value=np.nan), np.zeros(len(column), bool)
    parsed = pd.to_numeric(column.astype(str).mask(empty), errors="coerce")
    values = parsed.to_numpy(np.float64, na_value=np.nan)
    return values, np.isnan(values) & ~empty


def whole_numbers(column: pd.Series[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A column's whole numbers.

    Returns:
        int64 (n,), 0 where a cell holds none, and bool (n,), those cells:
        empty ones, text, fractions, infinity, numbers beyond 2^53 among floats.
    """
    values, _ = numbers(column)
    if values.dtype.kind == "i":
        return values, np.zeros(len(values), bool)
    broken = ~((np.abs(values) <= _LARGEST_EXACT) & (values == np.floor(values)))
    return np.where(broken, 0, values).astype(np.int64), broken


def texts(column: pd.Series[Any]) -> pd.Series[str]:
    """A column's cells as text, empty where they are."""
    return column.astype(object).mask(column.isna(), "").astype(str)


def written(value: object) -> str:
    """A cell as messages show it."""
    if value is None or value is pd.NA or value != value:  # NaN differs from itself
        return "an empty value"
    try:
        return f"{float(str(value)):.15g}"
    except ValueError:
        return repr(str(value))
