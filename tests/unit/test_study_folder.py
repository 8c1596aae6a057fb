"""A study's folder: trials, runs, names and damaged files."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hms_ray.config.loading import load_space
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import StudyError
from hms_ray.study.folder import StudyFolder
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.new import create_study
from tests.refused import refusal
from tests.study_data import RATE, make_result, make_space

EXPERIMENT = make_space().experiment


@pytest.fixture
def folder(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path / "results", "one", make_space(), prepared)


def test_a_trial_is_read_as_it_was_written(tmp_path: Path, folder: StudyFolder) -> None:
    result = make_result(0.5)
    folder.write_trial(3, {RATE: 0.001}, EXPERIMENT, result)
    trial = StudyFolder.open("one", tmp_path / "results").trial(3)
    assert trial is not None
    assert trial.finished
    assert (trial.number, trial.point, trial.scores) == (3, {RATE: 0.001}, result.scores)
    assert (trial.keys, trial.reused) == (result.keys, (1,))
    assert (trial.fold_minutes, trial.saved_minutes) == (1.5, 0.5)
    assert trial.experiment == EXPERIMENT
    pd.testing.assert_frame_equal(trial.oof(folder.rows()), result.oof)
    assert folder.trial(4) is None
    assert [path.name for path in (folder.path / "trials").iterdir()] == ["0003"]


def test_file_of_a_trial_trains_its_folds_with_the_same_cache_keys(
    tmp_path: Path, prepared: Prepared
) -> None:
    # The remedy for a lost fold names this file.
    space = make_space(resources={"workers": 2, "gpus_per_worker": 0.5})
    folder = create_study(tmp_path, "two", space, prepared)
    folder.write_trial(0, {}, EXPERIMENT, make_result(0.5))
    again = load_space(folder.trial_path(0) / "experiment.yaml")
    assert (again.experiment, again.resources) == (EXPERIMENT, space.resources)


def test_predictions_of_other_rows_are_refused(folder: StudyFolder) -> None:
    folder.write_trial(0, {}, EXPERIMENT, make_result(0.5))
    trial = folder.trial(0)
    assert trial is not None
    others = pd.concat([folder.rows(), folder.rows().assign(row_id=["3-0", "4-0"])])
    with refusal(StudyError, "every training row", got="2 of 4 missing", fix="Move the trial"):
        trial.oof(others)


def test_missing_predictions_name_their_trial(folder: StudyFolder) -> None:
    for number in (0, 1):
        folder.write_trial(number, {}, EXPERIMENT, make_result(0.5))
    (folder.trial_path(1) / "oof.parquet").unlink()
    with refusal(StudyError, "must exist", where="0001/oof.parquet", fix="Move the trial"):
        Leaderboard(folder)


def test_a_trial_is_written_as_a_whole_or_not_at_all(folder: StudyFolder) -> None:
    broken = make_result(float("nan"))
    with pytest.raises(ValueError, match="Out of range float"):
        folder.write_trial(0, {}, EXPERIMENT, broken)
    assert folder.trials() == []
    assert list((folder.path / "trials").iterdir()) == []
    # The same trial again, after its process was lost between writing and reporting.
    folder.write_trial(0, {}, EXPERIMENT, make_result(0.5))
    folder.write_trial(0, {}, EXPERIMENT, make_result(0.5))
    assert len(folder.trials()) == 1


def test_the_leaderboard_lists_the_best_trial_first_and_failures(folder: StudyFolder) -> None:
    for number, score in enumerate([0.6, 0.4, 0.5]):
        folder.write_trial(number, {RATE: 0.001}, EXPERIMENT, make_result(score, optimistic=True))
    folder.write_failure(3, {RATE: 0.002}, EXPERIMENT, "a model must be known", "Tr")
    assert [trial.number for trial in folder.finished_trials()] == [1, 2, 0]
    assert [trial.number for trial in folder.trials()] == [0, 1, 2, 3]
    assert (folder.trial_path(3) / "error.txt").read_text() == "Tr"
    Leaderboard(folder).write_csv()
    board = pd.read_csv(folder.path / "leaderboard.csv", dtype={"trial": str})
    assert board["trial"].tolist() == ["0001", "0002", "0000", "0003"]
    assert board[RATE].tolist() == [0.001, 0.001, 0.001, 0.002]
    printed = Leaderboard(folder).text()
    assert "optimistic" in printed
    assert "trial 0003 failed: a model must be known" in printed


def test_a_failure_does_not_replace_a_result(folder: StudyFolder) -> None:
    folder.write_failure(0, {}, EXPERIMENT, "first")
    folder.write_failure(0, {}, EXPERIMENT, "second")
    assert [trial.reason for trial in folder.trials()] == ["second"]
    folder.write_trial(0, {}, EXPERIMENT, make_result(0.5))
    folder.write_failure(0, {}, EXPERIMENT, "third")
    assert [(trial.finished, trial.scores["kl_10"]) for trial in folder.trials()] == [(True, 0.5)]
    assert not (folder.trial_path(0) / "error.txt").exists()


def test_equal_scores_are_ordered_by_number(folder: StudyFolder) -> None:
    for number, score in enumerate([0.5, 0.4, 0.5, 0.4]):
        folder.write_trial(number, {}, EXPERIMENT, make_result(score))
    assert [trial.number for trial in folder.finished_trials()] == [1, 3, 0, 2]


def test_folder_of_a_killed_start_is_reused(tmp_path: Path, prepared: Prepared) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "rows.parquet").write_bytes(b"half a fi")
    (tmp_path / "one" / "space.yaml").write_text("parameters: {")
    (tmp_path / "one" / ".draft-0").write_bytes(b"half")
    folder = create_study(tmp_path, "one", make_space(), prepared)
    assert len(folder.rows()) == 2


@pytest.mark.parametrize("name", ["thesis.txt", "space.yaml", "leaderboard.csv", "blend"])
def test_a_folder_with_other_files_is_left_alone(
    tmp_path: Path, prepared: Prepared, name: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).touch()
    with pytest.raises(StudyError, match="a new study needs a folder of its own"):
        create_study(tmp_path, "mine", make_space(), prepared)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == [name]


def test_mistyped_study_names_its_nearest_relative(tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(StudyError, match="hms-ray sweep"):
        StudyFolder.open("one", tmp_path)
    create_study(tmp_path, "one", make_space(), prepared)
    with pytest.raises(StudyError, match=r"got oen \(did you mean one\?\)"):
        StudyFolder.open("oen", tmp_path)
    assert StudyFolder.open(tmp_path / "one").name == "one"


def test_a_damaged_trial_is_refused_with_its_file(folder: StudyFolder) -> None:
    folder.write_trial(0, {}, EXPERIMENT, make_result(0.5))
    (folder.trial_path(0) / "result.json").write_text("{")
    rule, fix = "result.json must be readable", "Move the trial's folder away"
    with refusal(StudyError, rule, got="JSON", where="0000/result.json", fix=fix):
        folder.trials()


@pytest.mark.parametrize(
    ("name", "content", "rule", "got"),
    [
        ("study.json", "{", "study.json must be readable", "JSONDecodeError"),
        ("study.json", b"\xff", "study.json must be readable", "UnicodeDecodeError"),
        ("study.json", "[]", "study.json must hold a mapping", "list"),
        ("study.json", '{"format": 99}', "must have format 1", "99"),
        ("study.json", '{"format": 1}', "study.json must hold the study's identity", "none"),
        ("environment.json", "{", "environment.json must be readable", "JSONDecodeError"),
        ("environment.json", "{}", "environment.json must hold a list", "dict"),
        ("trials/0000/result.json", "[]", "result.json must hold a mapping", "list"),
        ("trials/0000/result.json", "{}", "result.json must be readable", "KeyError: 'number'"),
        ("rows.parquet", "", "rows.parquet must be readable", ""),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, prepared: Prepared, name: str, content: str | bytes, rule: str, got: str
) -> None:
    path = create_study(tmp_path, "one", make_space(), prepared).path
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def read() -> None:
        folder = StudyFolder(path)
        folder.record_run({})
        folder.trials()
        folder.rows()

    with refusal(StudyError, rule, got=got, where=str(path)):
        read()


def test_every_run_is_recorded(folder: StudyFolder) -> None:
    folder.record_run({"python": "3.11"})
    folder.record_run({"python": "3.12"})
    runs = json.loads((folder.path / "environment.json").read_text())
    assert [run["python"] for run in runs] == ["3.11", "3.12"]


def test_trials_with_equal_predictions_are_ties(folder: StudyFolder) -> None:
    for number, score in ((0, 0.5), (1, 0.4)):
        folder.write_trial(number, {RATE: 0.001}, EXPERIMENT, make_result(score))
    board = Leaderboard(folder).frame()
    assert list(board["trial"]) == ["0001", "0000"]
    assert list(board["tied"]) == [False, True]
