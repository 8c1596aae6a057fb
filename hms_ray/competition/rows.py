"""Training rows from label rows: unit, targets, total votes and window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.held_out import held_out_patients
from hms_ray.competition.read import OFFSET_COLUMNS
from hms_ray.competition.schema import (
    CLASSES,
    EEG_RATE_HZ,
    SPECTROGRAM_STEP_S,
    TARGET_COLUMNS,
    VOTE_COLUMNS,
)
from hms_ray.errors import DataError

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
    rows["eeg_start"], rows["spectrogram_start"] = _starts(labels, groups, window)
    rows["expert_consensus"] = pd.Series(np.array(CLASSES)[votes.argmax(axis=1)]).astype(str)
    rows[list(VOTE_COLUMNS)] = votes
    rows[list(TARGET_COLUMNS)] = votes / votes.sum(axis=1, keepdims=True)
    return rows[list(ROW_COLUMNS)]


def rows_of(labels: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """The training rows of a configuration: the first table of ``split_rows``."""
    return split_rows(labels, config)[0]


def split_rows(labels: pd.DataFrame, config: DataConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training rows and the rows of held-out patients; see ``make_rows``.

    Patients are held out first, from all in ``labels``; ``n_patients`` are drawn from the
    others. The patients drawn for a smaller ``n_patients`` are among those for a larger one.

    Raises:
        DataError: see ``make_rows``.
        ConfigError: see ``held_out_patients``.
    """
    rows = make_rows(labels, config.unit, config.window)
    held_out = rows["patient_id"].isin(
        held_out_patients(labels, config.holdout, config.holdout_seed)
    )
    training = rows[~held_out].reset_index(drop=True)
    return _drawn(training, config), rows[held_out].reset_index(drop=True)


def _drawn(rows: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """The rows of ``n_patients`` patients, drawn at random."""
    if config.n_patients is None:
        return rows
    # Sorted, so that neither the order of the labels nor the row unit changes the draw.
    patients = np.unique(rows["patient_id"].to_numpy())
    drawn = np.random.default_rng(config.fold_seed).permutation(patients)[: config.n_patients]
    return rows[rows["patient_id"].isin(drawn)].reset_index(drop=True)


def _check_arguments(labels: pd.DataFrame, unit: str, window: str) -> None:
    for name, value, known in (("unit", unit, Unit), ("window", window, Window)):
        if value not in get_args(known):
            raise DataError(
                f"a row's {name} must be one of {', '.join(get_args(known))}", got=value
            )
    if labels.empty:
        raise DataError("the label table must have rows", got="none")
    totals = labels[list(VOTE_COLUMNS)].sum(axis=1).to_numpy()
    finite = np.isfinite(labels[list(OFFSET_COLUMNS)].to_numpy(np.float64)).all(axis=1)
    for rule, broken, got in (
        ("a label row must have votes", totals <= 0, f"a total of {totals.min()}"),
        ("both offsets of a label row must be finite", ~finite, "another value"),
    ):
        if broken.any():
            first = labels.iloc[int(np.argmax(broken))]
            raise DataError(
                rule,
                got=got,
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
    labels: pd.DataFrame, groups: Any, window: Window
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First EEG sample and first spectrogram row of the window of each group of ``labels``."""
    offsets = labels[list(OFFSET_COLUMNS)]
    ends = (groups[list(OFFSET_COLUMNS)].min() + groups[list(OFFSET_COLUMNS)].max()).to_numpy()
    if window == "nearest":
        number = groups.ngroup().to_numpy()
        distance = (offsets[OFFSET_COLUMNS[0]] - ends[number, 0] / 2).abs()
        # Of equals the first, which has the smallest sub id.
        ends = 2 * offsets.loc[distance.groupby(number).idxmin()].to_numpy()
    eeg_start = np.floor(ends[:, 0] * (EEG_RATE_HZ / 2)).astype(np.int64)
    return eeg_start, (ends[:, 1] // (2 * SPECTROGRAM_STEP_S)).astype(np.int64)
