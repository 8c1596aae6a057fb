"""The one reader of tables: CSV and parquet files in every form that people write.

A table is read as its file has it. Its columns are then found by name: by the name that the
user gave, or by a usual name, in upper or lower case.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.cells import whole_numbers, written
from hms_ray.competition.file_errors import (
    MissingFileError,
    UnreadableFileError,
    WrongColumnsError,
    WrongTypeError,
)
from hms_ray.competition.schema import CLASSES
from hms_ray.competition.table_files import read_cells
from hms_ray.text import shortened_list

TABLE_SUFFIXES: Final = (".csv", ".parquet")
_OTHER_SUFFIXES: Final = (".npy", ".npz", ".pkl", ".pickle", ".xlsx", ".feather", ".tsv", ".gz")
"""Endings of tables in other formats, so that they are refused as files of a wrong format."""
_ARRAYS: Final = (".npy", ".npz")
_WRITE_ARRAY: Final = (
    "Write it as a table: pandas.DataFrame(array, columns=['seizure', 'lpd', 'gpd', 'lrda', "
    "'grda', 'other']).assign(row_id=ids).to_csv('FILE.csv', index=False)"
)
CLASS_NAMES: Final = tuple(name.lower() for name in CLASSES)

Columns = Mapping[str, str]
"""Our name of a column -> the file's name; classes by their short names (``lpd``)."""


def is_table_file(text: str | Path) -> bool:
    """Whether a path ends like a table, also like one that must be written again first."""
    return Path(text).suffix.lower() in (*TABLE_SUFFIXES, *_OTHER_SUFFIXES)


@dataclass(frozen=True, eq=False)
class Table:
    """A table as its file has it.

    Attributes:
        path: the file.
        cells: all columns in the file's order and with its names, RangeIndex; ``attrs`` of
            the frame that was written as parquet.
        columns: names that the user gave.
        option: of the command, to name columns with; empty if it has none.
    """

    path: Path
    cells: pd.DataFrame
    columns: Columns = field(default_factory=dict)
    option: str = ""

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [str(name) for name in self.cells.columns]

    def column(self, ours: str, *usual: str) -> pd.Series[Any] | None:
        """A column; None if it is not in the file.

        Args:
            ours: name by which the user can have named it.
            usual: its usual names, of which the first in the file is taken; default: ours.

        Raises:
            WrongColumnsError: if the file has it several times, or lacks the one that the
                user named.
        """
        given = self.columns.get(ours)
        if given is None:
            places = (self._place(name) for name in usual or (ours,))
            place = next((place for place in places if place is not None), None)
            return None if place is None else self.cells.iloc[:, place]
        place = self._place(given)
        if place is None:
            raise WrongColumnsError(
                f"the column given for {ours} must be in the file",
                got=f"no {given} among {shortened_list(self.names)}",
                where=self.path,
                fix=f"Correct {self.option}." if self.option else None,
            )
        return self.cells.iloc[:, place]

    def _place(self, name: str) -> int | None:
        """Position of a column; names in another case count if no name is the same."""
        found = [place for place, known in enumerate(self.names) if known == name]
        if not found:
            same = name.strip().casefold()
            found = [n for n, known in enumerate(self.names) if known.strip().casefold() == same]
        if len(found) > 1:
            raise WrongColumnsError(
                "a table must have each column once",
                got=", ".join(self.names[place] for place in found),
                where=self.path,
                fix="Remove or rename all but one of them.",
            )
        return found[0] if found else None

    def frame(self, wanted: Sequence[str]) -> pd.DataFrame:
        """Columns by our names, unconverted, in the given order.

        Raises:
            WrongColumnsError: naming all that are missing; see ``column``.
        """
        found = {name: self.column(short_name(name), *usual_names(name)) for name in wanted}
        missing = [name for name, column in found.items() if column is None]
        if missing:
            used = {column.name for column in found.values() if column is not None}
            others = [name for name in self.names if name not in used]
            fix = "Rename the columns of the file, or use another one."
            if self.option:
                named = short_name(missing[0])
                fix = f"Name them: {self.option} {self.path.name}:{named}=THEIRS,..."
            raise missing_columns(missing, others, wanted, self.path.name, self.path, fix)
        return pd.DataFrame(found)

    def whole(self, ours: str, fix: str | None = None) -> NDArray[np.int64]:
        """A required column of whole numbers: int64 (n,).

        Raises:
            WrongColumnsError: if it is missing.
            WrongTypeError: if a cell is empty or no whole number.
        """
        cells = self.frame([ours])[ours]
        values, broken = whole_numbers(cells)
        self.refuse(broken, f"{ours} must be whole numbers, none missing", cells, fix)
        return values

    def refuse(
        self, broken: NDArray[np.bool_], rule: str, cells: pd.Series[Any], fix: str | None = None
    ) -> None:
        """Raises ``WrongTypeError`` if cells of a column break a rule; shows the first one."""
        if broken.any():
            first = int(np.argmax(broken))
            raise WrongTypeError(
                rule,
                got=written(cells.iloc[first]),
                where=f"{self.path}, {rows_text(broken)}",
                fix=fix or "Correct these cells, or remove their rows.",
            )


