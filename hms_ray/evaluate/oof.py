"""Tables of out-of-fold predictions: make, check, join, read and write.

One row per training row, predicted by the model of the fold that did not train on it.
Tables with missing, repeated or unknown rows or invalid distributions are refused, because
they would silently make every score wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.competition.tables import read_table
from hms_ray.errors import DataError, PredictionError
from hms_ray.evaluate.metric import Array, check_distributions
from hms_ray.storage.atomic import whole_file
from hms_ray.text import shortened_list

KEY_COLUMNS: Final = ("row_id", "eeg_id", "patient_id", "fold")
OOF_COLUMNS: Final = (*KEY_COLUMNS, *PROBABILITY_COLUMNS)
"""Text, three int64, six float64."""

OPTIMISTIC: Final = "optimistic"
"""Key in a table's ``attrs``, and so in its parquet file: True if weights or checkpoints
behind the predictions were chosen on the same rows."""

_FIX: Final = "Predict again with the study's own rows and folds."


def make_oof(rows: pd.DataFrame, fold: ArrayLike, probabilities: ArrayLike) -> pd.DataFrame:
    """A table of predictions of some training rows.

    Args:
        rows: (n rows) with ``row_id``, ``eeg_id`` and ``patient_id``.
        fold: fold whose model predicted them, one number or (n,).
        probabilities: (n, 6).

    Returns:
        Columns ``OOF_COLUMNS`` in the order of ``rows``, index from 0.

    Raises:
        PredictionError: lengths differ, or a row is not a distribution.
    """
    checked = check_distributions(probabilities, "predictions")
    if len(checked) != len(rows):
        raise PredictionError(
            "there must be one prediction for each row", got=f"{len(checked)} for {len(rows)} rows"
        )
    oof = pd.DataFrame(
        {
            "row_id": rows["row_id"].astype(str).to_numpy(),
            "eeg_id": rows["eeg_id"].to_numpy(np.int64),
            "patient_id": rows["patient_id"].to_numpy(np.int64),
            "fold": np.broadcast_to(np.asarray(fold, np.int64), len(rows)),
        }
    )
    oof[list(PROBABILITY_COLUMNS)] = checked
    return oof


def join_oof(parts: Iterable[pd.DataFrame], rows: pd.DataFrame) -> pd.DataFrame:
    """Joins the tables of all folds, in the order of the training rows.

    Args:
        parts: tables with ``OOF_COLUMNS``, in any order.
        rows: the training rows that they must cover exactly.

    Raises:
        PredictionError: as ``check_oof``.
    """
    tables = list(parts)
    if not tables:
        raise PredictionError("there must be predictions of at least one fold", got="none")
    return align_oof(pd.concat(tables, ignore_index=True), rows)


def align_oof(oof: pd.DataFrame, rows: pd.DataFrame, where: object = None) -> pd.DataFrame:
    """The table in the order of the training rows, after ``check_oof``."""
    positions = _checked_positions(oof, rows, where)
    aligned: pd.DataFrame = oof[list(OOF_COLUMNS)]
    if positions is not None:
        aligned = aligned.iloc[np.argsort(positions)]
    return aligned.reset_index(drop=True)


def probabilities_of(oof: pd.DataFrame) -> Array:
    """The six probabilities as (n, 6) float64, in the order of the table."""
    return oof[list(PROBABILITY_COLUMNS)].to_numpy(np.float64)


def check_oof(oof: pd.DataFrame, rows: pd.DataFrame, where: object = None) -> None:
    """Checks that predictions cover the training rows, each exactly once.

    Args:
        oof: columns ``OOF_COLUMNS``, rows in any order.
        rows: training rows with ``row_id``, ``eeg_id`` and ``patient_id``; a ``fold`` is
            checked too, if they have it.
        where: file or study, for messages.

    Raises:
        PredictionError: missing columns or values, repeated, unknown or missing rows, invalid
            distributions, or other EEGs, patients or folds than the rows'; names the rows.
    """
    _checked_positions(oof, rows, where)


def _checked_positions(
    oof: pd.DataFrame, rows: pd.DataFrame, where: object
) -> NDArray[np.intp] | None:
    """Position (n,) of each prediction's row; None if they have the order of the rows."""
    _check_columns(oof, where)
    ids, known = pd.Index(oof["row_id"]), pd.Index(rows["row_id"].astype(str))
    # The usual case: its rows need not be looked up.
    ordered = known.is_unique and ids.equals(known)
    if not ordered:
        _check_ids(ids, known, where)
    try:
        check_distributions(probabilities_of(oof), "predictions", oof["row_id"].to_numpy())
    except PredictionError as error:
        raise PredictionError(
            error.rule, got=error.got, where=_place(error.where, where), fix=_FIX
        ) from None
    positions = None if ordered else known.get_indexer(ids)
    for column in ("eeg_id", "patient_id", "fold"):
        if column not in rows:
            continue
        expected = rows[column].to_numpy()
        expected = expected if positions is None else expected[positions]
        wrong = np.flatnonzero(oof[column].to_numpy() != expected)
        if len(wrong):
            first = wrong[0]
            raise _refused(
                f"the {column} of a prediction must be that of its row",
                f"{oof[column].iloc[first]} and not {expected[first]}",
                ids[wrong],
                where,
            )
    return positions


