"""Folds: drawn, read, matched to rows, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.competition.schema import CLASSES
from hms_ray.dataset.folds import (
    check_folds,
    fit_folds,
    folds_fingerprint,
    make_folds,
    read_folds,
    scarce_classes,
)
from hms_ray.errors import DataError
from tests.blend_data import written
from tests.refused import refusal


def make_table(n_patients: int = 30, seed: int = 0) -> pd.DataFrame:
    """Rows of patients with one to six EEGs each, classes drawn."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients) + 100, rng.integers(1, 7, n_patients))
    return pd.DataFrame(
        {
            "row_id": [f"{k}-0" for k in range(len(patients))],
            "patient_id": patients,
            "expert_consensus": rng.choice(CLASSES, len(patients)),
        }
    )


ROWS = make_table()
FOLDS = make_folds(ROWS, 3, seed=42)


DRAWS = {
    "n_patients": st.integers(20, 60),
    "n_folds": st.integers(2, 5),
    "seed": st.integers(0, 2**32 - 1),
}


@settings(max_examples=20, deadline=None)
@given(**DRAWS)
def test_every_row_is_in_one_fold_and_no_patient_in_two(
    n_patients: int, n_folds: int, seed: int
) -> None:
    rows = make_table(n_patients, seed)
    folds = make_folds(rows, n_folds, seed)
    assert folds["row_id"].tolist() == rows["row_id"].tolist()
    assert folds["patient_id"].tolist() == rows["patient_id"].tolist()
    assert set(folds["fold"]) == set(range(n_folds))
    assert (folds.groupby("patient_id")["fold"].nunique() == 1).all()
    assert folds.dtypes[["patient_id", "fold"]].tolist() == [np.int64, np.int64]
    pd.testing.assert_frame_equal(make_folds(rows, n_folds, seed), folds)


@settings(max_examples=8, deadline=None)
@given(
    **DRAWS,
    suffix=st.sampled_from(["csv", "parquet"]),
    columns=st.sampled_from(
        [["row_id", "fold"], ["patient_id", "fold"], ["fold", "row_id", "patient_id"]]
    ),
    numeric_ids=st.booleans(),
)
def test_fold_table_in_any_order_and_form_fits_its_rows(
    tmp_path_factory: pytest.TempPathFactory,
    n_patients: int,
    n_folds: int,
    seed: int,
    suffix: str,
    columns: list[str],
    numeric_ids: bool,
) -> None:
    rows = make_table(n_patients, seed)
    if numeric_ids:
        rows["row_id"] = [str(k) for k in range(len(rows))]
    folds = make_folds(rows, n_folds, seed)
    table = folds[columns].sample(frac=1, random_state=seed).assign(note="x")
    file = tmp_path_factory.mktemp("folds") / f"folds.{suffix}"
    pd.testing.assert_frame_equal(read_folds(written(file, table), rows, n_folds), folds)
    pd.testing.assert_frame_equal(fit_folds(read_folds(file), rows), folds)
    assert folds_fingerprint(fit_folds(table, rows)) == folds_fingerprint(folds)


def test_classes_are_spread() -> None:
    rows = make_table(400)
    folds = make_folds(rows, 4)
    shares = pd.crosstab(folds["fold"], rows["expert_consensus"], normalize="index")
    overall = rows["expert_consensus"].value_counts(normalize=True)
    assert (shares - overall).abs().to_numpy().max() < 0.02


def test_fingerprint_follows_the_folds() -> None:
    assert folds_fingerprint(FOLDS) != folds_fingerprint(make_folds(ROWS, 3, seed=43))
    moved = FOLDS.assign(fold=FOLDS["fold"].replace({0: 1, 1: 0}))
    assert folds_fingerprint(moved) != folds_fingerprint(FOLDS)


def test_too_many_folds_are_refused() -> None:
    with refusal(DataError, "number of patients", got="31 folds for 30 patients"):
        make_folds(ROWS, 31)
    few = ROWS.drop_duplicates("patient_id")[:6].assign(expert_consensus=list(CLASSES))
    with refusal(DataError, "most frequent class", got="1 row for 2 folds", fix="data.n_folds"):
        make_folds(few, 2)


