"""A label table with its bad cells marked, so that all of them can be reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.cells import numbers, texts, whole_numbers, written
from hms_ray.competition.read import NO_LABEL_ID, OFFSET_COLUMNS, fill_label_ids
from hms_ray.competition.schema import LABEL_COLUMNS, VOTE_COLUMNS
from hms_ray.competition.tables import read_table

ID_COLUMNS: Final = (
    *("eeg_id", "eeg_sub_id", "spectrogram_id", "spectrogram_sub_id", "label_id", "patient_id"),
)
_KEY_COLUMNS: Final = tuple(name for name in ID_COLUMNS if name != "label_id")


@dataclass(frozen=True)
class LabelTable:
    """Label rows and their bad cells.

    Attributes:
        name: of the file.
        labels: all rows as from ``read_labels``, RangeIndex; bad cells are 0 for votes and
            ids, ``NO_LABEL_ID`` for ``label_id``, and NaN for offsets.
        bad: column -> bool (n_rows,), its bad cells; only columns that have any.
        cells: the unconverted rows.
    """

    name: str
    labels: pd.DataFrame
    bad: Mapping[str, NDArray[np.bool_]]
    cells: pd.DataFrame

    def any_bad(self, columns: Iterable[str]) -> NDArray[np.bool_]:
        """Rows with a bad cell in any of the columns: bool (n_rows,)."""
        found = np.zeros(len(self.labels), bool)
        for name in columns:
            if name in self.bad:
                found |= self.bad[name]
        return found

    def keyed(self) -> pd.DataFrame:
        """Rows without a bad id (``label_id`` aside), with their original index."""
        return self.labels[~self.any_bad(_KEY_COLUMNS)]

    def voted(self) -> pd.DataFrame:
        """Rows of ``keyed`` whose votes are whole numbers, with their original index."""
        return self.labels[~self.any_bad((*_KEY_COLUMNS, *VOTE_COLUMNS))]

    def written(self, column: str) -> dict[int, str]:
        """Row -> its bad cell in a column, as error messages show it."""
        rows = np.flatnonzero(self.any_bad([column]))
        return dict(
            zip(rows.tolist(), map(written, self.cells[column].iloc[rows].tolist()), strict=True)
        )


def read_label_table(path: str | Path) -> LabelTable:
    """Read a label table, accepting any values in its cells.

    Args:
        path: ``train.csv``, or a ``.csv`` or ``.parquet`` file with its columns.

    Returns:
        The rows. Bad cells: ids that are not whole numbers of at least 0 (an empty
        ``label_id`` is allowed and means unknown), votes that are not whole numbers,
        offsets that are not numbers of at least 0.

    Raises:
        DataError: if the file is missing, is not a table, lacks columns or has no rows.
    """
    path = Path(path)
    cells = read_table(path).frame(LABEL_COLUMNS)
    labels: dict[str, pd.Series[Any]] = {}
    bad: dict[str, NDArray[np.bool_]] = {}
    for name in LABEL_COLUMNS:
        if name == "expert_consensus":
            labels[name] = texts(cells[name])
            continue
        read = _offsets if name in OFFSET_COLUMNS else _ids if name in ID_COLUMNS else whole_numbers
        values, broken = read(cells[name])
        labels[name] = pd.Series(values)
        if broken.any():
            bad[name] = broken
    return LabelTable(path.name, pd.DataFrame(labels), bad, cells)


def _offsets(column: pd.Series[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = numbers(column)[0].astype(np.float64)
    broken = ~(np.isfinite(values) & (values >= 0))
    return np.where(broken, np.nan, values), broken


def _ids(column: pd.Series[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    if column.name != "label_id":
        values, broken = whole_numbers(column)
        return values, broken | (values < 0)
    values, broken = whole_numbers(fill_label_ids(column))
    broken |= (values < 0) & column.notna().to_numpy(bool)
    return np.where(broken, NO_LABEL_ID, values), broken
