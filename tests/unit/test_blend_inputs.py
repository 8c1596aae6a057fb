"""Studies, trials, ladders, fold keys and files as models on the same rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.align import align
from hms_ray.blend.members import read_members, targets_of, with_families, without_copies
from hms_ray.config.loading import validate_space
from hms_ray.errors import ConfigError, PredictionError, StudyError
from hms_ray.evaluate.oof import make_oof
from hms_ray.ladder.folder import write_ladder
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from tests.blend_data import make_rows, predictions, targets, written
from tests.ladder_data import ABOUT, ladder
from tests.refused import refusal


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
    ("source", "rule", "got", "where", "fix"),
    [
        ("twoo", "an input must be STUDY", "twoo (did you mean two?)", "results", ""),
        ("tow/0000", "an input must be STUDY", "(did you mean two?)", "results", ""),
        ("one/0009", "must have finished", "0009, which does not exist", "one", "best first: 00"),
        ("one/0007", "must have finished", "0007, which failed: lost", "one", "best first: 00"),
        ("0" * 64, "a fold must be in the store", "0" * 64, "", ""),
    ],
)
def test_unknown_inputs_are_refused_with_the_nearest_name(
    results: Path, source: str, rule: str, got: str, where: str, fix: str
) -> None:
    study = StudyFolder(results / "one")
    study.write_failure(7, {}, study.space().experiment, "lost")
    with refusal(StudyError, rule, got=got, where=where, fix=fix):
        read_members([source], results)


def test_a_model_given_twice_is_refused(results: Path) -> None:
    with refusal(PredictionError, "given once", got="one/0001 twice"):
        read_members(["one", "one/0001"], results)


def record(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The record of a stored fold of an experiment."""
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


def store_fold(results: Path, key: str, oof: pd.DataFrame, made: dict[str, Any]) -> None:
    FoldStore(results).write(key * 64, oof, made, lambda path: path.write_bytes(b"w"))


def test_folds_of_two_experiments_are_refused(tmp_path: Path) -> None:
    rows = make_rows()
    for fold, seed in enumerate((1, 2)):
        oof = make_oof(rows[rows["fold"] == fold], fold, np.eye(6)[np.zeros(20, int)])
        made = record({"training": {"seed": seed}, "data": {"unit": "label"}})
        store_fold(tmp_path, str(fold), oof, made)
    (alone,) = read_members(["1" * 64], tmp_path)
    assert (alone.keys, alone.optimistic) == ("label", False)
    store_fold(tmp_path, "4", oof, {**made, "optimistic": True})
    (alone,) = read_members(["4" * 64], tmp_path)
    assert alone.optimistic
    got = "another in fold 111111111111 than in 000000000000: training.seed was 1, is 2"
    with refusal(StudyError, "the same experiment", got=got, where="folds 0", fix="cache keys"):
        read_members([f"{'0' * 64},{'1' * 64}"], tmp_path)


def test_cache_keys_of_folds_are_one_model(results: Path) -> None:
    rows = make_rows()
    values = np.random.default_rng(5).dirichlet(np.ones(6), size=len(rows))
    keys = [str(fold) * 64 for fold in range(3)]
    for fold in range(3):
        inside = (rows["fold"] == fold).to_numpy()
        store_fold(results, str(fold), make_oof(rows[inside], fold, values[inside]), record())
    (member,) = read_members([",".join(reversed(keys))], results)
    assert member.origin == {"keys": dict(zip("210", reversed(keys), strict=True))}
    assert member.name == "folds 222222222222"
    assert member.minutes == pytest.approx(3 * (90 + 30) / 60)
    targets = targets_of([member], "one", results)
    np.testing.assert_allclose(align([member], targets).probabilities[0], values)
    with refusal(PredictionError, "must not share rows", got="20 row"):
        read_members([f"{keys[0]},{keys[0]}"], results)
    inside = (rows["fold"] == 1).to_numpy()
    store_fold(results, "3", make_oof(rows[inside], 0, values[inside]), record())
    with refusal(PredictionError, "different numbers", got="0, 0", where="000000000000 and 1 more"):
        read_members([f"{keys[0]},{'3' * 64}"], results)
    (part,) = read_members([keys[1]], results)
    with refusal(PredictionError, "the rows of one", got="folds 111111111111 lacks 40 of 60 (0-0,"):
        align([part], targets)
    with refusal(PredictionError, "need targets", fix="--targets"):
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
    with refusal(StudyError, "targets must be a study, a ladder", got="rung (did you mean rungs?)"):
        targets_of(members, "rung", tmp_path)
    with refusal(StudyError, "the ladder must have the step", got="panel (did you mean panels?)"):
        read_members(["rungs/panel"], tmp_path)


