"""Folds: no patient in two, every row in one, and a table that is checked when it is read."""

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
    write_folds,
)
from hms_ray.errors import DataError


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


def refusal(folds: pd.DataFrame, rows: pd.DataFrame = ROWS, n_folds: int | None = None) -> str:
    with pytest.raises(DataError) as caught:
        check_folds(folds, rows, n_folds)
    return str(caught.value)


@settings(max_examples=20, deadline=None)
@given(n_patients=st.integers(20, 60), n_folds=st.integers(2, 5), seed=st.integers(0, 2**32 - 1))
def test_no_patient_crosses_folds(n_patients: int, n_folds: int, seed: int) -> None:
    rows = make_table(n_patients, seed)
    folds = make_folds(rows, n_folds, seed)
    assert folds["row_id"].tolist() == rows["row_id"].tolist()
    assert folds["patient_id"].tolist() == rows["patient_id"].tolist()
    assert set(folds["fold"]) == set(range(n_folds))
    assert (folds.groupby("patient_id")["fold"].nunique() == 1).all()


def test_classes_are_spread(tmp_path: Path) -> None:
    rows = make_table(400)
    folds = make_folds(rows, 4)
    shares = pd.crosstab(folds["fold"], rows["expert_consensus"], normalize="index")
    overall = rows["expert_consensus"].value_counts(normalize=True)
    assert (shares - overall).abs().to_numpy().max() < 0.02


def test_the_seed_decides() -> None:
    pd.testing.assert_frame_equal(FOLDS, make_folds(ROWS, 3, seed=42))
    assert folds_fingerprint(FOLDS) == folds_fingerprint(make_folds(ROWS, 3, seed=42))
    assert folds_fingerprint(FOLDS) != folds_fingerprint(make_folds(ROWS, 3, seed=43))
    assert FOLDS.dtypes.astype(str).to_dict() == {
        "row_id": str(ROWS["row_id"].dtype),
        "patient_id": "int64",
        "fold": "int64",
    }


def test_fingerprint_does_not_follow_the_order() -> None:
    assert folds_fingerprint(FOLDS[::-1]) == folds_fingerprint(FOLDS)
    moved = FOLDS.assign(fold=FOLDS["fold"].replace({0: 1, 1: 0}))
    assert folds_fingerprint(moved) != folds_fingerprint(FOLDS)


