"""The label rows that training rows were made of: found, and kept beside their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import UNIT_KEYS, Unit, make_rows
from hms_ray.competition.schema import TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.config.experiment import DataConfig
from hms_ray.dataset.missing_signal import apply_missing_signal_policy
from hms_ray.dataset.sources import SourceRecipe
from hms_ray.pack.store import Pack
from hms_ray.storage.hashing import table_fingerprint

LABELS: Final = "label_rows"
"""Column of a row table: one int64 array per row, ``_FIELDS`` of each of its label rows."""

OF_ROW: Final = "of_row"
"""Column of a table of label rows: ``row_id`` of the training row."""

_FIELDS: Final = ("eeg_start", "spectrogram_start", *VOTE_COLUMNS)
_RECORDINGS: Final = ["eeg_id", "spectrogram_id"]


def label_rows_of(rows: pd.DataFrame, labels: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """The label rows that training rows were made of.

    Args:
        rows: training rows of ``unit``, see ``make_rows``; label rows of others are skipped.
        labels: label rows, see ``read_labels``.
        unit: of ``rows``.

    Returns:
        Rows of the unit ``label`` (see ``make_rows``) with the column ``OF_ROW``.

    Raises:
        DataError: see ``make_rows``.
    """
    keys = UNIT_KEYS[unit]
    owners = rows[[*keys, "row_id"]].rename(columns={"row_id": OF_ROW})
    return make_rows(labels, "label").merge(owners, on=keys, validate="many_to_one")


def label_windows(
    data_dir: Path, rows: pd.DataFrame, unit: Unit, sources: Sequence[SourceRecipe]
) -> pd.DataFrame | None:
    """The label rows of training rows if a source needs their windows; see ``label_rows_of``."""
    if not any(source.label_rows for source in sources):
        return None
    return label_rows_of(rows, read_labels(data_dir), unit)


def with_label_rows(rows: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Training rows with their label rows in the column ``LABELS``.

    Args:
        rows: training rows; one without any label row gets its own window and votes as one.
        labels: see ``label_rows_of``; those of other rows are skipped.
    """
    place = pd.Series(np.arange(len(rows)), index=rows["row_id"])
    owner = labels[OF_ROW].map(place)
    table = labels.assign(row=owner)[owner.notna()].sort_values("row", kind="stable")
    counts = np.bincount(table["row"].astype(np.int64), minlength=len(rows))
    values = table[list(_FIELDS)].to_numpy(np.int64)
    cells = np.split(values.ravel(), np.cumsum(counts)[:-1] * len(_FIELDS))
    own = rows[list(_FIELDS)].to_numpy(np.int64)
    column = pd.Series([cell if len(cell) else own[k] for k, cell in enumerate(cells)], rows.index)
    return rows.assign(**{LABELS: column})


def label_rows_in(rows: pd.DataFrame) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """The label rows of a table that ``with_label_rows`` made.

    Returns:
        int64 (N + 1,), first label row of each training row, and the number of all; the label
        rows, with ids of recordings, starts, votes, ``total_votes`` and targets.
    """
    cells = rows[LABELS].tolist()
    counts = np.array([len(cell) for cell in cells]) // len(_FIELDS)
    values = np.concatenate(cells).astype(np.int64).reshape(-1, len(_FIELDS))
    recordings = rows[_RECORDINGS].to_numpy(np.int64).repeat(counts, axis=0)
    table = pd.DataFrame(np.hstack([recordings, values]), columns=[*_RECORDINGS, *_FIELDS])
    votes = table[list(VOTE_COLUMNS)].to_numpy()
    table["total_votes"] = votes.sum(axis=1)
    table[list(TARGET_COLUMNS)] = votes / votes.sum(axis=1, keepdims=True)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), table


def label_rows_fingerprint(labels: pd.DataFrame) -> str:
    """Hash of windows and votes of label rows, and of the rows that they belong to."""
    return table_fingerprint(labels[[OF_ROW, *_RECORDINGS, *_FIELDS]])


def labelled(
    table: pd.DataFrame, labels: pd.DataFrame, packs: Mapping[str, Pack], config: DataConfig
) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """The rows to train on with their label rows; the label rows' hash; notes."""
    labels = labels[labels[OF_ROW].isin(table["row_id"])].reset_index(drop=True)
    is_kept, notes = apply_missing_signal_policy(labels, packs, config.unusable, "label row")
    labels = labels[is_kept]
    return with_label_rows(table, labels), label_rows_fingerprint(labels), notes
