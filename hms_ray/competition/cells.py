"""Cells of tables as numbers and as text."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_LARGEST_EXACT: Final = 2.0**53
"""Larger whole numbers are not all exact in float64."""
_FRACTION_OF_ID: Final = r"(?<=\d)\.0+(?=-|$)"
"""In ids that were written as floating-point numbers: ``123.0``, ``123.0-4.0``."""


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


def id_texts(column: pd.Series[Any]) -> pd.Series[str]:
    """A column of ids as text, without the ``.0`` of whole numbers written as floats.

    Empty cells become empty text.
    """
    ids = texts(column).str.strip()
    numeric = ids.str.fullmatch(r"[\d.-]+").astype(bool)
    return ids.where(~numeric, ids.str.replace(_FRACTION_OF_ID, "", regex=True))


def written(value: object) -> str:
    """A cell as error messages show it."""
    if value is None or value is pd.NA or value != value:  # NaN differs from itself
        return "an empty value"
    try:
        return f"{float(str(value)):.15g}"
    except ValueError:
        return repr(str(value))
