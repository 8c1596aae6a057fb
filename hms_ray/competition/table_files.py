"""Cells of CSV and parquet files as their files have them."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_ray.competition.file_content import PARQUET, content_of
from hms_ray.competition.file_errors import EmptyFileError, UnreadableFileError

_FORMATS: Final = {
    ".csv": "a comma-separated table in UTF-8",
    ".parquet": "a complete parquet file",
}


def read_cells(path: Path, suffix: str, as_text: Collection[str]) -> pd.DataFrame:
    """All columns of a file that exists, by the names in the file, RangeIndex.

    Args:
        path: the file.
        suffix: of its format, ``.csv`` or ``.parquet``.
        as_text: names, in lower case, of columns of a CSV that stay text.

    Raises:
        DataError: if the file is of another format, not readable or without rows.
    """
    try:
        _refuse_other_content(path, suffix)
        cells = _read_parquet(path) if suffix == ".parquet" else _read_csv(path, as_text)
    except pd.errors.EmptyDataError:
        cells = pd.DataFrame()
    except PermissionError as error:
        fix = "Change the file's permissions."
        raise _unreadable(path, "readable", error.strerror, fix) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _unreadable(path, _FORMATS[suffix], reason) from None
    if cells.empty:
        raise EmptyFileError(
            f"{path.name} must have rows and columns",
            got="none",
            where=path,
            fix="Write the file again, or use another one.",
        )
    return cells


def _refuse_other_content(path: Path, suffix: str) -> None:
    """Raises ``UnreadableFileError`` if a file is not what its name promises."""
    content = content_of(path)
    own = (PARQUET,) if suffix == ".parquet" else ("CSV text", "text", "an empty file")
    if content is not None and content.name not in own:
        raise _unreadable(path, _FORMATS[suffix], content.name, content.fix)


def _unreadable(path: Path, rule: str, got: object, fix: str | None = None) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path.name} must be {rule}",
        got=got,
        where=path,
        fix=fix or f"Write the table again, as a {path.suffix} file.",
    )


def _read_csv(path: Path, as_text: Collection[str]) -> pd.DataFrame:
    # pandas renames the second of two equal names, which would hide it.
    header = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0].tolist()
    names = [
        name.strip() if isinstance(name, str) else f"Unnamed: {n}" for n, name in enumerate(header)
    ]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise ValueError("columns separated by semicolons or tabs")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            cells: pd.DataFrame = pd.read_csv(
                path,
                header=0,
                names=range(len(names)),
                index_col=False,
                dtype={n: str for n, name in enumerate(names) if name.casefold() in as_text},
                skipinitialspace=True,
                low_memory=False,
            )
    except pd.errors.ParserWarning:
        raise ValueError("lines with more cells than the header") from None
    cells.columns = pd.Index(names)
    return cells


def _read_parquet(path: Path) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:
        cells: pd.DataFrame = file.read().to_pandas()
    attributes = cells.attrs
    named = [name for name in cells.index.names if name is not None]
    if named:
        cells = cells.reset_index(named, allow_duplicates=True)
    cells = cells.reset_index(drop=True)
    cells.attrs = attributes
    return cells
