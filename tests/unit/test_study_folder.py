import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.config import Space
from hms_ray.config_file import validate_space
from hms_ray.errors import ModelError, StudyError
from hms_ray.experiment import ExperimentResult
from hms_ray.prepare import PackRef, Prepared
from hms_ray.study import folder as folder_module
from hms_ray.study import new
from hms_ray.study.folder import StudyFolder, print_leaderboard

RATE = "training.learning_rate"


def make_space(**others: object) -> Space:
    search = {RATE: {"float": [1e-4, 1e-2], "log": True}}
    return validate_space({"search": search, **others}, "test")


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    rows = pd.DataFrame(
        {
            "row_id": ["1-0", "2-0"],
            "eeg_id": [1, 2],
            "patient_id": [10, 20],
            "total_votes": [3, 12],
            "fold": [0, 1],
        }
    )
    rows[list(TARGET_COLUMNS)] = np.eye(6)[:2]
    rows.to_parquet(tmp_path / "rows.parquet")
    packs = {"kaggle": PackRef(tmp_path / "pack", "p" * 64)}
    return Prepared(tmp_path / "rows.parquet", packs, "r" * 64, "f" * 64, 2)


def make_result(kl_10: float, optimistic: bool = False) -> ExperimentResult:
    oof = pd.DataFrame(
        {"row_id": ["1-0", "2-0"], "eeg_id": [1, 2], "patient_id": [10, 20], "fold": [0, 1]}
    )
    oof[list(PROBABILITY_COLUMNS)] = np.full((2, 6), 1 / 6)
    return ExperimentResult(
        scores={"kl_all": kl_10 + 0.1, "kl_4": None, "kl_10": kl_10},
        oof=oof,
        keys={0: "a" * 64, 1: "b" * 64},
        reused=(1,),
        optimistic=optimistic,
        fold_minutes=1.5,
        saved_minutes=0.5,
    )


