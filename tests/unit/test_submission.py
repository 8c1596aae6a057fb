"""Submissions: how they are created, checked and written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.external_files import read_test_predictions
from hms_ray.competition.schema import PROBABILITY_COLUMNS, SUBMISSION_COLUMNS
from hms_ray.errors import DataError, PredictionError
from hms_ray.predict import files
from hms_ray.predict.files import write_submission
from hms_ray.predict.submission import check_submission, make_submission, submission_ids
from tests.refused import refusal, refused

IDS = [30, 10, 20]


def shares(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(6), size=n)


@pytest.fixture
def table() -> pd.DataFrame:
    return make_submission(IDS, IDS, shares())


def test_predictions_are_sorted_into_the_order_of_the_submission() -> None:
    made = make_submission([10, 20, 30], IDS, shares())
    assert tuple(made.columns) == SUBMISSION_COLUMNS
    assert made["eeg_id"].tolist() == [10, 20, 30]
    np.testing.assert_allclose(made[list(PROBABILITY_COLUMNS)], shares()[[1, 2, 0]], atol=1e-15)


def test_rounded_predictions_are_renormalised() -> None:
    """Shares of six decimals are valid predictions, but not a valid submission."""
    rounded = shares(500).round(6) + np.eye(6)[0] * 3e-6
    assert np.abs(rounded.sum(axis=1) - 1).max() > 1e-6
    made = make_submission(range(500), range(500), rounded)
    assert np.abs(made[list(PROBABILITY_COLUMNS)].sum(axis=1) - 1).max() < 1e-15
    check_submission(made, range(500))
    made = make_submission(range(500), range(500), shares(500).astype(np.float32))
    assert np.abs(made[list(PROBABILITY_COLUMNS)].sum(axis=1) - 1).max() < 1e-15


def test_a_certain_prediction_is_a_submission() -> None:
    check_submission(make_submission(IDS, IDS, np.eye(6)[[0, 5, 2]]), IDS)


@pytest.mark.parametrize(
    ("ids", "values", "rule", "got", "where"),
    [
        ([30, 10, 10], shares(), "must be predicted once", "several rows for 1", "f, EEG 10"),
        ([30, 10], shares(2), "every test EEG must be predicted", "no row for 1", "f, EEG 20"),
        ([*IDS, 7], shares(4), "only test EEGs may be predicted", "a row for 1", "f, EEG 7"),
        (IDS, shares(2), "one prediction per EEG", "2 for 3 EEGs", "f"),
        (IDS, 2 * shares(), "must sum to 1", "2", "f, 3 row(s): 30, 10"),
        (IDS, np.full((3, 6), np.nan), "must be finite numbers", "nan", "f, 3 row(s)"),
    ],
)
def test_predictions_that_do_not_fit_the_submission_are_refused(
    ids: list[int], values: np.ndarray, rule: str, got: str, where: str
) -> None:
    with refusal(PredictionError, rule, got=got, where=where):
        make_submission(IDS, ids, values, "f")


def with_value(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table.infer_objects()

    return changed


@pytest.mark.parametrize(
    ("change", "rule", "got", "where"),
    [
        (
            lambda t: t[["eeg_id", "lpd_vote", "seizure_vote", *SUBMISSION_COLUMNS[3:]]],
            "eeg_id, seizure_vote, lpd_vote",
            "eeg_id, lpd_vote, seizure_vote",
            "f",
        ),
        (lambda t: t.drop(columns="other_vote"), "must have the columns", "grda_vote", "f"),
        (lambda t: t.assign(extra=1), "must have the columns", "other_vote, extra", "f"),
        (with_value("eeg_id", 1, 10.5), "eeg_id must be whole numbers", "10.5", "f"),
        (with_value("eeg_id", 1, np.nan), "eeg_id must be whole numbers", "an empty value", "f"),
        (lambda t: t[:2], "every test EEG must be predicted", "no row for 1", "f, EEG 20"),
        (lambda t: pd.concat([t, t[1:]]), "predicted once", "several rows for 2", "f, EEG 10, 20"),
        (lambda t: pd.concat([t, t[:1] * 0]), "only test EEGs may be", "a row for 1", "f, EEG 0"),
        (lambda t: t[::-1], "order of the sample submission", "20 instead of 30 in row 1", "f"),
        (with_value("gpd_vote", 1, "high"), "gpd_vote must hold numbers", "", "f"),
        (with_value("gpd_vote", 1, np.nan), "must not be missing", "nan", "f, EEG 10"),
        (with_value("gpd_vote", 2, -0.1), "must be from 0 to 1", "-0.1", "f, EEG 20"),
        (with_value("gpd_vote", 2, np.inf), "must be from 0 to 1", "inf", "f, EEG 20"),
        (
            lambda t: t.assign(other_vote=t["other_vote"] + [0, 2e-6, 0]),
            "must sum to 1 within 1e-06",
            "1.000002",
            "f, EEG 10",
        ),
    ],
)
def test_a_submission_that_breaks_a_rule_is_refused(
    table: pd.DataFrame,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    rule: str,
    got: str,
    where: str,
) -> None:
    check_submission(table, IDS)
    error = refused(check_submission, change(table.copy()), IDS, "f")
    assert isinstance(error, PredictionError)
    assert rule in error.rule
    assert got in str(error.got)
    assert where in str(error.where)
    assert error.fix, "each refusal has a remedy"


def test_a_sum_within_the_limit_passes(table: pd.DataFrame) -> None:
    check_submission(table.assign(other_vote=table["other_vote"] + 9e-7), IDS)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_written_submission_is_read_as_it_was(
    tmp_path: Path, table: pd.DataFrame, name: str
) -> None:
    write_submission(tmp_path / name, table, IDS)
    eegs, shares, renormalised = read_test_predictions(tmp_path / name)
    assert (eegs.tolist(), renormalised) == (IDS, None)
    np.testing.assert_allclose(shares, table[list(PROBABILITY_COLUMNS)], rtol=1e-15)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_is_written_is_read_back_and_checked(
    tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that would be read differently never replaces the old one."""
    file = tmp_path / "a.csv"
    file.write_text("before")

    def three_digits(draft: Path, suffix: str, written: pd.DataFrame) -> None:
        written.round(3).to_csv(draft, index=False)

    monkeypatch.setattr(files, "_write", three_digits)
    with refusal(PredictionError, "must sum to 1 within 1e-06", where=f"{file}, EEG"):
        write_submission(file, table, IDS)
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    monkeypatch.setattr(files, "_write", lambda draft, suffix, written: draft.write_text(""))
    with refusal(DataError, "must have rows and columns", got="none"):
        write_submission(file, table, IDS)
    assert file.read_text() == "before"


