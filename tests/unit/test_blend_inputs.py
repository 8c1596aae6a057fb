"""Studies, trials, ladders, fold keys and files as models on the same rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.blending.alignment import align
from hms_ray.blending.columns import parse_columns
from hms_ray.blending.files import read_predictions, read_targets
from hms_ray.blending.inputs import read_members, targets_of, with_families
from hms_ray.competition.schema import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.oof import make_oof
from hms_ray.fold_store import FoldStore
from hms_ray.ladder.folder import write_ladder
from hms_ray.study.folder import StudyFolder
from tests.blend_data import add_trials, make_rows, make_study, targets
from tests.ladder_data import ABOUT, ladder

SHARES = np.full((3, 6), 1 / 6)


def table(ids: object = ("a", "b", "c"), **columns: object) -> pd.DataFrame:
    made = pd.DataFrame({"row_id": ids, **columns})
    made[list(VOTE_COLUMNS)] = SHARES
    return made


def written(path: Path, frame: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_file_is_read_by_its_columns(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    values = generator.dirichlet(np.ones(6), size=3)
    frame = pd.DataFrame(values, columns=[f"p{n}" for n in range(6)])
    frame.insert(0, "key", ["007", "8", "9"])
    columns = parse_columns(
        ["row_id=key", ",".join(f"{c.lower()}=p{n}" for n, c in enumerate(CLASSES))]
    )
    ids, keys, found = read_predictions(written(tmp_path / name, frame), columns)
    assert list(ids) == ["007", "8", "9"]
    assert keys == "row_id"
    np.testing.assert_allclose(found, values)


@pytest.mark.parametrize("names", [PROBABILITY_COLUMNS, CLASSES, [c.lower() for c in CLASSES]])
def test_usual_names_of_classes_are_known(tmp_path: Path, names: list[str]) -> None:
    frame = pd.DataFrame(np.eye(6)[:3], columns=list(names)).assign(eeg_id=[3, 4, 5])
    ids, keys, found = read_predictions(written(tmp_path / "x.csv", frame), {})
    assert (list(ids), keys) == (["3", "4", "5"], "eeg_id")
    np.testing.assert_array_equal(found, np.eye(6)[:3])


def test_a_label_row_is_named_by_its_eeg_and_sub_id(tmp_path: Path) -> None:
    frame = table().drop(columns="row_id").assign(eeg_id=[7, 7, 8], eeg_sub_id=[0, 1, 0])
    ids, keys, _ = read_predictions(written(tmp_path / "x.parquet", frame), {})
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
        (table(["a", None, "b"]), r"every row must have a key, got 1 without, in .*x\.csv$"),
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
                r"eeg_id must be whole numbers,"
                r" got float64, in .*x\.csv$"
            ),
        ),
        (table().assign(lpd_vote="x"), r"votes must be numbers, got could not convert .*x\.csv$"),
    ],
)
def test_a_faulty_file_is_refused_by_name_and_row(
    tmp_path: Path, frame: pd.DataFrame, message: str
) -> None:
    with pytest.raises(PredictionError, match=message):
        read_predictions(written(tmp_path / "x.csv", frame), {})


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"must exist, got none, in .*none\.csv"):
        read_predictions(tmp_path / "none.csv", {})
    with pytest.raises(PredictionError, match=r"must end in \.csv or \.parquet, got x\.txt"):
        read_predictions(tmp_path / "x.txt", {})
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


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            table(patient_id=1),
            (
                r"targets that are shares need the total_votes of each row, got no "
                r"such column, in .*x\.parquet\. Name it with --target-columns "
                r"total_votes=THEIRS\.$"
            ),
        ),
        (table(total_votes=3), r"targets need the patient_id of each row, got no such column, in "),
        (
            table(total_votes=3, patient_id=["a", "b", "c"]),
            (
                r"patient_id must be whole numbers, none"
                r" missing, got (object|str), in .*x\.parquet"
            ),
        ),
        (
            table(["a", "a", "b"], total_votes=3, patient_id=1),
            (
                r"a row must have one target, got "
                r"several, in .*x\.parquet, 1 row\(s\): a"
            ),
        ),
        (
            table(patient_id=1).assign(**dict.fromkeys(VOTE_COLUMNS, 0)),
            (
                r"each row of targets must "
                r"sum to 1 within 1e-05, got 0\., in .*x\.parquet, 3 row\(s\): a, b, c"
            ),
        ),
    ],
)
def test_faulty_targets_are_refused(tmp_path: Path, frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        read_targets(written(tmp_path / "x.parquet", frame), {})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Studies one and two on the same rows, with three trials and one."""
    add_trials(make_study(tmp_path, "one"), range(3), optimistic=[1])
    add_trials(make_study(tmp_path, "two"), [4])
    return tmp_path / "results"


def predictions(path: Path, rows: pd.DataFrame, seed: int = 0) -> Path:
    frame = rows[["row_id"]].copy()
    values = np.random.default_rng(seed).dirichlet(np.ones(6), size=len(rows))
    frame[list(VOTE_COLUMNS)] = values
    return written(path, frame)