def test_a_trial_is_read_as_it_was_written(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    experiment = make_space().experiment
    result = make_result(0.5)
    folder.write_trial(3, {RATE: 0.001}, experiment, result)
    trial = StudyFolder.open("one", tmp_path / "results").trial(3)
    assert trial is not None
    assert trial.finished
    assert (trial.number, trial.point, trial.scores) == (3, {RATE: 0.001}, result.scores)
    assert (trial.keys, trial.reused) == (result.keys, (1,))
    assert (trial.fold_minutes, trial.saved_minutes) == (1.5, 0.5)
    assert trial.experiment == experiment
    pd.testing.assert_frame_equal(trial.oof(folder.rows()), result.oof)
    assert folder.trial(4) is None
    assert [path.name for path in (folder.path / "trials").iterdir()] == ["0003"]


def test_a_trial_written_before_stages_were_shared_is_read(
    tmp_path: Path, prepared: Prepared
) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    folder.write_trial(0, {}, make_space().experiment, make_result(0.5))
    file = folder.trial_path(0) / "result.json"
    old = json.loads(file.read_text())
    del old["saved_minutes"]
    file.write_text(json.dumps(old))
    trial = folder.trial(0)
    assert trial is not None
    assert (trial.fold_minutes, trial.saved_minutes) == (1.5, 0)
    assert folder.leaderboard()["saved_minutes"].tolist() == [0]


def test_predictions_of_other_rows_are_refused(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    folder.write_trial(0, {}, make_space().experiment, make_result(0.5))
    trial = folder.trial(0)
    assert trial is not None
    others = pd.concat([folder.rows(), folder.rows().assign(row_id=["3-0", "4-0"])])
    message = r"every training row must be predicted, got 2 of 4 missing.*Move that trial's"
    with pytest.raises(StudyError, match=message):
        trial.oof(others)


def test_missing_predictions_name_their_trial(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    for number in (0, 1):
        folder.write_trial(number, {}, make_space().experiment, make_result(0.5))
    (folder.trial_path(1) / "oof.parquet").unlink()
    message = r"predictions must exist, got none, in .*0001/oof\.parquet\. Move that trial's folder"
    with pytest.raises(StudyError, match=message):
        folder.leaderboard()


def test_a_trial_appears_as_a_whole_or_not_at_all(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    broken = make_result(float("nan"))
    with pytest.raises(ValueError, match="Out of range float"):
        folder.write_trial(0, {}, make_space().experiment, broken)
    assert folder.trials() == []
    assert list((folder.path / "trials").iterdir()) == []
    # The same trial again, after its process was lost between writing and telling.
    folder.write_trial(0, {}, make_space().experiment, make_result(0.5))
    folder.write_trial(0, {}, make_space().experiment, make_result(0.5))
    assert len(folder.trials()) == 1


def test_the_best_trial_is_first_and_failures_are_told(
    tmp_path: Path, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    for number, score in enumerate([0.6, 0.4, 0.5]):
        folder.write_trial(
            number, {RATE: 0.001}, make_space().experiment, make_result(score, optimistic=True)
        )
    folder.write_failure(3, {RATE: 0.002}, make_space().experiment, "a model must be known", "Tr")
    assert [trial.number for trial in folder.finished_trials()] == [1, 2, 0]
    assert [trial.number for trial in folder.trials()] == [0, 1, 2, 3]
    assert (folder.trial_path(3) / "error.txt").read_text() == "Tr"
    folder.write_leaderboard()
    board = pd.read_csv(folder.path / "leaderboard.csv", dtype={"trial": str})
    assert board["trial"].tolist() == ["0001", "0002", "0000", "0003"]
    assert board[RATE].tolist() == [0.001, 0.001, 0.001, 0.002]
    print_leaderboard("one", tmp_path / "results")
    printed = capsys.readouterr().out
    assert "optimistic" in printed
    assert "trial 0003 failed: a model must be known" in printed


@pytest.mark.parametrize(
    "changed",
    [
        {"study": {"n_trials": 50}},
        {"resources": {"cpus_per_worker": 4, "group": "trial", "max_failures": 9}},
        {"experiment": {"name": "other"}},
    ],
)
def test_a_study_goes_on_with_what_changes_no_result(
    tmp_path: Path, prepared: Prepared, changed: dict
) -> None:
    StudyFolder.create(tmp_path, "one", make_space(), prepared)
    space = make_space(**changed)
    folder = StudyFolder.create(tmp_path, "one", space, prepared)
    with folder.lock():
        folder.keep_space(space)
    assert folder.space() == space


def test_a_running_studys_space_is_left_alone(tmp_path: Path, prepared: Prepared) -> None:
    running = StudyFolder.create(tmp_path, "one", make_space(), prepared)
    assert running.space() == make_space()
    with running.lock():
        second = StudyFolder.create(tmp_path, "one", make_space(study={"n_trials": 50}), prepared)
        with pytest.raises(StudyError, match="one command at a time"), second.lock():
            pass
        assert running.space() == make_space()


def weights(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    return str(file)


def test_weights_are_told_by_their_content(tmp_path: Path, prepared: Prepared) -> None:
    def create(content: bytes, name: str) -> StudyFolder:
        model = {"weights_file": weights(tmp_path / name, content)}
        return StudyFolder.create(
            tmp_path / "results", "one", make_space(experiment={"model": model}), prepared
        )

    create(b"first", "a.pt").write_failure(0, {}, make_space().experiment, "lost")
    create(b"first", "b.pt")
    with pytest.raises(StudyError, match=r"weights\.experiment was a7937b64b8ca\.\.\."):
        create(b"second", "a.pt")
    with pytest.raises(StudyError, match=r"weights\.experiment was .*, is absent"):
        StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)


@pytest.mark.parametrize(
    ("path", "none", "value"),
    [
        ("model.weights_file", None, lambda file: file),
        ("model", {}, lambda file: {"weights_file": file}),
    ],
)
def test_searched_weights_are_told_by_their_content(
    tmp_path: Path, prepared: Prepared, path: str, none: object, value: Callable[[str], object]
) -> None:
    file = tmp_path / "a.pt"
    choices = {"none": none, "a": value(str(file))}

    def create() -> StudyFolder:
        search = {path: {"choices": choices}}
        return StudyFolder.create(
            tmp_path / "results", "one", validate_space({"search": search}, "test"), prepared
        )

    weights(file, b"first")
    create().write_failure(0, {}, make_space().experiment, "lost")
    create()
    weights(file, b"second")
    with pytest.raises(StudyError, match="goes on with the space") as caught:
        create()
    assert f"weights.{path}.a was " in str(caught.value)
    file.unlink()
    with pytest.raises(ModelError, match="must be a readable file"):
        create()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"study": {"objective": "kl_all"}}, "study.objective was kl_10, is kl_all"),
        ({"study": {"seed": 1}}, "study.seed was 0, is 1"),
        ({"resources": {"workers": 2}}, "resources.workers was 1, is 2"),
        ({"resources": {"gpus_per_worker": 1}}, "resources.device was cpu, is cuda"),
        ({"experiment": {"training": {"seed": 1}}}, "experiment.training.seed was 0, is 1"),
        (
            {"experiment": {"training": {"stages": [{"epochs": 7}]}}},
            "experiment.training.stages.0.epochs was 6, is 7",
        ),
        ({"search": {}}, f"search.{RATE}.float was [0.0001, 0.01], is absent"),
        ({"start": [{RATE: 0.001}]}, f"start.0.{RATE} was absent, is 0.001"),
    ],
)
def test_another_study_is_refused_by_what_differs(
    tmp_path: Path, prepared: Prepared, changed: dict, named: str
) -> None:
    folder = StudyFolder.create(tmp_path, "one", make_space(), prepared)
    folder.write_failure(0, {}, make_space().experiment, "lost")
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    base = {"search": {RATE: {"float": [1e-4, 1e-2], "log": True}}}
    with pytest.raises(StudyError, match="a study goes on with the space") as caught:
        StudyFolder.create(tmp_path, "one", validate_space({**base, **changed}, "test"), prepared)
    assert named in str(caught.value)
    after = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    assert after == before


def test_other_data_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path, "one", make_space(), prepared)
    folder.write_failure(0, {}, make_space().experiment, "lost")
    other = replace(prepared, packs={"kaggle": PackRef(tmp_path / "pack", "q" * 64)})
    with pytest.raises(StudyError, match=r"data\.packs\.kaggle was pppppppppppp\.\.\."):
        StudyFolder.create(tmp_path, "one", make_space(), other)