def test_too_many_folds() -> None:
    with pytest.raises(DataError) as caught:
        make_folds(ROWS, 31)
    assert str(caught.value) == (
        "folds must number from 2 to the number of patients, got 31 folds for 30 patients. "
        "Set data.n_folds, or use more patients."
    )
    few = ROWS.drop_duplicates("patient_id")[:6].assign(expert_consensus=list(CLASSES))
    with pytest.raises(DataError) as caught:
        make_folds(few, 2)
    assert str(caught.value) == (
        "the commonest class must have a row for each fold, got 1 row for 2 folds. "
        "Set data.n_folds, or use more rows."
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_written_and_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / "study" / f"folds.{suffix}"
    write_folds(file, FOLDS.assign(note="x").sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(read_folds(file, ROWS, 3), FOLDS)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    raw = read_folds(file)
    assert tuple(raw.columns) == ("row_id", "patient_id", "fold")
    pd.testing.assert_frame_equal(fit_folds(raw, ROWS), FOLDS)


def test_tables_with_fewer_columns(tmp_path: Path) -> None:
    file = tmp_path / "folds.csv"
    FOLDS[["row_id", "fold"]].to_csv(file, index=False)
    pd.testing.assert_frame_equal(read_folds(file, ROWS), FOLDS)
    # By patient: fits rows of any unit.
    FOLDS[["patient_id", "fold"]].drop_duplicates().to_csv(file, index=False)
    pd.testing.assert_frame_equal(read_folds(file, ROWS), FOLDS)
    by_eeg = ROWS.drop_duplicates("patient_id").assign(
        row_id=lambda rows: rows["patient_id"].astype(str)
    )
    assert read_folds(file, by_eeg)["fold"].nunique() == 3


def test_row_ids_that_look_like_numbers(tmp_path: Path) -> None:
    rows = ROWS.assign(row_id=[str(k) for k in range(len(ROWS))])
    write_folds(tmp_path / "folds.csv", make_folds(rows, 3))
    pd.testing.assert_frame_equal(read_folds(tmp_path / "folds.csv", rows), make_folds(rows, 3))


def test_unreadable_tables(tmp_path: Path) -> None:
    def message(name: str) -> str:
        with pytest.raises(DataError) as caught:
            read_folds(tmp_path / name, ROWS)
        return str(caught.value)

    assert message("a.csv") == f"a fold table must exist, in {tmp_path / 'a.csv'}"
    assert message("a.txt") == (
        f"a fold table must be a .parquet or .csv file, in {tmp_path / 'a.txt'}"
    )
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    assert message("b.parquet").startswith("a fold table must be readable, got ")
    (tmp_path / "c.csv").write_text("eeg_id,split\n1,2\n")
    assert message("c.csv") == (
        "a fold table needs the columns fold and row_id or patient_id, got eeg_id, split, "
        f"in {tmp_path / 'c.csv'}"
    )
    FOLDS[1:].to_csv(tmp_path / "d.csv", index=False)
    assert message("d.csv") == (
        f"a fold table must hold every row, got none for 0-0, in {tmp_path / 'd.csv'}. "
        "Leave out --folds to make folds for these rows."
    )


def test_rows_that_do_not_fit() -> None:
    fix = "Leave out --folds to make folds for these rows."
    assert refusal(pd.concat([FOLDS, FOLDS[:2]])) == (
        f"a fold table must hold each row once, got 0-0 more than once and 1 more. {fix}"
    )
    assert refusal(FOLDS[3:]) == (
        f"a fold table must hold every row, got none for 0-0 and 2 more. {fix}"
    )
    assert refusal(FOLDS, ROWS[1:]) == f"a fold table must hold no other rows, got 0-0. {fix}"
    other = FOLDS.assign(patient_id=FOLDS["patient_id"].where(FOLDS["row_id"] != "1-0", 7))
    assert refusal(other) == (
        f"a fold table must name each row's patient, got patient 7, in row 1-0. {fix}"
    )
    assert refusal(FOLDS.drop(columns="patient_id")) == (
        "a fold table must hold row_id, patient_id, fold, got no patient_id"
    )


def test_fold_numbers() -> None:
    assert refusal(FOLDS, n_folds=2) == (
        "a fold table must have 2 folds, got 3. Leave out --folds to make folds for these rows."
    )
    assert refusal(FOLDS, n_folds=4) == "each of 4 folds must have rows, got none in fold 3"
    assert refusal(FOLDS.assign(fold=FOLDS["fold"] * 2)) == (
        "each of 5 folds must have rows, got none in fold 1"
    )
    assert refusal(FOLDS.assign(fold=0)) == "each of 2 folds must have rows, got none in fold 1"
    assert refusal(FOLDS.assign(fold=FOLDS["fold"] - 1)) == (
        "a fold must be a whole number from 0, got -1"
    )
    assert refusal(FOLDS.assign(fold=FOLDS["fold"] + 0.5)) == (
        "a fold must be a whole number from 0, got 0.5"
    )
    assert refusal(FOLDS.assign(fold="first")) == (
        "a fold must be a whole number from 0, got 'first'"
    )


def test_patient_in_two_folds() -> None:
    patient = FOLDS["patient_id"].value_counts().index[0]
    row = FOLDS.index[FOLDS["patient_id"] == patient][0]
    crossing = FOLDS.copy()
    crossing.loc[row, "fold"] = (FOLDS["fold"][row] + 1) % 3
    first, second = sorted({FOLDS["fold"][row], crossing["fold"][row]})
    assert refusal(crossing) == (
        f"a patient must be in one fold, got patient {patient} in folds {first}, {second}"
    )
    with pytest.raises(DataError, match=f"one fold, got patient {patient} in two"):
        fit_folds(crossing[["patient_id", "fold"]], ROWS)
    with pytest.raises(DataError, match="hold every patient, got none for patient 100"):
        fit_folds(FOLDS.loc[FOLDS["patient_id"] != 100, ["patient_id", "fold"]], ROWS)


def test_classes_of_fewer_rows_than_folds_are_told_instead_of_a_warning(
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
    assert line == "classes of too few rows for all 5 folds: GPD 4, Other 1"
    assert scarce_classes(rows[:10], 5) == ()
