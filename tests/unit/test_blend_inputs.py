"""Studies, trials, ladders, fold keys and files as models on the same rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.align import align
from hms_ray.blend.members import read_members, targets_of, with_families
from hms_ray.competition.schema import VOTE_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.oof import make_oof
from hms_ray.ladder.folder import write_ladder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from tests.blend_data import add_trials, make_rows, make_study, predictions, targets, written
from tests.ladder_data import ABOUT, ladder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Studies one and two on the same rows, with three trials and one."""
    add_trials(make_study(tmp_path, "one"), range(3), optimistic=[1])
    add_trials(make_study(tmp_path, "two"), [4])
    return tmp_path / "results"


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
                r"keys KEY,KEY,\.\.\. or a \.csv or \.parquet file, got three, in .*results\. "
                r"There are: one, two\.$"
            ),
        ),
        (
            ["one/0009"],
            (
                "a trial must have finished before it is blended, got trial 0009 is not "
                r"there, in .*one\. Finished, best first: 000\d, 000\d, 000\d\.$"
            ),
        ),
        (["one/0007"], r"a trial must have finished .*, got trial 0007 failed: lost, in .*one\. F"),
        (["one", "one/0001"], "a model must be given once, got one/0001 twice$"),
        (["0" * 64], "a fold must be in the store before it is read, got nothing under 0{64}, in"),
    ],
)
def test_what_is_no_input_is_told(results: Path, words: list[str], message: str) -> None:
    study = StudyFolder(results / "one")
    study.write_failure(7, {}, study.space().experiment, "lost")
    with pytest.raises((StudyError, PredictionError), match=message):
        read_members(words, results)


