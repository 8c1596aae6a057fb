"""Files of predictions and of targets: columns, row ids, values and their faults."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.column_names import parse_columns
from hms_ray.blend.external_files import read_external_predictions, read_targets
from hms_ray.competition.schema import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from hms_ray.errors import DataError, HmsRayError, PredictionError
from tests.blend_data import targets, written
from tests.refused import refusal

SHARES = np.full((3, 6), 1 / 6)


def table(ids: object = ("a", "b", "c"), **columns: object) -> pd.DataFrame:
    made = pd.DataFrame({"row_id": ids, **columns})
    made[list(VOTE_COLUMNS)] = SHARES
    return made


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_file_is_read_by_its_columns(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    values = generator.dirichlet(np.ones(6), size=3)
    frame = pd.DataFrame(values, columns=[f"p{n}" for n in range(6)])
    frame.insert(0, "key", ["007", "8", "9"])
    shares = ",".join(f"{c.lower()}=p{n}" for n, c in enumerate(CLASSES))
    columns = parse_columns(["row_id=id", f"{name}:row_id=key", shares])
    found = read_external_predictions(written(tmp_path / name, frame), columns.of(tmp_path / name))
    assert list(found.ids) == ["007", "8", "9"]
    assert (found.keys, found.renormalised) == ("row_id", None)
    np.testing.assert_allclose(found.probabilities, values)


@pytest.mark.parametrize("names", [PROBABILITY_COLUMNS, CLASSES, [c.lower() for c in CLASSES]])
def test_usual_names_of_classes_are_recognised(tmp_path: Path, names: list[str]) -> None:
    frame = pd.DataFrame(np.eye(6)[:3], columns=list(names)).assign(eeg_id=[3, 4, 5])
    found = read_external_predictions(written(tmp_path / "x.csv", frame))
    assert (list(found.ids), found.keys) == (["3", "4", "5"], "eeg_id")
    np.testing.assert_array_equal(found.probabilities, np.eye(6)[:3])


def test_a_label_row_is_named_by_its_eeg_and_sub_id(tmp_path: Path) -> None:
    frame = by_eeg([7, 7, 8], [0, 1, 0])
    found = read_external_predictions(written(tmp_path / "x.parquet", frame))
    assert (list(found.ids), found.keys) == (["7-0", "7-1", "8-0"], "label")


def by_eeg(eegs: list[float], subs: list[int | None] | None = None) -> pd.DataFrame:
    frame = table().drop(columns="row_id").assign(eeg_id=eegs)
    return frame if subs is None else frame.assign(eeg_sub_id=subs)


NEGATIVE = table().assign(lpd_vote=[1 / 6, 1 / 6, -0.1], gpd_vote=[1 / 6, 1 / 6, 1 / 3 + 0.1])


@pytest.mark.parametrize(
    ("frame", "rule", "got", "where", "fix"),
    [
        (table(["a", "b", "a"]), "predicted once", "several", "x.csv, 1 row(s): a", "Remove"),
        (
            table().assign(lpd_vote=[1 / 6, 0.9, 1 / 6]),
            "must sum to 1 within 1e-05",
            "1.73",
            "x.csv, 1 row(s): b",
            "Correct these rows",
        ),
        (NEGATIVE, "must not be negative", "-0.1", "x.csv, 1 row(s): c", "Correct these rows"),
        (table(["a", None, "b"]), "have a row_id", "1 without", "counted from 1: 2", "Fill in"),
        (table().drop(columns="row_id"), "need row_id, eeg_id", "seizure_vote", "x.csv", "Name"),
        (
            table().drop(columns=["gpd_vote", "other_vote"]),
            "its 6 columns",
            "no gpd_vote, other_vote but row_id",
            "x.csv",
            "--columns x.csv:gpd=THEIRS,...",
        ),
        (by_eeg([1.5, 2, 3]), "eeg_id must be whole", "1.5", "counted from 1: 1", "Correct"),
        (by_eeg([1, 2, 3], [0, None, 0]), "eeg_sub_id must be", "an empty", "from 1: 2", ""),
        (
            table().assign(lpd_vote=["x", "0", "0"]),
            "must be numbers",
            "'x'",
            "class lpd, 1 row(s): a",
            "Write numbers",
        ),
        (table().assign(lpd_vote=[0.1, None, 0.1]), "must be finite", "nan", "1 row(s): b", ""),
        (table()[:0], "must have rows and columns", "none", "x.csv", "Write the file again"),
    ],
)
def test_faulty_predictions_are_refused_with_file_and_row(
    tmp_path: Path, frame: pd.DataFrame, rule: str, got: str, where: str, fix: str
) -> None:
    with refusal(HmsRayError, rule, got=got, where=where, fix=fix):
        read_external_predictions(written(tmp_path / "x.csv", frame))


def test_a_named_column_must_be_in_the_file(tmp_path: Path) -> None:
    file = written(tmp_path / "x.csv", table())
    rule, got = "the column given for lpd", "no sz among row_id, "
    with refusal(DataError, rule, got=got, where="x.csv", fix="Correct --columns"):
        read_external_predictions(file, {"lpd": "sz"})


@pytest.mark.parametrize("pair", ["lpd", "lpd=", "xyz=a", "row_id=a,b", "x.csv:lpd"])
def test_columns_are_pairs_of_known_names(pair: str) -> None:
    got = pair.rpartition(",")[2].removeprefix("x.csv:")
    with refusal(PredictionError, "with OURS one of", got=got, fix="mine.csv:row_id=key"):
        parse_columns([pair])


def test_columns_are_named_for_all_files_and_for_single_ones() -> None:
    names = parse_columns(["lpd_vote=a, gpd=b", "fold=f", "d/x.csv:lpd=c,GRDA=d", "y.CSV:gpd=:e"])
    assert names.everywhere == {"lpd": "a", "gpd": "b", "fold": "f"}
    assert names.of("z.csv") == names.everywhere
    assert names.of("e/d/x.csv") == {**names.everywhere, "lpd": "c", "grda": "d"}
    assert names.of("f/x.csv") == names.everywhere, "another folder"
    assert names.of("f/y.CSV")["gpd"] == ":e"
    names.require_known(["d/x.csv", Path("a/y.CSV")], "--columns")
    with refusal(PredictionError, "--columns must name a file", got="d/x.csv (did you mean x.c"):
        names.require_known(["x.csv", "y.CSV"], "--columns")
    for pairs in (["lpd=a", "lpd_vote=b"], ["x.csv:lpd=a", "x.csv:lpd=b"]):
        with refusal(PredictionError, "given once", got="a and b for lpd", fix="Remove one"):
            parse_columns(pairs)


def test_targets_are_votes_or_shares(tmp_path: Path) -> None:
    votes = np.array([[3, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 12], [1, 1, 1, 0, 0, 0]])
    frame = table(patient_id=[1, 1, 2], eeg_id=[5, 6, 7], fold=[0, 0, 1])
    frame[list(VOTE_COLUMNS)] = votes
    found = read_targets(written(tmp_path / "votes.csv", frame))
    assert found.rows["total_votes"].tolist() == [4, 12, 3]
    assert (found.keys, found.n_unknown) == ("row_id", 0)
    np.testing.assert_allclose(targets(found.rows), votes / votes.sum(axis=1, keepdims=True))
    frame[list(VOTE_COLUMNS)] = votes / votes.sum(axis=1, keepdims=True)
    frame["n"] = pd.array([4, None, 3], dtype="Int64")
    shares = read_targets(written(tmp_path / "shares.parquet", frame), {"total_votes": "n"})
    np.testing.assert_allclose(targets(shares.rows), targets(found.rows))
    assert (shares.rows["total_votes"].tolist(), shares.n_unknown) == ([4, 0, 3], 1)
    assert shares.rows["eeg_id"].tolist() == [5, 6, 7]
    frame = frame.drop(columns=["fold", "eeg_id"])
    bare = read_targets(written(tmp_path / "bare.csv", frame), {"total_votes": "n"}).rows
    assert (bare["fold"].tolist(), bare["eeg_id"].tolist()) == ([-1] * 3, [-1] * 3)


def voted(*rows: list[float], **columns: object) -> pd.DataFrame:
    """Rows a, b, ... of these votes."""
    frame = pd.DataFrame({"row_id": list("abcdef"[: len(rows)]), **columns})
    frame[list(VOTE_COLUMNS)] = np.array(rows)
    return frame


FIRST, SECOND, HALVES = [3, 0, 1, 0, 0, 0], [0, 2, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0]
ONE, OTHER = [1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]
WHOLE = "must be whole numbers"
TOTALS = f"total_votes {WHOLE} of at least 1"


def with_totals(votes: list[float], *totals: object) -> pd.DataFrame:
    return voted(votes, votes, patient_id=1, total_votes=totals)


@pytest.mark.parametrize(
    ("frame", "rule", "got", "where", "fix"),
    [
        (voted(HALVES, patient_id=1), "shares need", "no such column", "", "total_votes=THEIRS"),
        (voted(ONE, OTHER, patient_id=1), "all 0 or 1", "no such column", "", "1 in each row"),
        (voted(FIRST), "a column patient_id", "no such column", "", "patient_id=THEIRS"),
        (voted(FIRST, SECOND, patient_id=["p", "q"]), WHOLE, "'p'", "2 row(s): a, b", "Number the"),
        (voted(FIRST, SECOND, patient_id=[1, None]), f"patient_id {WHOLE}", "an empty", ": b", ""),
        (voted(FIRST, SECOND, patient_id=[1, 2.5]), f"patient_id {WHOLE}", "2.5", ": b", ""),
        (voted(FIRST, SECOND, patient_id=1, fold=[0, 0.5]), f"fold {WHOLE}", "0.5", ": b", ""),
        (voted(FIRST, patient_id=1).iloc[[0, 0]], "one target", "several", "1 row(s): a", ""),
        (voted(FIRST, [0] * 6, patient_id=1), "must have votes", "[0., 0.", ": b", "Remove rows"),
        (voted(FIRST, [4, -1, 0, 0, 0, 0], patient_id=1), "not be negative", "-1.", ": b", ""),
        (voted(FIRST, [np.nan, 1, 0, 0, 0, 0], patient_id=1), "must be finite", "nan", ": b", ""),
        (
            voted(FIRST, patient_id=1).assign(gpd_vote="two"),
            "votes must be",
            "'two'",
            "class gpd, 1 r",
            "Write numbers",
        ),
        (
            voted(HALVES, [0.5, 0.4, 0, 0, 0, 0], patient_id=1, total_votes=4),
            "must sum to 1 within 1e-05",
            "0.9",
            ": b",
            "shares that sum to 1",
        ),
        (with_totals(HALVES, "4", "many"), TOTALS, "'many'", ": b", "Leave unknown totals empty"),
        (with_totals(HALVES, 4, -2), TOTALS, "-2", ": b", ""),
        (with_totals(HALVES, np.inf, 2.5), TOTALS, "inf", "2 row(s): a, b", ""),
        (with_totals(FIRST, 4, 5), "total_votes must not exceed the sum", "5", ": b", "Give the v"),
    ],
)
def test_faulty_targets_are_refused_with_row_and_remedy(
    tmp_path: Path, frame: pd.DataFrame, rule: str, got: str, where: str, fix: str
) -> None:
    with refusal(PredictionError, rule, got=got, where=where or "x.parquet", fix=fix):
        read_targets(written(tmp_path / "x.parquet", frame))


def test_targets_are_read_from_any_number_format(tmp_path: Path) -> None:
    whole = voted(ONE, OTHER, patient_id=["1.0", "2"], total_votes=[4, 7], fold=[1, None])
    found = read_targets(written(tmp_path / "x.parquet", whole))
    assert found.rows["total_votes"].tolist() == [4, 7], "shares of 0 and 1 have a total as well"
    np.testing.assert_array_equal(targets(found.rows), [ONE, OTHER])
    assert (found.rows["patient_id"].tolist(), found.rows["fold"].tolist()) == ([1, 2], [1, -1])
    summed = voted(FIRST, [0, 9, 3, 0, 0, 0], patient_id=[1.0, 2.0], total_votes=["3", " 9"])
    added = read_targets(written(tmp_path / "y.csv", summed))
    assert added.rows["total_votes"].tolist() == [3, 9], "votes of several label rows added"
    assert added.rows["patient_id"].dtype == np.int64
    unknown = voted(HALVES, patient_id=1, total_votes=[None])
    assert read_targets(written(tmp_path / "z.csv", unknown)).n_unknown == 1