def rows_text(broken: NDArray[np.bool_]) -> str:
    """Marked rows, counted from 1 after the header, as text."""
    numbers: NDArray[Any] = np.flatnonzero(broken) + 1
    return f"{len(numbers)} row(s), counted from 1: {shortened_list(numbers.tolist())}"


def short_name(name: str) -> str:
    """``lpd`` for ``lpd_vote`` and ``lpd_target``; other names as they are."""
    short = name.removesuffix("_vote").removesuffix("_target")
    return short if short in CLASS_NAMES else name


def usual_names(name: str) -> tuple[str, ...]:
    """Names in files for one of our columns: targets may be votes; a class alone is enough."""
    short = short_name(name)
    votes = (f"{short}_vote",) if name == f"{short}_target" else ()
    return tuple(dict.fromkeys((name, *votes, short)))


def folds_from_0(fold: NDArray[np.int64], path: Path) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Folds (n,) that count from 0, and a line about a file that counts them from 1.

    Folds that begin with 1 are taken to count from 1: counted from 0, fold 0 would be empty.
    """
    if not len(fold) or fold.min() != 1:
        return fold, ()
    return fold - 1, (f"{path.name} counts folds from 1: its fold 1 is fold 0 here",)


def read_table(
    path: str | Path,
    columns: Columns | None = None,
    *,
    option: str = "",
    text: Collection[str] = ("row_id",),
    suffix: str | None = None,
) -> Table:
    """Reads a CSV or parquet file.

    A byte order mark, any line ends, further columns, another order of columns, spaces around
    names, and an index are accepted: an index with a name is a column, another one is not.

    Args:
        path: the file.
        columns: names that the user gave.
        option: of the command, that the user can name columns with.
        text: columns of a CSV that stay text, such as ids with leading zeros.
        suffix: of the format; default: that of the path.

    Raises:
        DataError: if the file is missing, of another format, not readable or without rows.
    """
    path, columns = Path(path), columns or {}
    suffix = (suffix or path.suffix).lower()
    if suffix not in TABLE_SUFFIXES:
        raise UnreadableFileError(
            f"a table must be a {' or '.join(TABLE_SUFFIXES)} file",
            got=path.name,
            where=path,
            fix=_WRITE_ARRAY if suffix in _ARRAYS else "Write the table as one of them.",
        )
    if not path.is_file():
        raise MissingFileError(
            f"{path.name} must exist",
            got="a folder" if path.is_dir() else None,
            where=path,
            fix="Check the path.",
        )
    as_text = {columns.get(name, name).strip().casefold() for name in text}
    cells = read_cells(path, suffix, as_text)
    return Table(path, cells, columns, option)


def check_columns(found: Iterable[str], expected: Sequence[str], name: str, path: Path) -> None:
    """Raise ``WrongColumnsError`` if expected columns are missing; ``name`` is the file's."""
    present = dict.fromkeys(found)
    missing = [column for column in expected if column not in present]
    if missing:
        wanted = set(expected)
        others = [column for column in present if column not in wanted]
        raise missing_columns(missing, others, expected, name, path, "Download it again.")


def missing_columns(
    missing: Sequence[str],
    others: Sequence[str],
    expected: Sequence[str],
    name: str,
    path: Path,
    fix: str,
) -> WrongColumnsError:
    """The error of a file without some of its columns, which names columns it has instead."""
    got = f"no {shortened_list(missing)}" + (f" but {shortened_list(others)}" if others else "")
    return WrongColumnsError(
        f"{name} must have its {len(expected)} columns", got=got, where=path, fix=fix
    )