def test_studies_and_trials_are_models(results: Path) -> None:
    alone = read_members(["one"], results)
    assert sorted(member.name for member in alone) == ["0000", "0001", "0002"]
    assert [member.name for member in alone if member.optimistic] == ["0001"]
    both = read_members(["two/0004", "one/0001", results / "one" / "2"], results)
    assert [member.name for member in both] == ["two/0004", "one/0001", "one/0002"]
    assert both[1].origin == {"study": "one", "trial": 1, "keys": {"0": "a"}}
    assert [member.family for member in both] == ["two", "one", "one"]
    (elsewhere,) = read_members([results / "two" / "0004"], results / "nowhere")
    assert elsewhere.origin["study"] == str(results / "two")
    assert both[0].minutes == 1.0
    (number,) = [n for n, member in enumerate(alone) if member.name == "0001"]
    np.testing.assert_array_equal(alone[number].probabilities, both[1].probabilities)
    assert targets_of(both, None, results).objective == "kl_4"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["three"],
            (
                r"an input of a blend must be STUDY, STUDY/TRIAL, LADDER, LADDER/STEP, fold "
                r"keys KEY,KEY,\.\.\. or a file, got three, in .*results\. There are: one, two\.$"
            ),
        ),
        (
            ["one/0009"],
            (
                "a trial must have finished before it is blended, got trial 0009 is not "
                "there, in .*one$"
            ),
        ),
        (["one/0007"], "a trial must have finished .*, got trial 0007 failed: lost, in .*one$"),
        (["one", "one/0001"], "a model must be given once, got one/0001 twice$"),
        (["0" * 64], "a fold must be in the store before it is read, got nothing under 0{64}, in"),
    ],
)
def test_what_is_no_input_is_told(results: Path, words: list[str], message: str) -> None:
    study = StudyFolder(results / "one")
    study.write_failure(7, {}, study.space().experiment, "lost")
    with pytest.raises((StudyError, PredictionError), match=message):
        read_members(words, results)


def test_keys_of_folds_are_one_model(results: Path) -> None:
    store, rows = FoldStore(results), make_rows()
    values = np.random.default_rng(5).dirichlet(np.ones(6), size=len(rows))
    keys = [str(fold) * 64 for fold in range(3)]
    for fold, key in enumerate(keys):
        inside = (rows["fold"] == fold).to_numpy()
        oof = make_oof(rows[inside], fold, values[inside])
        store.write(key, oof, {}, lambda path: path.write_bytes(b"w"))
    (member,) = read_members([",".join(reversed(keys))], results)
    assert member.origin == {"keys": dict(zip("210", reversed(keys), strict=True))}
    assert member.name == "folds 222222222222"
    targets = targets_of([member], "one", results)
    np.testing.assert_allclose(align([member], targets).probabilities[0], values)
    with pytest.raises(
        PredictionError, match=r"folds of one model must not share rows, got 20 row"
    ):
        read_members([f"{keys[0]},{keys[0]}"], results)
    inside = (rows["fold"] == 1).to_numpy()
    oof = make_oof(rows[inside], 0, values[inside])
    store.write("3" * 64, oof, {}, lambda path: path.write_bytes(b"w"))
    with pytest.raises(
        PredictionError,
        match=r"folds of one model must have different numbers, got 0, 0, in 0{12} and 1 more",
    ):
        read_members([f"{keys[0]},{'3' * 64}"], results)
    (part,) = read_members([keys[1]], results)
    message = r"must predict the rows of one, got folds 1{12} lacks 40 of 60 \(0-0, 1-0, "
    with pytest.raises(PredictionError, match=message):
        align([part], targets)
    with pytest.raises(PredictionError, match="files and fold keys need targets, got none"):
        targets_of([member], None, results)


def test_a_ladder_and_its_steps_are_models(tmp_path: Path) -> None:
    rows, steps = ladder()
    write_ladder(tmp_path / "rungs", rows, steps, ABOUT)
    trained = [step.name for step in steps if step.kind == "experiment"]
    members = read_members(["rungs"], tmp_path)
    assert [member.name for member in members] == trained
    blended = next(step.name for step in steps if step.kind != "experiment")
    assert members[0].origin == {"ladder": "rungs", "step": trained[0]}, "an older ladder"
    addressed = [
        replace(one, keys={"1": f"{one.name}-b", "0": f"{one.name}-a"} if not one.weights else None)
        for one in steps
    ]
    write_ladder(tmp_path / "addressed", rows, addressed, ABOUT)
    (first,) = read_members([tmp_path / "addressed" / trained[0]], "nowhere")
    assert first.origin["keys"] == {"0": f"{trained[0]}-a", "1": f"{trained[0]}-b"}
    (member,) = read_members([tmp_path / "rungs" / blended], "nowhere")
    assert (member.name, member.origin) == (blended, {"ladder": "rungs", "step": blended})
    aligned = align(members, targets_of(members, "rungs", tmp_path))
    assert aligned.probabilities.shape == (len(trained), len(rows), 6)
    with pytest.raises(StudyError, match="a step must be one of the ladder's, got none, and not"):
        read_members(["rungs/none"], tmp_path)


