"""What a submission is made of, every way in which it is refused, and its files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.errors import ConfigError, DataError, PredictionError
from hms_ray.predict import files
from hms_ray.predict.files import read_predictions, write_predictions, write_submission
from hms_ray.predict.submission import (
    SUBMISSION_COLUMNS,
    check_submission,
    make_submission,
    submission_ids,
)

IDS = [30, 10, 20]


def shares(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(6), size=n)


@pytest.fixture
def table() -> pd.DataFrame:
    return make_submission(IDS, IDS, shares())


def test_predictions_come_into_the_order_of_the_submission() -> None:
    made = make_submission([10, 20, 30], IDS, shares())
    assert tuple(made.columns) == SUBMISSION_COLUMNS
    assert made["eeg_id"].tolist() == [10, 20, 30]
    np.testing.assert_allclose(made[list(PROBABILITY_COLUMNS)], shares()[[1, 2, 0]], atol=1e-15)


def test_what_rounding_left_is_made_up_for() -> None:
    """Six shares of six decimals pass as predictions, and not as a submission."""
    rounded = shares(500).round(6) + np.eye(6)[0] * 3e-6
    assert np.abs(rounded.sum(axis=1) - 1).max() > 1e-6
    made = make_submission(range(500), range(500), rounded)
    assert np.abs(made[list(PROBABILITY_COLUMNS)].sum(axis=1) - 1).max() < 1e-15
    check_submission(made, range(500))
    float32 = shares(500).astype(np.float32)
    made = make_submission(range(500), range(500), float32)
    assert np.abs(made[list(PROBABILITY_COLUMNS)].sum(axis=1) - 1).max() < 1e-15


def test_a_certain_prediction_is_a_submission() -> None:
    check_submission(make_submission(IDS, IDS, np.eye(6)[[0, 5, 2]]), IDS)


@pytest.mark.parametrize(
    ("ids", "values", "message"),
    [
        ([30, 10, 10], shares(), r"an EEG must be predicted once, got several rows for 1, in f,"),
        ([30, 10], shares(2), r"every test EEG must be predicted, got no row for 1, in f, EEG 20$"),
        ([*IDS, 7], shares(4), r"only test EEGs may be predicted, got a row for 1, in f, EEG 7$"),
        (IDS, shares(2), r"there must be one prediction an EEG, got 2 for 3 EEGs, in f$"),
        (IDS, 2 * shares(), r"each row of predictions must sum to 1 .*, in f, 3 row\(s\): 30, 10"),
        (IDS, np.full((3, 6), np.nan), r"predictions must be finite numbers, .*, in f, 3 row\(s\)"),
    ],
)
def test_predictions_that_make_no_submission_are_refused(
    ids: list[int], values: np.ndarray, message: str
) -> None:
    with pytest.raises(PredictionError, match=f"^{message}"):
        make_submission(IDS, ids, values, "f")


def with_value(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table.infer_objects()

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t[["eeg_id", "lpd_vote", "seizure_vote", *SUBMISSION_COLUMNS[3:]]],
            r"must have the columns eeg_id, seizure_.*, in this order, got eeg_id, lpd_v.*, in f$",
        ),
        (lambda t: t.drop(columns="other_vote"), r"must have the columns .*, got eeg_id, .*grda_v"),
        (lambda t: t.assign(extra=1), r"must have the columns .*, other_vote, extra, in f$"),
        (with_value("eeg_id", 1, 10.5), r"eeg_id must be whole numbers, got 10\.5, in f$"),
        (with_value("eeg_id", 1, np.nan), r"eeg_id must be whole numbers, got an empty value"),
        (lambda t: t[:2], r"every test EEG must be predicted, got no row for 1, in f, EEG 20$"),
        (
            lambda t: pd.concat([t, t[1:]]),
            r"an EEG must be predicted once, got several rows for 2, in f, EEG 10, 20$",
        ),
        (
            lambda t: pd.concat([t, t[:1].assign(eeg_id=5)]),
            r"only test EEGs may be predicted, got a row for 1, in f, EEG 5$",
        ),
        (
            lambda t: t[::-1],
            r"in the order of the sample submission, .*, got 20 and not 30 in row 1, in f$",
        ),
        (with_value("gpd_vote", 1, "high"), r"gpd_vote must hold numbers, got (object|str), in f$"),
        (
            with_value("gpd_vote", 1, np.nan),
            r"probabilities must not be missing, got \[.*nan.*\], in f, EEG 10$",
        ),
        (
            with_value("gpd_vote", 2, -0.1),
            r"probabilities must be from 0 to 1, got \[.*-0\.1.*\], in f, EEG 20$",
        ),
        (with_value("gpd_vote", 2, np.inf), r"probabilities must be from 0 to 1, got \[.*inf"),
        (
            lambda t: t.assign(other_vote=t["other_vote"] + [0, 2e-6, 0]),
            r"probabilities must sum to 1 within 1e-06, got 1\.000002, in f, EEG 10$",
        ),
    ],
)
def test_a_submission_that_breaks_a_rule_is_refused(
    table: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    assert check_submission(table, IDS) is table
    with pytest.raises(PredictionError, match=message):
        check_submission(change(table.copy()), IDS, "f")


def test_a_sum_within_the_limit_passes(table: pd.DataFrame) -> None:
    check_submission(table.assign(other_vote=table["other_vote"] + 9e-7), IDS)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_written_submission_is_read_as_it_was(
    tmp_path: Path, table: pd.DataFrame, name: str
) -> None:
    write_submission(tmp_path / name, table, IDS)
    pd.testing.assert_frame_equal(read_predictions(tmp_path / name), table, rtol=1e-15)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_is_written_is_read_back_and_checked(
    tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another one would be made of takes no place."""
    file = tmp_path / "a.csv"
    file.write_text("before")

    def three_digits(draft: Path, suffix: str, written: pd.DataFrame) -> None:
        written.round(3).to_csv(draft, index=False)

    monkeypatch.setattr(files, "_write", three_digits)
    with pytest.raises(PredictionError, match=rf"must sum to 1 within 1e-06, .*, in {file}, EEG"):
        write_submission(file, table, IDS)
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    monkeypatch.setattr(files, "_write", lambda draft, suffix, written: draft.write_text(""))
    message = "a submission must be readable as it was written, got EmptyDataError"
    with pytest.raises(PredictionError, match=message):
        write_submission(file, table, IDS)
    assert file.read_text() == "before"