def test_fold_table_by_patient_fits_rows_of_any_unit() -> None:
    by_eeg = ROWS.drop_duplicates("patient_id").assign(
        row_id=lambda rows: rows["patient_id"].astype(str)
    )
    assert fit_folds(FOLDS[["patient_id", "fold"]], by_eeg)["fold"].nunique() == 3


@pytest.mark.parametrize(
    ("name", "content", "rule", "got"),
    [
        ("a.csv", None, "must exist", ""),
        ("a.txt", None, ".csv or .parquet", ""),
        ("a.parquet", "PAR1", "must be a complete parquet file", ""),
        ("a.csv", "eeg_id,split\n1,2\n", "fold and row_id or patient_id", "eeg_id, split"),
        ("a.csv", FOLDS[1:].to_csv(index=False), "every row", "0-0"),
    ],
)
def test_unreadable_or_unfit_table_is_refused(
    tmp_path: Path, name: str, content: str | None, rule: str, got: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with refusal(DataError, rule, got=got, where=str(file)):
        read_folds(file, ROWS)


OTHER_PATIENT = FOLDS.assign(patient_id=FOLDS["patient_id"].where(FOLDS["row_id"] != "1-0", 7))


@pytest.mark.parametrize(
    ("folds", "rows", "rule", "got"),
    [
        (pd.concat([FOLDS, FOLDS[:2]]), ROWS, "not repeat", "0-0 and 1 more"),
        (FOLDS[3:], ROWS, "every row", "0-0 and 2 more"),
        (FOLDS, ROWS[1:], "unknown rows", "0-0"),
        (OTHER_PATIENT, ROWS, "patient of each row", "patient 7"),
        (FOLDS.drop(columns="patient_id"), ROWS, "row_id, patient_id, fold", "no patient_id"),
        (FOLDS.assign(fold=FOLDS["fold"] * 2), ROWS, "each of 5", "no rows in fold 1"),
        (FOLDS.assign(fold=0), ROWS, "each of 2", "no rows in fold 1"),
        (FOLDS.assign(fold=FOLDS["fold"] - 1), ROWS, "integer from 0", "-1"),
        (FOLDS.assign(fold=FOLDS["fold"] + 0.5), ROWS, "integer from 0", "0.5"),
        (FOLDS.assign(fold="first"), ROWS, "integer from 0", "'first'"),
    ],
)
def test_folds_that_do_not_fit_are_refused(
    folds: pd.DataFrame, rows: pd.DataFrame, rule: str, got: str
) -> None:
    with refusal(DataError, rule, got=got):
        check_folds(folds, rows)


def test_another_number_of_folds_is_refused() -> None:
    with refusal(DataError, "a fold table must have 2 folds", got="3"):
        check_folds(FOLDS, ROWS, 2)
    with refusal(DataError, "each of 4 folds", got="no rows in fold 3"):
        check_folds(FOLDS, ROWS, 4)


def test_patient_in_two_folds_is_refused() -> None:
    patient = FOLDS["patient_id"].value_counts().index[0]
    row = FOLDS.index[FOLDS["patient_id"] == patient][0]
    crossing = FOLDS.copy()
    crossing.loc[row, "fold"] = (FOLDS["fold"][row] + 1) % 3
    first, second = sorted({FOLDS["fold"][row], crossing["fold"][row]})
    rule = "a patient must be in one fold"
    with refusal(DataError, rule, got=f"patient {patient} in folds {first}, {second}"):
        check_folds(crossing, ROWS)
    with refusal(DataError, rule, got=f"patient {patient} in two"):
        fit_folds(crossing[["patient_id", "fold"]], ROWS)
    with refusal(DataError, "every patient", got="no patient 100"):
        fit_folds(FOLDS.loc[FOLDS["patient_id"] != 100, ["patient_id", "fold"]], ROWS)


def test_classes_with_fewer_rows_than_folds_are_reported_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    classes = ["Seizure"] * 10 + ["GPD"] * 4 + ["LPD"] * 5 + ["Other"]
    rows = pd.DataFrame(
        {
            "row_id": [f"{k}-0" for k in range(20)],
            "patient_id": range(20),
            "expert_consensus": classes,
        }
    )
    assert make_folds(rows, 5)["fold"].nunique() == 5
    assert [str(warning.message) for warning in recwarn] == []
    (line,) = scarce_classes(rows, 5)
    assert line == "classes with fewer rows than the 5 folds: GPD 4, Other 1"
    assert scarce_classes(rows[:10], 5) == ()
