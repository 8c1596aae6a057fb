"""The submission table: created and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hms_ray.competition.cells import whole_numbers, written
from hms_ray.competition.read import SAMPLE_FILE, TEST_FILE
from hms_ray.competition.schema import PROBABILITY_COLUMNS, SUBMISSION_COLUMNS
from hms_ray.competition.tables import read_table
from hms_ray.errors import DataError, PredictionError
from hms_ray.evaluate.metric import Array, check_distributions
from hms_ray.text import shortened_list

Ids = NDArray[np.int64]

SUM_LIMIT: Final = 1e-6
"""Largest deviation of a row's sum from 1 in a submission."""


def submission_ids(data_dir: Path, test_ids: Sequence[int]) -> list[int]:
    """The EEGs of a submission, in its order.

    Args:
        data_dir: competition folder.
        test_ids: the EEGs of ``test.csv``.

    Returns:
        Those of ``sample_submission.csv`` in its order; ``test_ids`` without that file.

    Raises:
        DataError: if the sample cannot be read, lists an EEG twice, or other EEGs than
            ``test.csv``.
    """
    file = data_dir / SAMPLE_FILE
    if not file.is_file():
        return list(test_ids)
    ids: list[int] = read_table(file).whole("eeg_id").tolist()
    if sorted(ids) != sorted(test_ids):
        other = sorted(set(ids) ^ set(test_ids)) or [k for k in set(ids) if ids.count(k) > 1]
        raise DataError(
            f"{SAMPLE_FILE} must list every EEG of {TEST_FILE} once, and no other",
            got=f"{len(ids)} rows for {len(test_ids)} EEGs",
            where=f"{file}, {shortened_list(other)}",
            fix="Use the files of one download, or remove this one.",
        )
    return ids


def make_submission(
    eeg_ids: Sequence[int],
    predicted_ids: ArrayLike,
    probabilities: ArrayLike,
    where: object = None,
) -> pd.DataFrame:
    """A submission from predictions.

    Args:
        eeg_ids: (n,) EEGs in the order of the submission.
        predicted_ids: (n,) the same EEGs in the order of the predictions.
        probabilities: (n, 6).
        where: the predictions' file, for messages.

    Returns:
        Columns ``SUBMISSION_COLUMNS``: int64 and six float64, renormalised in float64 so
        that they sum to 1 whatever the precision of the models.

    Raises:
        PredictionError: if an EEG is not predicted exactly once, or a row is not a
            distribution.
    """
    ids = np.asarray(predicted_ids, np.int64)
    _check_ids(ids, eeg_ids, where)
    try:
        checked = check_distributions(probabilities, "predictions", ids)
    except PredictionError as error:
        rows = _place(str(error.where), where)
        raise PredictionError(error.rule, got=error.got, where=rows) from None
    if len(checked) != len(ids):
        got = f"{len(checked)} for {len(ids)} EEGs"
        raise PredictionError("there must be one prediction per EEG", got=got, where=where)
    place = pd.Index(ids).get_indexer(pd.Index(eeg_ids))
    shares = checked[place] / checked[place].sum(axis=1, keepdims=True)
    table = pd.DataFrame({"eeg_id": np.asarray(eeg_ids, np.int64)})
    table[list(PROBABILITY_COLUMNS)] = shares
    return table


def check_submission(table: pd.DataFrame, eeg_ids: Sequence[int], where: object = None) -> None:
    """Refuses every submission that the competition would refuse, and more.

    Args:
        table: a submission.
        eeg_ids: (n,) EEGs that it must list, in this order.
        where: its file, for messages.

    Raises:
        PredictionError: if columns differ, EEGs are missing, unknown, listed twice or in
            another order, or probabilities are missing, outside 0 to 1 or do not sum to 1
            within ``SUM_LIMIT``.
    """
    if tuple(table.columns) != SUBMISSION_COLUMNS:
        raise PredictionError(
            f"a submission must have the columns {', '.join(SUBMISSION_COLUMNS)}, in this order",
            got=", ".join(map(str, table.columns)),
            where=where,
            fix="Write these columns in this order, and no index.",
        )
    ids = whole_ids(table["eeg_id"], where)
    _check_ids(ids, eeg_ids, where)
    moved = np.flatnonzero(ids != np.asarray(eeg_ids, np.int64))
    if len(moved):
        raise PredictionError(
            "EEGs must be in the order of the sample submission, without one of test.csv",
            got=f"{ids[moved[0]]} instead of {eeg_ids[moved[0]]} in row {moved[0] + 1}",
            where=where,
            fix="Sort the rows like the sample submission.",
        )
    _check_values(probabilities_in(table, where), ids, where)


def probabilities_in(table: pd.DataFrame, where: object = None) -> Array:
    """The six columns as (n, 6) float64, NaN for empty cells.

    Raises:
        PredictionError: if a column does not hold numbers.
    """
    for name in PROBABILITY_COLUMNS:
        if table[name].dtype.kind not in "iuf":
            raise PredictionError(
                f"{name} must hold numbers",
                got=str(table[name].dtype),
                where=where,
                fix="Write numbers in all cells of this column.",
            )
    return table[list(PROBABILITY_COLUMNS)].to_numpy(np.float64)


def whole_ids(column: pd.Series[Any], where: object = None) -> Ids:
    """A column of EEG ids as int64 (n,).

    Raises:
        PredictionError: if a cell is not a whole number.
    """
    ids, broken = whole_numbers(column)
    if broken.any():
        raise PredictionError(
            "eeg_id must be whole numbers",
            got=written(column[broken].iloc[0]),
            where=where,
            fix="Copy the ids of test.csv.",
        )
    return ids


def _check_ids(ids: Ids, expected: Sequence[int], where: object) -> None:
    """Raises unless the EEGs are the expected ones, each once, in any order."""
    found, wanted = pd.Index(ids), pd.Index(expected)
    twice = found[found.duplicated()].unique()
    missing = wanted.difference(found, sort=False)
    foreign = found.difference(wanted, sort=False)
    for rule, got, wrong, fix in (
        ("an EEG must be predicted once", "several rows", twice, "Keep one row of each EEG."),
        ("every test EEG must be predicted", "no row", missing, "Predict these EEGs too."),
        ("only test EEGs may be predicted", "a row", foreign, "Remove these rows."),
    ):
        if len(wrong):
            raise PredictionError(
                rule,
                got=f"{got} for {len(wrong)}",
                where=_place(f"EEG {shortened_list(wrong.tolist())}", where),
                fix=fix,
            )


def _check_values(values: Array, ids: Ids, where: object) -> None:
    sums = values.sum(axis=1)
    for rule, wrong in (
        ("probabilities must not be missing", np.isnan(values).any(axis=1)),
        ("probabilities must be from 0 to 1", ((values < 0) | (values > 1)).any(axis=1)),
        (f"probabilities must sum to 1 within {SUM_LIMIT:g}", np.abs(sums - 1) > SUM_LIMIT),
    ):
        if wrong.any():
            first = int(np.argmax(wrong))
            got = f"{sums[first]:.8g}" if "sum" in rule else str(values[first].tolist())
            raise PredictionError(
                rule,
                got=got,
                where=_place(f"EEG {shortened_list(ids[wrong].tolist())}", where),
                fix="Predict these EEGs again, or divide each row by its sum.",
            )


def _place(rows: str, where: object) -> str:
    return rows if where is None else f"{where}, {rows}"