def test_models_come_to_the_rows_of_the_targets(results: Path, tmp_path: Path) -> None:
    rows = make_rows().sample(frac=1, random_state=0)
    file = predictions(tmp_path / "mine.csv", rows)
    members = read_members(["two", file], results)
    assert [member.name for member in members] == ["two/0004", "mine"]
    assert members[1].origin == {"file": str(file)}
    aligned = align(members, targets_of(members))
    expected = pd.read_csv(file).set_index("row_id").loc[make_rows()["row_id"]]
    np.testing.assert_allclose(aligned.probabilities[1], expected.to_numpy())
    assert aligned.n_dropped == 0
    np.testing.assert_allclose(aligned.targets, targets(make_rows()))


def test_models_on_different_rows_are_refused_or_intersected(results: Path, tmp_path: Path) -> None:
    rows = make_rows()
    short = predictions(tmp_path / "short.csv", rows[5:])
    other = rows.assign(row_id=rows["row_id"].replace("9-0", "99-0"))
    members = read_members(["two", short, predictions(tmp_path / "other.csv", other)], results)
    message = (
        r"models must predict the rows of two, got short lacks 5 of 60 \(0-0, 1-0, 2-0, 3-0, "
        r"4-0\); other lacks 1 of 60 \(9-0\); other has 1 more \(99-0\)\. With --rows common, "
        r"rows that are not everywhere are dropped\.$"
    )
    with pytest.raises(PredictionError, match=message):
        align(members, targets_of(members))
    aligned = align(members, targets_of(members), "common")
    assert aligned.n_dropped == 6
    kept = [row for row in rows["row_id"][5:] if row != "9-0"]
    assert aligned.rows["row_id"].tolist() == kept
    expected = pd.read_csv(short).set_index("row_id").loc[kept]
    np.testing.assert_allclose(aligned.probabilities[1], expected.to_numpy())
    foreign = rows.assign(row_id=rows["row_id"] + "x")
    alone = read_members([predictions(tmp_path / "foreign.csv", foreign)], results)
    with pytest.raises(PredictionError, match=r"rows in common, got none, in 1 model\(s\) and two"):
        align(alone, targets_of(alone, "two", results), "common")


def test_an_eeg_names_a_row_where_it_has_one_only(results: Path, tmp_path: Path) -> None:
    rows = make_rows()
    frame = pd.read_csv(predictions(tmp_path / "x.csv", rows)).drop(columns="row_id")
    file = written(tmp_path / "eegs.csv", frame.assign(eeg_id=rows["eeg_id"]))
    members = read_members([file], results)
    found = targets_of(members, "one", results)
    np.testing.assert_allclose(align(members, found).probabilities[0], frame.to_numpy())
    make_study(tmp_path, "three", rows.assign(eeg_id=rows["eeg_id"] // 2))
    with pytest.raises(PredictionError, match=r"by eeg_id alone need targets with one row an EEG"):
        align(members, targets_of(members, "three", results))
    labelled = written(file, frame.assign(eeg_id=rows["eeg_id"], eeg_sub_id=0))
    members = read_members([labelled], results)
    with pytest.raises(PredictionError, match="need targets of label rows, got eegs with the targ"):
        align(members, found)


def test_studies_must_agree_on_their_rows(results: Path, tmp_path: Path) -> None:
    rows = make_rows()
    rows.loc[3, "total_votes"] += 1
    add_trials(make_study(tmp_path, "three", rows), [0])
    members = read_members(["one", "three"], results)
    message = (
        r"targets, patients and total votes of a row must be the same everywhere, got others in "
        r"three than in one, in 1 row\(s\): 3-0$"
    )
    with pytest.raises(PredictionError, match=message):
        align(members, targets_of(members))


def test_families_are_given_by_patterns(results: Path) -> None:
    members = read_members(["one", "two"], results)
    found = with_families(members, ["odd=*1", "odd=two/*"])
    labels = {member.name: member.family for member in found}
    assert labels == {
        "one/0000": "one", "one/0001": "odd", "one/0002": "one", "two/0004": "odd",
    }  # fmt: skip
    for word in ("odd", "odd=none/*", "=one/*"):
        message = "a family is given as FAMILY=PATTERN, .*, got " + word.replace("*", r"\*")
        with pytest.raises(PredictionError, match=message):
            with_families(members, [word])


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    rows = make_rows()
    files = [predictions(tmp_path / name / "oof.csv", rows) for name in "ab"]
    assert [member.name for member in read_members(files)] == [str(file) for file in files]
    with pytest.raises(PredictionError, match=r"a model must be given once, got .*oof\.csv twice"):
        read_members([files[0], files[0]])