def test_a_bad_submission_is_not_written(tmp_path: Path, table: pd.DataFrame) -> None:
    with refusal(PredictionError, "order of the sample submission"):
        write_submission(tmp_path / "a.csv", table[::-1], IDS)
    assert not list(tmp_path.iterdir())


def test_missing_and_malformed_predictions_are_refused(tmp_path: Path, table: pd.DataFrame) -> None:
    file = tmp_path / "a.csv"
    with refusal(DataError, "a.csv must exist", fix="Check the path"):
        read_test_predictions(file)
    table.drop(columns="gpd_vote").to_csv(file, index=False)
    with refusal(DataError, "a.csv", got="no gpd_vote", fix="--columns a.csv:gpd=THEIRS"):
        read_test_predictions(file)
    table.assign(gpd_vote="x").to_csv(file, index=False)
    with refusal(PredictionError, "must be numbers", got="'x'", where="class gpd", fix="Write"):
        read_test_predictions(file)


def test_sample_ids_must_be_whole_numbers(tmp_path: Path) -> None:
    assert submission_ids(tmp_path, IDS) == IDS
    file = tmp_path / "sample_submission.csv"
    file.write_text("eeg_id\n10\n20.5\n30\n")
    with refusal(DataError, "eeg_id must be whole numbers", got="20.5", where="from 1: 2"):
        submission_ids(tmp_path, IDS)
    file.write_text("eeg_id\n10\n20\n30\n")
    assert submission_ids(tmp_path, IDS) == [10, 20, 30]