def test_a_study_without_trials_is_made_anew(tmp_path: Path, prepared: Prepared) -> None:
    first = StudyFolder.create(tmp_path, "one", make_space(resources={"workers": 1000}), prepared)
    first.journal.touch()
    again = StudyFolder.create(tmp_path, "one", make_space(resources={"workers": 2}), prepared)
    assert again.space().resources.workers == 2
    assert not again.journal.exists()
    with again.lock(), pytest.raises(StudyError, match="one command at a time"):
        StudyFolder.create(tmp_path, "one", make_space(), prepared)


def other_data(tmp_path: Path, prepared: Prepared) -> Prepared:
    rows = prepared.rows().assign(fold=[1, 0])
    rows.to_parquet(tmp_path / "other.parquet")
    changed = {"rows_file": tmp_path / "other.parquet", "folds_fingerprint": "g" * 64}
    return Prepared(**{**vars(prepared), **changed})


@pytest.mark.parametrize("step", ["rows", "write_space", "write_text"])
def test_a_remake_that_is_killed_leaves_no_other_rows(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    results = tmp_path / "results"
    first = StudyFolder.create(results, "one", make_space(), prepared)
    first.record_run({"python": "3.11"})
    first.scratch.mkdir()
    first.write_leaderboard()
    for name in ("optuna.journal", "optuna.journal.lock"):
        (first.path / name).touch()
    other = other_data(tmp_path, prepared)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "rows":
            patch.setattr(pd.DataFrame, "to_parquet", killed)
        else:
            patch.setattr(new, step, killed)
        with pytest.raises(KeyboardInterrupt):
            StudyFolder.create(results, "one", make_space(), other)
    with pytest.raises(StudyError, match="a study must exist before it is read"):
        StudyFolder.open("one", results)
    again = StudyFolder.create(results, "one", make_space(), prepared)
    pd.testing.assert_frame_equal(again.rows(), prepared.rows())
    assert not again.journal.exists()


def test_a_study_whose_first_trial_just_ended_is_not_remade(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    locked = folder_module.locked

    @contextmanager
    def locked_late(path: Path) -> Iterator[None]:
        # What another command does between the look and the lock.
        folder.write_failure(0, {}, make_space().experiment, "lost")
        with locked(path):
            yield

    monkeypatch.setattr(folder_module, "locked", locked_late)
    with pytest.raises(StudyError, match="goes on with the space and the data"):
        StudyFolder.create(
            tmp_path / "results", "one", make_space(), other_data(tmp_path, prepared)
        )
    pd.testing.assert_frame_equal(folder.rows(), prepared.rows())
    assert StudyFolder.open("one", tmp_path / "results").trial(0) is not None


def test_only_one_command_makes_a_study(tmp_path: Path, prepared: Prepared) -> None:
    (tmp_path / "one").mkdir()
    with new.locked(tmp_path / "one"), pytest.raises(StudyError, match="one command at a time"):
        StudyFolder.create(tmp_path, "one", make_space(), prepared)
    assert not (tmp_path / "one" / "study.json").exists()


def test_a_failure_does_not_replace_a_result(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    experiment = make_space().experiment
    folder.write_failure(0, {}, experiment, "first")
    folder.write_failure(0, {}, experiment, "second")
    assert [trial.reason for trial in folder.trials()] == ["second"]
    folder.write_trial(0, {}, experiment, make_result(0.5))
    folder.write_failure(0, {}, experiment, "third")
    assert [(trial.finished, trial.scores["kl_10"]) for trial in folder.trials()] == [(True, 0.5)]
    assert not (folder.trial_path(0) / "error.txt").exists()


def test_equal_scores_are_ordered_by_number(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    for number, score in enumerate([0.5, 0.4, 0.5, 0.4]):
        folder.write_trial(number, {}, make_space().experiment, make_result(score))
    assert [trial.number for trial in folder.finished_trials()] == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.weights_file", lambda file: file),
        ("model", lambda file: {"name": "test_efficientnet", "weights_file": file}),
    ],
)
def test_labelled_weights_may_move(
    tmp_path: Path, prepared: Prepared, path: str, value: Callable[[str], object]
) -> None:
    def create(file: str, **model: object) -> StudyFolder:
        choices = {"none": None if path.endswith("file") else {}, "a": value(file)}
        if model:
            choices["a"] = {**choices["a"], **model}
        plain = {"search": {path: {"choices": choices}}, "start": [{path: "a"}]}
        return StudyFolder.create(
            tmp_path / "results", "one", validate_space(plain, "test"), prepared
        )

    first = weights(tmp_path / "a.pt", b"first")
    create(first).write_failure(0, {}, make_space().experiment, "lost")
    moved = weights(tmp_path / "b.pt", b"first")
    create(moved)
    with pytest.raises(StudyError, match="goes on with the space") as caught:
        create(weights(tmp_path / "b.pt", b"second"))
    assert f"weights.{path}.a was " in str(caught.value)
    if path == "model":
        with pytest.raises(StudyError, match=r"search\.model\.choices\.a\.drop_path was absent"):
            create(first, drop_path=0.5)


def test_unlabelled_weights_may_not_move(tmp_path: Path, prepared: Prepared) -> None:
    def create(file: str) -> StudyFolder:
        search = {"model.weights_file": {"choices": [None, file]}}
        return StudyFolder.create(
            tmp_path / "results", "one", validate_space({"search": search}, "test"), prepared
        )

    create(weights(tmp_path / "a.pt", b"first")).write_failure(0, {}, make_space().experiment, "l")
    with pytest.raises(StudyError, match=r"search\.model\.weights_file\.choices was "):
        create(weights(tmp_path / "b.pt", b"first"))


def test_a_folder_left_by_a_kill_at_the_start_is_used(tmp_path: Path, prepared: Prepared) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "rows.parquet").write_bytes(b"half a fi")
    (tmp_path / "one" / "space.yaml").write_text("search: {")
    (tmp_path / "one" / ".draft-0").write_bytes(b"half")
    folder = StudyFolder.create(tmp_path, "one", make_space(), prepared)
    assert len(folder.rows()) == 2


@pytest.mark.parametrize("name", ["thesis.txt", "space.yaml", "leaderboard.csv", "blend"])
def test_a_folder_with_other_files_is_left_alone(
    tmp_path: Path, prepared: Prepared, name: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).touch()
    with pytest.raises(StudyError, match="a new study needs a folder of its own"):
        StudyFolder.create(tmp_path, "mine", make_space(), prepared)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == [name]


@pytest.mark.parametrize("name", ["", ".store", ".hidden", "local", "a/b", ".."])
def test_a_name_that_is_no_folders_is_refused(
    tmp_path: Path, prepared: Prepared, name: str
) -> None:
    with pytest.raises(StudyError, match="a study's name must be a plain folder name"):
        StudyFolder.create(tmp_path / "results", name, make_space(), prepared)


def test_a_study_that_there_is_not_names_those_that_there_are(
    tmp_path: Path, prepared: Prepared
) -> None:
    with pytest.raises(StudyError, match="There is none yet"):
        StudyFolder.open("one", tmp_path)
    StudyFolder.create(tmp_path, "one", make_space(), prepared)
    with pytest.raises(StudyError, match="There are: one"):
        StudyFolder.open("two", tmp_path)
    assert StudyFolder.open(tmp_path / "one").name == "one"


def test_damage_is_told_with_its_file(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path, "one", make_space(), prepared)
    folder.write_trial(0, {}, make_space().experiment, make_result(0.5))
    (folder.trial_path(0) / "result.json").write_text("{")
    with pytest.raises(StudyError, match=r"result\.json must be readable, got JSON") as caught:
        folder.trials()
    assert "0000/result.json. Move that trial's folder away" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("study.json", "{", r"study\.json must be readable, got JSONDecodeError"),
        ("study.json", b"\xff", r"study\.json must be readable, got UnicodeDecodeError"),
        ("study.json", "[]", r"study\.json must hold a mapping, got list"),
        ("study.json", '{"format": 99}', "must have format 1, got 99"),
        ("study.json", '{"format": 1}', r"study\.json must say what was searched, got nothing"),
        ("environment.json", "{", r"environment\.json must be readable.*Move that file away"),
        ("environment.json", "{}", r"environment\.json must hold a list, got dict"),
        ("trials/0000/result.json", "[]", r"result\.json must hold a mapping, got list"),
        ("trials/0000/result.json", "{}", r"result\.json must be readable, got KeyError: 'number'"),
    ],
)
def test_damaged_texts_are_told(
    tmp_path: Path, prepared: Prepared, name: str, content: str | bytes, message: str
) -> None:
    path = StudyFolder.create(tmp_path, "one", make_space(), prepared).path
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def read() -> None:
        folder = StudyFolder(path)
        folder.record_run({})
        folder.trials()

    with pytest.raises(StudyError, match=message) as caught:
        read()
    assert str(path) in str(caught.value)


def test_one_command_at_a_time(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path, "one", make_space(), prepared)
    with folder.lock(), pytest.raises(StudyError, match="one command at a time"), folder.lock():
        pass
    with folder.lock():
        pass


def test_every_run_is_recorded(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path, "one", make_space(), prepared)
    folder.record_run({"python": "3.11"})
    folder.record_run({"python": "3.12"})
    runs = json.loads((folder.path / "environment.json").read_text())
    assert [run["python"] for run in runs] == ["3.11", "3.12"]


def test_trials_with_equal_predictions_are_ties(tmp_path: Path, prepared: Prepared) -> None:
    folder = StudyFolder.create(tmp_path / "results", "one", make_space(), prepared)
    for number, score in ((0, 0.5), (1, 0.4)):
        folder.write_trial(number, {RATE: 0.001}, make_space().experiment, make_result(score))
    board = folder.leaderboard()
    assert list(board["trial"]) == ["0001", "0000"]
    assert list(board["tied"]) == [False, True]