def test_studies_and_files_are_aligned(results: Path, tmp_path: Path) -> None:
    file = predictions(tmp_path / "mine.csv", make_rows().sample(frac=1, random_state=0))
    members = read_members(["two", file], results)
    assert [member.name for member in members] == ["two/0004", "mine"]
    assert members[1].origin == {"file": str(file)}
    aligned = align(members, targets_of(members))
    expected = pd.read_csv(file).set_index("row_id").loc[make_rows()["row_id"]]
    np.testing.assert_allclose(aligned.probabilities[1], expected.to_numpy())
    np.testing.assert_allclose(aligned.targets, targets(make_rows()))


def test_an_unknown_total_agrees_with_any(results: Path, tmp_path: Path) -> None:
    rows = make_rows()
    rows["total_votes"] = rows["total_votes"].astype("Int64")
    rows.loc[3, "total_votes"] = pd.NA
    file = written(tmp_path / "votes.parquet", rows)
    members = read_members(["one"], results)
    found = targets_of(members, str(file), results)
    assert (found.n_unknown, found.rows.loc[3, "total_votes"]) == (1, 0)
    assert align(members, found).votes[3] == 0


def test_a_study_with_damaged_rows_is_refused(results: Path) -> None:
    file = results / "one" / "rows.parquet"
    file.write_bytes(b"no")
    with refusal(StudyError, "rows.parquet must be readable", where="one", fix="another name"):
        read_members(["one"], results)
    file.unlink()
    with refusal(StudyError, "rows.parquet must be readable", got="no file", where="one"):
        targets_of([], "one", results)


def test_a_study_of_an_earlier_version_is_read(results: Path) -> None:
    """Its search space may have fields that were renamed since."""
    file = results / "one" / "space.yaml"
    file.write_text(file.read_text().replace("downsample:", "pool:"))
    members = read_members(["one"], results)
    assert len(align(members, targets_of(members)).rows) == len(make_rows())
    file.write_text(file.read_text().replace("unit: eeg_votes", "unit: eeg_vote"))
    with refusal(ConfigError, "experiment.data.unit: ", where="space.yaml"):
        read_members(["one"], results)


def test_families_are_given_by_patterns(results: Path) -> None:
    members = read_members(["one", "two"], results)
    found = with_families(members, ["odd=*1", "odd=two/*"])
    labels = {member.name: member.family for member in found}
    assert labels == {
        "one/0000": "one", "one/0001": "odd", "one/0002": "one", "two/0004": "odd",
    }  # fmt: skip
    for text in ("odd", "odd=none/*", "=one/*"):
        with refusal(PredictionError, "FAMILY=PATTERN", got=text, fix="one/0000, "):
            with_families(members, [text])


def test_files_with_the_same_name_are_named_by_path(tmp_path: Path) -> None:
    rows = make_rows()
    files = [predictions(tmp_path / name / "oof.csv", rows) for name in "ab"]
    assert [member.name for member in read_members(files)] == [str(file) for file in files]
    with refusal(PredictionError, "given once", got="oof.csv twice"):
        read_members([files[0], files[0]])


def test_identical_models_are_named_and_counted_once_on_request(results: Path) -> None:
    members = read_members(["one", "two"], results)
    assert without_copies(members, drop=True) == (members, ())
    order = np.random.default_rng(0).permutation(len(members[0].ids))
    copy = replace(
        members[0],
        name="copy",
        ids=members[0].ids[order],
        probabilities=members[0].probabilities[order],
    )
    near = members[0].probabilities.copy()
    near[0, 0] += 1e-15
    other = replace(members[0], name="near", probabilities=near)
    names = ", ".join([members[0].name, "copy"])
    kept, (line,) = without_copies([*members, copy, other], drop=False)
    assert [member.name for member in kept[-2:]] == ["copy", "near"]
    assert line.startswith("Identical predictions, each counted")
    assert line.endswith(f": {names}.")
    kept, (line,) = without_copies([*members, copy, other], drop=True)
    assert [member.name for member in kept] == [*(one.name for one in members), "near"]
    assert line == f"Identical predictions, counted once: {names}."