def test_a_bad_submission_is_not_written(tmp_path: Path, table: pd.DataFrame) -> None:
    with pytest.raises(PredictionError, match="EEGs must be in the order of"):
        write_submission(tmp_path / "a.csv", table[::-1], IDS)
    assert not list(tmp_path.iterdir())


def test_other_endings_are_refused(tmp_path: Path, table: pd.DataFrame) -> None:
    message = r"a file of predictions must end in \.csv or \.parquet, got .*a\.txt"
    for write in (write_predictions, lambda path, made: write_submission(path, made, IDS)):
        with pytest.raises(ConfigError, match=message):
            write(tmp_path / "a.txt", table)


def test_files_of_predictions_that_are_none_are_refused(
    tmp_path: Path, table: pd.DataFrame
) -> None:
    file = tmp_path / "a.csv"
    with pytest.raises(DataError, match=r"a\.csv must exist"):
        read_predictions(file)
    table.drop(columns="gpd_vote").to_csv(file, index=False)
    with pytest.raises(DataError, match=r"a\.csv must hold its 7 columns, got no gpd_vote"):
        read_predictions(file)
    table.assign(gpd_vote="x").to_csv(file, index=False)
    with pytest.raises(PredictionError, match="gpd_vote must hold numbers"):
        read_predictions(file)


def test_the_ids_of_a_sample_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    assert submission_ids(tmp_path, IDS) == IDS
    file = tmp_path / "sample_submission.csv"
    file.write_text("eeg_id\n10\n20.5\n30\n")
    message = r"sample_submission\.csv's column eeg_id must hold whole numbers, got 20\.5, in"
    with pytest.raises(DataError, match=message):
        submission_ids(tmp_path, IDS)
    file.write_text("eeg_id\n10\n20\n30\n")
    assert submission_ids(tmp_path, IDS) == [10, 20, 30]
