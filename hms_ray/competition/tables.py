"""Read table files into frames, and their cells as numbers."""

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
from hms_ray.text import shortened_list

TABLE_SUFFIXES: Final = (".csv", ".parquet")
_LARGEST_EXACT: Final = 2.0**53
"""Larger whole numbers are not all exact in float64."""


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of a table, unconverted and in the given order.

    Args:
        path: a ``.parquet`` file, or comma-separated text with any other suffix.
        columns: required columns; others are ignored.

    Raises:
        DataError: if the file is missing, is not a table, lacks columns or has no rows.
    """
    if not path.is_file():
        raise MissingFileError(f"{path.name} must exist", where=path)
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    check_columns(table.columns, columns, path.name, path)
    if table.empty:
        raise EmptyFileError(f"{path.name} must have rows", got="none", where=path)
    return table[list(columns)].reset_index(drop=True)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, low_memory=False)
    except pd.errors.EmptyDataError:
        raise EmptyFileError(f"{path.name} must have rows", got="none", where=path) from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, "a comma-separated table", error) from None


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        # pandas metadata in the file could turn columns into an index.
        with pq.ParquetFile(path) as file:
            table: pd.DataFrame = file.read().to_pandas(ignore_metadata=True)
            return table
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "a complete parquet file", error) from None


def _unreadable(path: Path, what: str, error: Exception) -> UnreadableFileError:
    reason = " ".join(str(error).split())
    return UnreadableFileError(f"{path.name} must be {what}", got=reason, where=path)


def check_columns(found: Iterable[str], expected: Sequence[str], name: str, path: Path) -> None:
    """Raise ``WrongColumnsError`` if expected columns are missing; ``name`` is the file's."""
    present = dict.fromkeys(found)
    missing = [column for column in expected if column not in present]
    if missing:
        wanted = set(expected)
        unknown = [column for column in present if column not in wanted]
        got = f"no {shortened_list(missing)}" + (
            f" but {shortened_list(unknown)}" if unknown else ""
        )
        rule = f"{name} must have its {len(expected)} columns"
        raise WrongColumnsError(rule, got=got, where=path)


def numbers(column: pd.Series[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A column's numbers and a mask of the cells with anything else.

    Returns:
        int64 (n,) for a column of whole numbers without empty cells, else float64 (n,) with
        NaN for empty cells and text; and bool (n,), True for cells that are neither empty
        nor a number.
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
        int64 (n,) with 0 for cells without one; and bool (n,), True for these cells: empty,
        text, fractions, infinity, and floats beyond 2^53.
    """
    values, _ = numbers(column)
    if values.dtype.kind == "i":
        return values, np.zeros(len(values), bool)
    broken = ~((np.abs(values) <= _LARGEST_EXACT) & (values == np.floor(values)))
    return np.where(broken, 0, values).astype(np.int64), broken


def texts(column: pd.Series[Any]) -> pd.Series[str]:
    """A column's cells as text; empty cells become empty text."""
    return column.astype(object).mask(column.isna(), "").astype(str)


def written(value: object) -> str:
    """A cell as error messages show it."""
    if value is None or value is pd.NA or value != value:  # NaN differs from itself
        return "an empty value"
    try:
        return f"{float(str(value)):.15g}"
    except ValueError:
        return repr(str(value))
