"""Patient-grouped folds: drawn, read from a table, checked."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hms_ray.competition.cells import id_texts
from hms_ray.competition.file_errors import WrongColumnsError
from hms_ray.competition.tables import folds_from_0, read_table
from hms_ray.errors import DataError
from hms_ray.storage.hashing import table_fingerprint
from hms_ray.text import counted, shortened_list

FOLD_COLUMNS: Final = ("row_id", "patient_id", "fold")
NOTES: Final = "notes"
"""Key in the ``attrs`` of a fold table that was read: lines to print about it."""
_FIX: Final = "Omit --folds to draw folds for these rows."


def make_folds(rows: pd.DataFrame, n_folds: int = 5, seed: int = 42) -> pd.DataFrame:
    """Draws folds such that no patient is in two and classes are evenly spread.

    Shuffled StratifiedGroupKFold, stratified by ``expert_consensus`` and grouped by
    ``patient_id``. Versions of scikit-learn draw differently, so a study stores its folds
    with its rows.

    Args:
        rows: training rows, see ``make_rows``; the result depends on their order.
        n_folds: at least 2.
        seed: seed of the shuffle.

    Returns:
        Columns ``row_id`` (text), ``patient_id`` and ``fold`` (int64, from 0),
        in the order of ``rows``.

    Raises:
        DataError: if there are fewer patients than folds, or a fold would be empty.
    """
    # Takes a second, which every worker and trial would spend too.
    from sklearn.model_selection import StratifiedGroupKFold

    n_patients = rows["patient_id"].nunique()
    if not 2 <= n_folds <= n_patients:
        raise DataError(
            "the number of folds must be from 2 to the number of patients",
            got=f"{counted(n_folds, 'fold')} for {counted(n_patients, 'patient')}",
            fix="Reduce data.n_folds, or use more patients.",
        )
    commonest = int(rows["expert_consensus"].value_counts().max())
    if commonest < n_folds:
        raise DataError(
            "the most frequent class must have at least one row per fold",
            got=f"{counted(commonest, 'row')} for {n_folds} folds",
            fix="Reduce data.n_folds, or use more rows.",
        )
    splitter = StratifiedGroupKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    fold = np.full(len(rows), -1, np.int64)
    parts = splitter.split(np.zeros(len(rows)), rows["expert_consensus"], rows["patient_id"])
    with warnings.catch_warnings():
        # It does not name the class; ``scarce_classes`` does.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        for number, (_, valid) in enumerate(parts):
            fold[valid] = number
    folds = rows[["row_id", "patient_id"]].reset_index(drop=True)
    folds["fold"] = fold
    check_folds(folds, rows, n_folds)
    return folds


def scarce_classes(rows: pd.DataFrame, n_folds: int) -> tuple[str, ...]:
    """One line about the classes with fewer rows than folds; empty if there are none."""
    counts = rows["expert_consensus"].value_counts()
    scarce = counts[counts < n_folds].sort_index()
    if scarce.empty:
        return ()
    classes = ", ".join(f"{name} {count}" for name, count in scarce.items())
    return (f"classes with fewer rows than the {n_folds} folds: {classes}",)


def read_folds(
    path: str | Path, rows: pd.DataFrame | None = None, n_folds: int | None = None
) -> pd.DataFrame:
    """Reads a fold table and matches it to rows.

    Args:
        path: parquet or csv with ``row_id`` and ``fold``, or, for rows of any unit,
            ``patient_id`` and ``fold``; folds count from 0 or from 1.
        rows: training rows, see ``make_rows``. If omitted, the table is returned in its own
            order, for ``fit_folds``.
        n_folds: expected number of folds, if known.

    Returns:
        See ``make_folds``; in the order of ``rows``.

    Raises:
        DataError: if the table is unreadable or does not fit the rows.
    """
    table = read_table(path)
    given = pd.DataFrame()
    ids, patients = table.column("row_id"), table.column("patient_id")
    if ids is None and patients is None:
        raise WrongColumnsError(
            "a fold table must have the columns fold and row_id or patient_id",
            got=shortened_list(table.names),
            where=table.path,
            fix="Rename its columns.",
        )
    if ids is not None:
        given["row_id"] = id_texts(ids)
    if patients is not None:
        given["patient_id"] = table.whole("patient_id")
    given["fold"], note = folds_from_0(table.whole("fold"), table.path)
    given.attrs[NOTES] = note
    try:
        return given if rows is None else fit_folds(given, rows, n_folds)
    except DataError as error:
        raise DataError(error.rule, got=error.got, where=table.path, fix=error.fix) from None


def fit_folds(given: pd.DataFrame, rows: pd.DataFrame, n_folds: int | None = None) -> pd.DataFrame:
    """Matches a fold table to rows and checks it.

    Args:
        given: columns ``fold`` and ``row_id`` or ``patient_id``, in any order.
        rows: training rows, see ``make_rows``.
        n_folds: expected number of folds, if known.

    Returns:
        See ``make_folds``; in the order of ``rows``.

    Raises:
        DataError: see ``check_folds``; or if columns are missing.
    """
    _check_columns(given)
    folds = _by_row(given, rows) if "row_id" in given else _by_patient(given, rows)
    check_folds(folds, rows, n_folds)
    return folds


def check_folds(folds: pd.DataFrame, rows: pd.DataFrame, n_folds: int | None = None) -> None:
    """Checks that a table with the columns ``FOLD_COLUMNS`` fits rows.

    Raises:
        DataError: if a row is missing, repeated, unknown or of another patient; if a
            patient is in two folds; if a fold is empty or not an integer from 0; or if the
            number of folds is not ``n_folds``.
    """
    missing_columns = [name for name in FOLD_COLUMNS if name not in folds]
    if missing_columns:
        raise DataError(
            f"a fold table must have {', '.join(FOLD_COLUMNS)}", got=f"no {missing_columns[0]}"
        )
    ids, known = folds["row_id"].astype(str), rows["row_id"]
    faults: dict[str, Any] = {
        "a fold table must not repeat rows": ids[ids.duplicated()].unique(),
        "a fold table must have every row, some are missing": known[~known.isin(ids)],
        "a fold table must not have unknown rows": ids[~ids.isin(known)],
    }
    for rule, faulty in faults.items():
        if len(faulty):
            raise DataError(rule, got=shortened_list(list(faulty), 1), fix=_FIX)
    patients = ids.map(rows.set_index("row_id")["patient_id"])
    other = (patients != folds["patient_id"]).to_numpy()
    if other.any():
        raise DataError(
            "a fold table must have the patient of each row",
            got=f"patient {folds['patient_id'].iloc[int(np.argmax(other))]}",
            where=f"row {ids.iloc[int(np.argmax(other))]}",
            fix=_FIX,
        )
    _check_numbers(folds, n_folds)


def _check_numbers(folds: pd.DataFrame, n_folds: int | None) -> None:
    fold = folds["fold"]
    if fold.dtype.kind not in "iu" or (fold < 0).any():
        raise DataError(
            "a fold must be an integer from 0",
            got=f"{fold.min()}" if fold.dtype.kind in "iuf" else f"{fold.iloc[0]!r}",
            fix=_FIX,
        )
    n_found = int(fold.max()) + 1
    expected = max(2, n_found) if n_folds is None else n_folds
    if n_found > expected:
        raise DataError(f"a fold table must have {expected} folds", got=f"{n_found}", fix=_FIX)
    missing = sorted(set(range(expected)) - set(fold))
    if missing:
        raise DataError(
            f"each of {expected} folds must have rows",
            got=f"no rows in fold {missing[0]}",
            fix="Reduce data.n_folds, or use other folds.",
        )
    crossing = folds.groupby("patient_id")["fold"].nunique()
    crossing = crossing[crossing > 1]
    if len(crossing):
        patient = crossing.index[0]
        found = sorted(set(fold[folds["patient_id"] == patient]))
        raise DataError(
            "a patient must be in one fold",
            got=f"patient {patient} in folds {', '.join(map(str, found))}",
            fix=_FIX,
        )


def folds_fingerprint(folds: pd.DataFrame) -> str:
    """SHA-256 (hex) of the fold of every row, independent of the order of rows."""
    table = folds[["row_id", "fold"]].astype({"row_id": str, "fold": np.int64})
    return table_fingerprint(table.sort_values("row_id"))


def _check_columns(given: pd.DataFrame) -> None:
    if "fold" not in given or not {"row_id", "patient_id"} & set(given):
        raise DataError(
            "a fold table must have the columns fold and row_id or patient_id",
            got=", ".join(map(str, given.columns)),
        )


def _by_row(given: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    folds = given.assign(row_id=given["row_id"].astype(str))
    if "patient_id" not in folds:
        folds["patient_id"] = folds["row_id"].map(rows.set_index("row_id")["patient_id"])
    folds = folds[list(FOLD_COLUMNS)]
    order = folds["row_id"].map(pd.Series(np.arange(len(rows)), index=rows["row_id"].to_numpy()))
    # Unknown rows are sorted last; the check reports them.
    return folds.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)


def _by_patient(given: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    patients = given[["patient_id", "fold"]].drop_duplicates()
    twice = patients["patient_id"][patients["patient_id"].duplicated()]
    if len(twice):
        got = f"patient {twice.iloc[0]} in two"
        raise DataError("a patient must be in one fold", got=got, fix=_FIX)
    folds = rows[["row_id", "patient_id"]].reset_index(drop=True)
    unknown = folds["patient_id"][~folds["patient_id"].isin(patients["patient_id"])]
    if len(unknown):
        got = f"no patient {unknown.iloc[0]}"
        raise DataError("a fold table must have every patient", got=got, fix=_FIX)
    return folds.merge(patients, on="patient_id", how="left", validate="many_to_one")