def _check_ids(ids: pd.Index[str], known: pd.Index[str], where: object) -> None:
    repeated = ids[ids.duplicated()].unique()
    if len(repeated):
        raise _refused("a row must be predicted once", "several predictions", repeated, where)
    foreign = ids.difference(known, sort=False)
    if len(foreign):
        raise _refused("only training rows may be predicted", "unknown rows", foreign, where)
    missing = known.difference(ids, sort=False)
    if len(missing):
        rule = "every training row must be predicted"
        raise _refused(rule, f"{len(missing)} of {len(known)} missing", missing, where)


def write_oof(path: str | Path, oof: pd.DataFrame) -> None:
    """Writes a table as parquet, whole or not at all.

    Raises:
        PredictionError: columns are missing or have missing values.
    """
    path = Path(path)
    _check_columns(oof, path)
    table = pa.Table.from_pandas(oof[list(OOF_COLUMNS)], preserve_index=False)
    with whole_file(path) as draft:
        pq.write_table(table, draft)


def read_oof(path: str | Path, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """Reads a table that ``write_oof`` wrote.

    Args:
        path: parquet file.
        rows: training rows; if given, the table is checked against them and ordered like
            them.

    Raises:
        PredictionError: the file is missing, unreadable or lacks columns; or as
            ``check_oof``.
    """
    path = Path(path)
    try:
        oof = read_table(path).cells
    except DataError as error:
        raise PredictionError(
            error.rule, got=error.got, where=path, fix="Train its fold again."
        ) from None
    if rows is not None:
        return align_oof(oof, rows, path)
    _check_columns(oof, path)
    return oof[list(OOF_COLUMNS)]


def _check_columns(oof: pd.DataFrame, where: object) -> None:
    missing = [name for name in OOF_COLUMNS if name not in oof]
    if missing:
        raise PredictionError(
            f"predictions must have the columns {', '.join(OOF_COLUMNS)}",
            got=f"no {', '.join(missing)}",
            where=where,
            fix=_FIX,
        )
    if oof["row_id"].isna().any():
        raise PredictionError(
            "every prediction must have a row_id", got="none", where=where, fix=_FIX
        )
    if not pd.api.types.is_string_dtype(oof["row_id"]):
        raise PredictionError(
            "row_id must be text", got=str(oof["row_id"].dtype), where=where, fix=_FIX
        )
    dtypes = oof.dtypes
    for name in OOF_COLUMNS[1:]:
        whole, dtype = name in KEY_COLUMNS, dtypes[name]
        fits = pd.api.types.is_integer_dtype if whole else pd.api.types.is_float_dtype
        # NumPy's whole numbers have no missing values.
        maybe_missing = whole and not isinstance(dtype, np.dtype)
        if not fits(dtype) or (maybe_missing and oof[name].isna().any()):
            kind = "whole numbers" if whole else "floating-point numbers"
            raise PredictionError(f"{name} must be {kind}", got=str(dtype), where=where, fix=_FIX)


def _refused(rule: str, got: str, ids: pd.Index[str], where: object) -> PredictionError:
    place = _place(f"{len(ids)} row(s): {shortened_list(ids.tolist())}", where)
    return PredictionError(rule, got=got, where=place, fix=_FIX)


def _place(rows: object, where: object) -> str:
    return f"{where}, {rows}" if where is not None else str(rows)