def record(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the store keeps of a fold of an experiment."""
    experiment = validate_space({"experiment": changes or {}}, "test").experiment
    described = experiment.model_dump(mode="json")
    return {
        "made_from": {"experiment": described},
        "resolved": described,
        "normalisation": {},
        "precision": "float32",
        "seconds": 90.0,
        "saved_s": 30.0,
    }


def test_keys_of_folds_are_of_one_experiment(tmp_path: Path) -> None:
    store, rows = FoldStore(tmp_path), make_rows()
    for fold, seed in enumerate((1, 2)):
        oof = make_oof(rows[rows["fold"] == fold], fold, np.eye(6)[np.zeros(20, int)])
        made = record({"training": {"seed": seed}, "data": {"unit": "label"}})
        store.write(str(fold) * 64, oof, made, lambda path: path.write_bytes(b"w"))
    (alone,) = read_members(["1" * 64], tmp_path)
    assert (alone.keys, alone.optimistic) == ("label", False)
    best = {**made, "optimistic": True}
    store.write("4" * 64, oof, best, lambda path: path.write_bytes(b"w"))
    (alone,) = read_members(["4" * 64], tmp_path)
    assert alone.optimistic
    message = (
        r"^folds of one model must be of one experiment, got another in fold 1{12} than in "
        r"0{12}: training\.seed was 1, is 2, in folds 0{12}\. Join by commas the keys of "
        r"one model's folds only\.$"
    )
    with pytest.raises(StudyError, match=message):
        read_members([f"{'0' * 64},{'1' * 64}"], tmp_path)
    store.write("2" * 64, oof, {}, lambda path: path.write_bytes(b"w"))
    with pytest.raises(
        StudyError, match=r"got record\.json lacks what predicting needs, in .*2{64}"
    ):
        read_members(["2" * 64], tmp_path)


def test_keys_of_folds_are_one_model(results: Path) -> None:
    store, rows = FoldStore(results), make_rows()
    values = np.random.default_rng(5).dirichlet(np.ones(6), size=len(rows))
    keys = [str(fold) * 64 for fold in range(3)]
    for fold, key in enumerate(keys):
        inside = (rows["fold"] == fold).to_numpy()
        oof = make_oof(rows[inside], fold, values[inside])
        store.write(key, oof, record(), lambda path: path.write_bytes(b"w"))
    (member,) = read_members([",".join(reversed(keys))], results)
    assert member.origin == {"keys": dict(zip("210", reversed(keys), strict=True))}
    assert member.name == "folds 222222222222"
    assert member.minutes == pytest.approx(3 * (90 + 30) / 60)
    targets = targets_of([member], "one", results)
    np.testing.assert_allclose(align([member], targets).probabilities[0], values)
    with pytest.raises(
        PredictionError, match=r"folds of one model must not share rows, got 20 row"
    ):
        read_members([f"{keys[0]},{keys[0]}"], results)
    inside = (rows["fold"] == 1).to_numpy()
    oof = make_oof(rows[inside], 0, values[inside])
    store.write("3" * 64, oof, record(), lambda path: path.write_bytes(b"w"))
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
    message = (
        r"targets must be those of a study, of a ladder, or of a \.csv or \.parquet file, got "
        r"gone, in .*\. There are: addressed, rungs\.$"
    )
    with pytest.raises(StudyError, match=message):
        targets_of(members, "gone", tmp_path)
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


def test_studies_must_agree_on_their_rows(results: Path, tmp_path: Path) -> None:
    rows = make_rows()
    rows.loc[3, "total_votes"] += 1
    add_trials(make_study(tmp_path, "three", rows), [0])
    members = read_members(["one", "three"], results)
    message = (
        r"targets, patients and total votes of a row must be the same everywhere, got total_votes "
        r"3 in three and 2 in one, in 1 row\(s\): 3-0$"
    )
    with pytest.raises(PredictionError, match=message):
        align(members, targets_of(members))


@pytest.mark.parametrize(("moved", "same"), [(4e-7, True), (1e-5, False)])
def test_shares_that_were_rounded_are_the_same(
    results: Path, tmp_path: Path, moved: float, same: bool
) -> None:
    rows = make_rows()
    rows.loc[3, "seizure_target"] += moved
    rows.loc[3, "lpd_target"] -= moved
    add_trials(make_study(tmp_path, "three", rows), [0])
    members = read_members(["one", "three"], results)
    if same:
        assert align(members, targets_of(members)).n_dropped == 0
        return
    with pytest.raises(PredictionError, match=r"everywhere, got seizure_target .*row\(s\): 3-0$"):
        align(members, targets_of(members))


def test_a_total_that_is_not_known_contradicts_none(results: Path, tmp_path: Path) -> None:
    rows = make_rows()
    rows["total_votes"] = rows["total_votes"].astype("Int64")
    rows.loc[3, "total_votes"] = pd.NA
    file = written(tmp_path / "votes.parquet", rows)
    members = read_members(["one"], results)
    found = targets_of(members, str(file), results)
    assert (found.n_unknown, found.rows.loc[3, "total_votes"]) == (1, 0)
    aligned = align(members, found)
    assert aligned.votes[3] == 0


def test_three_models_on_other_rows_are_named(results: Path, tmp_path: Path) -> None:
    rows = make_rows()
    files = [predictions(tmp_path / f"short{n}.csv", rows[n:]) for n in range(1, 6)]
    message = r"short1 lacks 1 .*; short2 lacks 2 .*; short3 lacks 3 .*\); and 2 more\. With --rows"
    for n, told in ((5, message), (3, r"short3 lacks 3 of 60 \(0-0, 1-0, 2-0\)\. With --rows")):
        members = read_members(files[:n], results)
        with pytest.raises(PredictionError, match=told) as refused:
            align(members, targets_of(members, "one", results))
        assert "short4" not in str(refused.value)


def test_a_study_without_its_rows_is_told(results: Path) -> None:
    file = results / "one" / "rows.parquet"
    file.write_bytes(b"no")
    message = (
        r"a study's rows\.parquet must be there and readable, got .*, in .*one\. Start the study "
        r"again under another name: its folds stay in the store\.$"
    )
    with pytest.raises(StudyError, match=message):
        read_members(["one"], results)
    file.unlink()
    with pytest.raises(StudyError, match=r"readable, got none, in .*one\. Start"):
        targets_of([], "one", results)


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


def test_votes_are_no_model(results: Path, tmp_path: Path) -> None:
    rows = make_rows()
    votes = rows[["row_id"]].assign(**dict(zip(VOTE_COLUMNS, targets(rows).T, strict=True)))
    votes.to_csv(tmp_path / "votes.csv", index=False)
    members = read_members(["one", tmp_path / "votes.csv"], results)
    message = (
        r"^a model must predict, not repeat the votes, got the targets of one for every row, in "
        r"votes\. Give the file of votes as --targets only\.$"
    )
    with pytest.raises(PredictionError, match=message):
        align(members, targets_of(members, "one", results))
