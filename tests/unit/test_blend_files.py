"""Files of predictions and of targets: columns, keys, values, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.column_names import parse_columns
from hms_ray.blend.external_files import read_predictions, read_targets
from hms_ray.competition.schema import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from hms_ray.errors import PredictionError
from tests.blend_data import targets, written

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
    columns = parse_columns(
        ["row_id=key", ",".join(f"{c.lower()}=p{n}" for n, c in enumerate(CLASSES))]
    )
    ids, keys, found, _ = read_predictions(written(tmp_path / name, frame), columns)
    assert list(ids) == ["007", "8", "9"]
    assert keys == "row_id"
    np.testing.assert_allclose(found, values)


@pytest.mark.parametrize("names", [PROBABILITY_COLUMNS, CLASSES, [c.lower() for c in CLASSES]])
def test_usual_names_of_classes_are_known(tmp_path: Path, names: list[str]) -> None:
    frame = pd.DataFrame(np.eye(6)[:3], columns=list(names)).assign(eeg_id=[3, 4, 5])
    ids, keys, found, _ = read_predictions(written(tmp_path / "x.csv", frame), {})
    assert (list(ids), keys) == (["3", "4", "5"], "eeg_id")
    np.testing.assert_array_equal(found, np.eye(6)[:3])


def test_a_label_row_is_named_by_its_eeg_and_sub_id(tmp_path: Path) -> None:
    frame = table().drop(columns="row_id").assign(eeg_id=[7, 7, 8], eeg_sub_id=[0, 1, 0])
    ids, keys, _, _ = read_predictions(written(tmp_path / "x.parquet", frame), {})
    assert (list(ids), keys) == (["7-0", "7-1", "8-0"], "label")


def no_distribution() -> pd.DataFrame:
    frame = table()
    frame.loc[1, "lpd_vote"] = 0.9
    return frame


def negative() -> pd.DataFrame:
    frame = table()
    frame.loc[2, ["lpd_vote", "gpd_vote"]] = [-0.1, 1 / 3 + 0.1]
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            table(["a", "b", "a"]),
            (
                r"a row must be predicted once, got several predictions, in .*x\."
                r"csv, 1 row\(s\): a$"
            ),
        ),
        (
            no_distribution(),
            (
                r"each row of predictions must sum to 1 within 1e-05, got 1\.73.*, in "
                r".*x\.csv, 1 row\(s\): b$"
            ),
        ),
        (negative(), r"predictions must not be negative, got .*, in .*x\.csv, 1 row\(s\): c$"),
        (
            table(["a", None, "b"]),
            (
                r"every row must have a row_id, got 1 without, in .*x\.csv, 1 row\(s\), counted "
                r"from 1: 2$"
            ),
        ),
        (
            table().drop(columns="row_id"),
            (
                r"rows must be named by row_id, by eeg_id and eeg_sub_id,"
                r" or by eeg_id, got the columns seizure_vote, .*, in .*x\.csv\. Name the column "
                r"with --columns \(of targets --target-columns\) row_id=THEIRS\.$"
            ),
        ),
        (
            table().drop(columns=["gpd_vote", "other_vote"]),
            (
                r"a file must have a column for each of "
                r"the six classes, got none for gpd, other, in .*x\.csv\. Name them with "
                r"--columns \(of targets --target-columns\) gpd=THEIRS,\.\.\.$"
            ),
        ),
        (
            table().drop(columns="row_id").assign(eeg_id=[1.5, 2, 3]),
            (
                r"eeg_id must be whole numbers, none missing, got 1\.5, in .*x\.csv, 1 row\(s\), "
                r"counted from 1: 1$"
            ),
        ),
        (
            table().drop(columns="row_id").assign(eeg_id=[1, 2, 3], eeg_sub_id=[0, None, 0]),
            r"eeg_sub_id must be whole numbers, none missing, got an empty value, in .*: 2$",
        ),
        (
            table().assign(lpd_vote=["x", "0", "0"]),
            r"predictions must be numbers, got 'x', in .*x\.csv, class lpd, 1 row\(s\): a$",
        ),
        (
            table().assign(lpd_vote=[0.1, None, 0.1]),
            r"predictions must be finite numbers, got .*nan.*, in .*x\.csv, 1 row\(s\): b$",
        ),
        (table()[:0], r"a table must have rows and columns, got none, in .*x\.csv$"),
    ],
)
def test_a_faulty_file_is_refused_by_name_and_row(
    tmp_path: Path, frame: pd.DataFrame, message: str
) -> None:
    with pytest.raises(PredictionError, match=message):
        read_predictions(written(tmp_path / "x.csv", frame), {})


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"must exist to be read, got none, in .*none\.csv"):
        read_predictions(tmp_path / "none.csv", {})
    with pytest.raises(PredictionError, match=r"that ends in \.csv or \.parquet, got .*x\.txt$"):
        read_predictions(tmp_path / "x.txt", {})
    (tmp_path / "y.csv").mkdir()
    with pytest.raises(
        PredictionError, match=r"a file must exist to be read, got a folder, in .*y\.csv"
    ):
        read_predictions(tmp_path / "y.csv", {})
    (tmp_path / "z.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(
        PredictionError, match=r"ends in \.csv must be readable as such, got .*utf-8"
    ):
        read_predictions(tmp_path / "z.csv", {})
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(PredictionError, match=r"ends in \.parquet must be readable as such, got"):
        read_predictions(tmp_path / "x.parquet", {})
    file = written(tmp_path / "x.csv", table())
    message = r"the column named for lpd must be in the file, got no sz among row_id, .*x\.csv"
    with pytest.raises(PredictionError, match=message):
        read_predictions(file, {"lpd": "sz"})


@pytest.mark.parametrize("word", ["lpd", "lpd=", "xyz=a", "row_id=a,b"])
def test_columns_are_pairs_of_known_names(word: str) -> None:
    message = "a column is named as OURS=THEIRS, OURS one of row_id, eeg_id, .*, got "
    with pytest.raises(PredictionError, match=message + word.rpartition(",")[2]):
        parse_columns([word])
    assert parse_columns(["lpd_vote=a, gpd=b", "fold=f"]) == {"lpd": "a", "gpd": "b", "fold": "f"}
    with pytest.raises(PredictionError, match=r"a column must be named once, got a and b for lpd$"):
        parse_columns(["lpd=a", "lpd_vote=b"])


def test_targets_are_votes_or_shares(tmp_path: Path) -> None:
    votes = np.array([[3, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 12], [1, 1, 1, 0, 0, 0]])
    frame = table(patient_id=[1, 1, 2], eeg_id=[5, 6, 7], fold=[0, 0, 1])
    frame[list(VOTE_COLUMNS)] = votes
    found = read_targets(written(tmp_path / "votes.csv", frame), {})
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
PLACE = r", in .*x\.parquet, "


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            voted(HALVES, patient_id=1),
            (
                r"targets that are shares need the total_votes of each row, got no such column, in "
                r".*x\.parquet\. Name it with --target-columns total_votes=THEIRS\.$"
            ),
        ),
        (
            voted(ONE, OTHER, patient_id=1),
            (
                r"targets that are 0 or 1 throughout may be shares and need the total_votes of "
                r"each row, got no such column, in .*x\.parquet\. Name it with --target-columns "
                r"total_votes=THEIRS, or add it: 1 in each row if these are votes\.$"
            ),
        ),
        (
            voted(FIRST),
            (
                r"targets need the patient_id of each row, got no such column, in .*x\.parquet\. "
                r"Name it with --target-columns patient_id=THEIRS\.$"
            ),
        ),
        (
            voted(FIRST, SECOND, patient_id=["p1", "p2"]),
            r"patient_id must be whole numbers, none missing, got 'p1'" + PLACE + r"2 row\(s\): a, "
            r"b\. Number the patients: their names are not looked at, only which rows share one\.$",
        ),
        (
            voted(FIRST, SECOND, patient_id=[1, None]),
            r"patient_id must be whole numbers, none missing, got an empty value" + PLACE + r"1 "
            r"row\(s\): b\. ",
        ),
        (
            voted(FIRST, SECOND, patient_id=[1, 2.5]),
            r"patient_id must be whole numbers, none missing, got 2\.5" + PLACE + r"1 row\(s\): b",
        ),
        (
            voted(FIRST, SECOND, patient_id=1, fold=[0, 0.5]),
            r"fold must be whole numbers, got 0\.5" + PLACE + r"1 row\(s\): b$",
        ),
        (
            voted(FIRST, patient_id=1).iloc[[0, 0]],
            r"a row must have one target, got several" + PLACE + r"1 row\(s\): a$",
        ),
        (
            voted(FIRST, [0] * 6, patient_id=1),
            r"each row of targets must have votes, got \[0\., 0\., .*\]" + PLACE + r"1 row\(s\): "
            r"b\. Leave rows without votes out of the targets\.$",
        ),
        (
            voted(FIRST, [4, -1, 0, 0, 0, 0], patient_id=1),
            r"votes must not be negative, got \[ 4\., -1\., .*\]" + PLACE + r"1 row\(s\): b$",
        ),
        (
            voted(FIRST, [np.nan, 1, 0, 0, 0, 0], patient_id=1),
            r"votes must be finite numbers, none missing, got \[nan, .*\]"
            + PLACE
            + r"1 row\(s\): b$",
        ),
        (
            voted(FIRST, patient_id=1).astype({"gpd_vote": str}).assign(gpd_vote="two"),
            r"votes must be numbers, got 'two', in .*x\.parquet, class gpd, 1 row\(s\): a$",
        ),
        (
            voted(HALVES, [0.5, 0.4, 0, 0, 0, 0], patient_id=1, total_votes=4),
            r"each row of targets must sum to 1 within 1e-05, got 0\.9"
            + PLACE
            + r"1 row\(s\): b\. "
            r"Give votes as whole numbers, or shares that sum to 1\.$",
        ),
        (
            voted(HALVES, HALVES, patient_id=1, total_votes=["4", "many"]),
            r"total_votes must be whole numbers of at least 1, got 'many'" + PLACE + r"1 row\(s\): "
            r"b\. Leave cells empty whose total is not known\.$",
        ),
        (
            voted(HALVES, HALVES, patient_id=1, total_votes=[4, -2]),
            r"total_votes must be whole numbers of at least 1, got -2" + PLACE + r"1 row\(s\): b",
        ),
        (
            voted(HALVES, HALVES, patient_id=1, total_votes=[np.inf, 2.5]),
            r"total_votes must be whole numbers of at least 1, got inf"
            + PLACE
            + r"2 row\(s\): a, b",
        ),
        (
            voted(FIRST, SECOND, patient_id=1, total_votes=[4, 3]),
            r"total_votes must not be more than a row's six votes together, got 3" + PLACE + r"1 "
            r"row\(s\): b\. Give the votes themselves, or shares that sum to 1\.$",
        ),
    ],
)
def test_faulty_targets_are_refused(tmp_path: Path, frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        read_targets(written(tmp_path / "x.parquet", frame), {})


def test_targets_are_right_however_they_are_written(tmp_path: Path) -> None:
    whole = voted(ONE, OTHER, patient_id=["1.0", "2"], total_votes=[4, 7], fold=[1, None])
    found = read_targets(written(tmp_path / "x.parquet", whole), {})
    assert found.rows["total_votes"].tolist() == [4, 7], "shares of 0 and 1 have a total as well"
    np.testing.assert_array_equal(targets(found.rows), [ONE, OTHER])
    assert (found.rows["patient_id"].tolist(), found.rows["fold"].tolist()) == ([1, 2], [1, -1])
    summed = voted(FIRST, [0, 9, 3, 0, 0, 0], patient_id=[1.0, 2.0], total_votes=["3", " 9"])
    added = read_targets(written(tmp_path / "y.csv", summed), {})
    assert added.rows["total_votes"].tolist() == [3, 9], "votes of several label rows added"
    assert added.rows["patient_id"].dtype == np.int64
    unknown = voted(HALVES, patient_id=1, total_votes=[None])
    assert read_targets(written(tmp_path / "z.csv", unknown), {}).n_unknown == 1
