from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.errors import PredictionError
from hms_ray.evaluate.oof import (
    OOF_COLUMNS,
    align_oof,
    check_oof,
    join_oof,
    make_oof,
    probabilities_of,
    read_oof,
    write_oof,
)

N_ROWS = 12


@pytest.fixture
def rows() -> pd.DataFrame:
    number = np.arange(N_ROWS)
    return pd.DataFrame(
        {
            "row_id": [f"{100 + n // 2}-{n % 2}" for n in number],
            "eeg_id": 100 + number // 2,
            "patient_id": 7 + number // 4,
            "fold": number // 4,
        }
    )


@pytest.fixture
def oof(rows: pd.DataFrame) -> pd.DataFrame:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(6), size=N_ROWS)
    return make_oof(rows, rows["fold"], probabilities)


def test_tables_have_the_schema(oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    assert tuple(oof.columns) == OOF_COLUMNS
    assert [str(oof[name].dtype) for name in OOF_COLUMNS[1:]] == ["int64"] * 3 + ["float64"] * 6
    check_oof(oof, rows)
    one = make_oof(rows.iloc[4:8], 1, np.full((4, 6), 1 / 6, dtype=np.float32))
    assert one["fold"].tolist() == [1] * 4
    assert one.index.tolist() == [0, 1, 2, 3]


def test_other_lengths_and_invalid_rows_are_refused(rows: pd.DataFrame) -> None:
    with pytest.raises(PredictionError, match="one prediction for each row, got 3 for 12 rows"):
        make_oof(rows, 0, np.full((3, 6), 1 / 6))
    with pytest.raises(PredictionError, match="must sum to 1"):
        make_oof(rows, 0, np.ones((N_ROWS, 6)))


def test_folds_join_in_the_order_of_the_rows(oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    parts = [part for _, part in oof.groupby("fold")][::-1]
    pd.testing.assert_frame_equal(join_oof(parts, rows), oof)
    with pytest.raises(PredictionError, match="at least one fold"):
        join_oof([], rows)


def test_shuffled_tables_are_aligned(oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    shuffled = oof.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(align_oof(shuffled, rows), oof)
    np.testing.assert_array_equal(
        probabilities_of(align_oof(shuffled, rows)), probabilities_of(oof)
    )


def test_missing_rows_are_named(oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    message = r"every training row must be predicted, got 2 of 12 missing.*: 101-0, 105-1"
    with pytest.raises(PredictionError, match=message):
        check_oof(oof.drop(index=[2, 11]), rows)


def test_unknown_rows_are_named(oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    with pytest.raises(PredictionError, match=r"only training rows may be.*1 row\(s\): 103-1"):
        check_oof(oof, rows.drop(index=7))


def test_repeated_rows_are_named(oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    with pytest.raises(PredictionError, match=r"a row must be predicted once.*1 row\(s\): 100-1"):
        check_oof(pd.concat([oof, oof.iloc[[1, 1]]]), rows)


@pytest.mark.parametrize(
    ("value", "rule"), [(-0.5, "not be negative"), (np.nan, "finite"), (0.99, "sum to 1")]
)
def test_invalid_distributions_are_named(
    oof: pd.DataFrame, rows: pd.DataFrame, value: float, rule: str
) -> None:
    oof.loc[3, PROBABILITY_COLUMNS[0]] = value
    with pytest.raises(PredictionError, match=rf"{rule}.*in trial 4, 1 row\(s\): 101-1"):
        check_oof(oof, rows, where="trial 4")


@pytest.mark.parametrize("column", ["eeg_id", "patient_id", "fold"])
def test_keys_must_agree_with_the_rows(oof: pd.DataFrame, rows: pd.DataFrame, column: str) -> None:
    oof.loc[[5, 6], column] = 999
    message = rf"the {column} of a prediction must be that of its row, got 999 and not .*"
    with pytest.raises(PredictionError, match=message + r"2 row\(s\): 102-1, 103-0"):
        check_oof(oof.sample(frac=1, random_state=1).sort_index(), rows)


def test_folds_are_checked_only_if_rows_have_them(oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    oof["fold"] = 3
    check_oof(oof, rows.drop(columns="fold"))
    with pytest.raises(PredictionError, match="the fold of a prediction"):
        check_oof(oof, rows)


def test_columns_and_types_are_checked(oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    with pytest.raises(PredictionError, match="got no fold, lpd_vote"):
        check_oof(oof.drop(columns=["fold", "lpd_vote"]), rows)
    with pytest.raises(PredictionError, match="eeg_id must be whole numbers, got float64"):
        check_oof(oof.astype({"eeg_id": "float64"}), rows)
    with pytest.raises(PredictionError, match="lpd_vote must be floating-point numbers"):
        check_oof(oof.assign(lpd_vote="a"), rows)
    with pytest.raises(PredictionError, match="row_id must be text, got int64"):
        check_oof(oof.assign(row_id=np.arange(N_ROWS)), rows)
    with pytest.raises(PredictionError, match="every prediction must have a row_id"):
        check_oof(oof.assign(row_id=[None, *oof["row_id"][1:]]), rows)


def test_files_round_trip_exactly(tmp_path: Path, oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    path = tmp_path / "trial" / "oof.parquet"
    write_oof(path, oof.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(read_oof(path, rows), oof, check_exact=True)
    assert [file.name for file in path.parent.iterdir()] == ["oof.parquet"]
    assert len(read_oof(path)) == N_ROWS


def test_invalid_tables_are_not_written(tmp_path: Path, oof: pd.DataFrame) -> None:
    with pytest.raises(PredictionError, match="got no fold"):
        write_oof(tmp_path / "oof.parquet", oof.drop(columns="fold"))
    assert not list(tmp_path.iterdir())


def test_files_are_checked(tmp_path: Path, oof: pd.DataFrame, rows: pd.DataFrame) -> None:
    path = tmp_path / "oof.parquet"
    with pytest.raises(PredictionError, match=r"must exist, in .*oof\.parquet"):
        read_oof(path)
    write_oof(path, oof.iloc[1:])
    with pytest.raises(PredictionError, match=r"1 of 12 missing, in .*oof\.parquet, 1 row.*100-0"):
        read_oof(path, rows)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PredictionError, match=r"complete parquet file, got .*, in .*oof\.parquet"):
        read_oof(path)
    oof.drop(columns="fold").to_parquet(path)
    with pytest.raises(PredictionError, match="got no fold"):
        read_oof(path)
