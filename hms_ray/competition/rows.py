"""Training rows from label rows: unit, targets, total votes and window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import (
    CLASSES,
    EEG_RATE_HZ,
    SPECTROGRAM_STEP_S,
    TARGET_COLUMNS,
    VOTE_COLUMNS,
)
from hms_ray.errors import DataError
from hms_ray.storage.hashing import table_fingerprint

if TYPE_CHECKING:
    from hms_ray.config.experiment import DataConfig

Unit = Literal["eeg_votes", "eeg", "label"]

ROW_UNIT: Final = "row_unit"
"""Key in a table's ``attrs``, and so in its parquet file, for the unit of its row ids: the
same id means different rows in different units."""

Window = Literal["middle", "nearest"]

ROW_COLUMNS: Final = (
    *("row_id", "eeg_id", "spectrogram_id", "patient_id", "expert_consensus"),
    *("total_votes", "n_labels", "eeg_start", "spectrogram_start"),
    *VOTE_COLUMNS,
    *TARGET_COLUMNS,
)
UNIT_KEYS: Final[dict[str, list[str]]] = {
    "eeg_votes": ["eeg_id", *VOTE_COLUMNS],
    "eeg": ["eeg_id"],
    "label": ["eeg_id", "eeg_sub_id"],
}
"""Label rows that agree in these columns form one training row."""
_EEG_OFFSET: Final = "eeg_label_offset_seconds"
_SPECTROGRAM_OFFSET: Final = "spectrogram_label_offset_seconds"


def make_rows(
    labels: pd.DataFrame, unit: Unit = "eeg_votes", window: Window = "middle"
) -> pd.DataFrame:
    """Merge label rows into training rows.

    Args:
        labels: label rows, see ``read_labels``, in any order; ``label_id`` and
            ``expert_consensus`` are not used.
        unit: ``eeg_votes``: one row per distinct (EEG, six votes); ``eeg``: one row per
            EEG, its votes summed; ``label``: one row per label row.
        window: position of a row's window. ``middle``: midway between the smallest and
            the largest offset of its label rows; ``nearest``: at the label row nearest to
            that point (of two, the one with the smaller ``eeg_sub_id``).

    Returns:
        Columns ``ROW_COLUMNS``, RangeIndex, sorted by (EEG, votes), or by (EEG, sub id)
        for ``label``:
        ``row_id`` text: ``<eeg_id>-<rank of the votes in the EEG>``, ``<eeg_id>``, or
        ``<eeg_id>-<eeg_sub_id>``, by unit; the ids int64;
        ``expert_consensus`` the first class with the most votes; ``total_votes`` int64, the
        sum of the votes, but for ``eeg`` the largest sum of a label row;
        ``n_labels`` int64, number of merged label rows; ``eeg_start`` int64, first of the
        10,000 samples; ``spectrogram_start`` int64, first of the 300 rows;
        votes int64; targets float64, votes divided by their sum.

    Raises:
        DataError: if there are no label rows, or one has no votes or no offsets.
    """
    _check_arguments(labels, unit, window)
    # The result must not depend on the order of the file.
    labels = labels.sort_values(["eeg_id", "eeg_sub_id"], kind="stable", ignore_index=True)
    labels["total_votes"] = labels[list(VOTE_COLUMNS)].sum(axis=1)
    groups = labels.groupby(UNIT_KEYS[unit], sort=True)
    number = groups.ngroup().to_numpy().astype(np.int64)
    rows = pd.DataFrame(
        {
            "eeg_id": groups["eeg_id"].first(),
            "spectrogram_id": groups["spectrogram_id"].first(),
            "patient_id": groups["patient_id"].first(),
            "total_votes": groups["total_votes"].max(),
            "n_labels": groups.size(),
        }
    ).reset_index(drop=True)
    votes = groups[list(VOTE_COLUMNS)].agg("sum" if unit == "eeg" else "max").to_numpy(np.int64)
    rows["row_id"] = _row_ids(rows["eeg_id"], labels, unit)
    rows["eeg_start"], rows["spectrogram_start"] = _starts(labels, number, len(rows), window)
    rows["expert_consensus"] = np.array(CLASSES)[votes.argmax(axis=1)]
    targets = votes / votes.sum(axis=1, keepdims=True)
    for k, (vote, target) in enumerate(zip(VOTE_COLUMNS, TARGET_COLUMNS, strict=True)):
        rows[vote] = votes[:, k]
        rows[target] = targets[:, k]
    rows["expert_consensus"] = rows["expert_consensus"].astype(str)
    return rows[list(ROW_COLUMNS)]


def rows_of(labels: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """The training rows of a configuration: ``make_rows``, then a draw of patients.

    The patients drawn for a smaller ``n_patients`` are among those for a larger one.

    Raises:
        DataError: see ``make_rows``.
    """
    rows = make_rows(labels, config.unit, config.window)
    if config.n_patients is None:
        return rows
    # Sorted, so that neither the order of the labels nor the row unit changes the draw.
    patients = np.unique(rows["patient_id"].to_numpy())
    drawn = np.random.default_rng(config.fold_seed).permutation(patients)[: config.n_patients]
    return rows[rows["patient_id"].isin(drawn)].reset_index(drop=True)


def row_fingerprint(rows: pd.DataFrame) -> str:
    """SHA-256 (hex) of a table's content: its columns' names, order and values."""
    return table_fingerprint(rows)


def _check_arguments(labels: pd.DataFrame, unit: str, window: str) -> None:
    for name, value, known in (("unit", unit, Unit), ("window", window, Window)):
        if value not in get_args(known):
            raise DataError(
                f"a row's {name} must be one of {', '.join(get_args(known))}", got=value
            )
    if labels.empty:
        raise DataError("the label table must have rows", got="none")
    totals = labels[list(VOTE_COLUMNS)].sum(axis=1).to_numpy()
    if (totals <= 0).any():
        first = labels.iloc[int(np.argmax(totals <= 0))]
        raise DataError(
            "a label row must have votes",
            got=f"a total of {totals.min()}",
            where=f"label row {first['eeg_id']}-{first['eeg_sub_id']}",
            fix="List all such rows with: hms-ray check DIR.",
        )
    offsets = labels[[_EEG_OFFSET, _SPECTROGRAM_OFFSET]].to_numpy(np.float64)
    if not np.isfinite(offsets).all():
        first = labels.iloc[int(np.argmax(~np.isfinite(offsets).all(axis=1)))]
        raise DataError(
            "both offsets of a label row must be finite",
            got="another value",
            where=f"label row {first['eeg_id']}-{first['eeg_sub_id']}",
            fix="List all such rows with: hms-ray check DIR.",
        )


def _row_ids(eeg_ids: pd.Series[Any], labels: pd.DataFrame, unit: Unit) -> pd.Series[Any]:
    text = eeg_ids.astype(str)
    if unit == "eeg":
        return text
    # For the unit `label` the sorted labels are the rows.
    part = labels["eeg_sub_id"] if unit == "label" else eeg_ids.groupby(eeg_ids).cumcount()
    return text + "-" + part.astype(str)


def _starts(
    labels: pd.DataFrame, number: NDArray[np.int64], n_rows: int, window: Window
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First EEG sample and first spectrogram row of each row's window.

    Args:
        labels: sorted by EEG and sub id.
        number: int64 (n_labels,), the row each label row belongs to.
        n_rows: number of rows.
        window: ``middle`` or ``nearest``.
    """
    ends = []
    for name in (_EEG_OFFSET, _SPECTROGRAM_OFFSET):
        offsets = labels[name].to_numpy(np.float64)
        low, high = np.full(n_rows, np.inf), np.full(n_rows, -np.inf)
        np.minimum.at(low, number, offsets)
        np.maximum.at(high, number, offsets)
        ends.append((offsets, low + high))
    (eeg_offsets, eeg_ends), (spectrogram_offsets, spectrogram_ends) = ends
    if window == "nearest":
        distance = np.abs(eeg_offsets - (eeg_ends / 2)[number])
        # Sorted by row, then distance; stable, so the first of equals comes first.
        order = np.lexsort((distance, number))
        nearest = order[np.searchsorted(number[order], np.arange(n_rows))]
        eeg_ends = 2 * eeg_offsets[nearest]
        spectrogram_ends = 2 * spectrogram_offsets[nearest]
    eeg_start = np.floor(eeg_ends * (EEG_RATE_HZ / 2)).astype(np.int64)
    return eeg_start, (spectrogram_ends // (2 * SPECTROGRAM_STEP_S)).astype(np.int64)
