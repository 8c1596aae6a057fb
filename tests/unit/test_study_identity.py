"""Which study a command resumes, replaces or refuses."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hms_ray.config.loading import validate_space
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.errors import ModelError, StudyError
from hms_ray.storage.locks import StudyLock
from hms_ray.study import new
from hms_ray.study.folder import StudyFolder
from hms_ray.study.identity import differences
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.new import create_study, open_study
from hms_ray.study.overview import study_overview
from tests.refused import refusal
from tests.study_data import RATE, make_space


@pytest.mark.parametrize(
    "changed",
    [
        {"budget": {"trials": 50}},
        {"resources": {"cpus_per_worker": 4, "group": "study", "max_failures": 9}},
        {"experiment": {"name": "other"}},
    ],
)
def test_a_study_is_resumed_with_changes_that_do_not_affect_results(
    tmp_path: Path, prepared: Prepared, changed: dict
) -> None:
    create_study(tmp_path, "one", make_space(), prepared)
    space = make_space(**changed)
    folder = create_study(tmp_path, "one", space, prepared)
    assert folder.space() == space


def test_a_study_from_before_a_field_was_added_is_resumed(
    tmp_path: Path, prepared: Prepared
) -> None:
    folder = create_study(tmp_path, "one", make_space(), prepared)
    fail_a_trial(folder)
    data = json.loads((folder.path / "study.json").read_text())
    experiment = data["identity"]["experiment"]
    del experiment["training"]["ema"], experiment["input"]["pairs"], experiment["model"]["output"]
    (folder.path / "study.json").write_text(json.dumps(data))
    assert create_study(tmp_path, "one", make_space(), prepared).trial(0) is not None
    changed = make_space(experiment={"model": {"output": "sigmoid"}})
    with refusal(StudyError, got="experiment.model.output was softmax, is sigmoid"):
        create_study(tmp_path, "one", changed, prepared)


def test_a_study_of_an_earlier_version_is_recognised(tmp_path: Path, prepared: Prepared) -> None:
    folder = create_study(tmp_path, "one", make_space(start=[{RATE: 1e-3}]), prepared)
    fail_a_trial(folder)
    parameter = {"choices": None, "int": None, "float": [1e-4, 1e-2], "log": True}
    former = {
        "search": {RATE: parameter},
        "study": {"objective": "kl_10", "sampler": "tpe", "startup_trials": 5, "seed": 0},
    }

    def rewrite(file: Path, new: dict, drop: tuple[str, ...]) -> None:
        text = file.read_text()
        data = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        below = data.get("identity", data)
        for name in ("parameters", "method", "metric", "seed", "startup_trials", *drop):
            del below[name]
        below |= new
        file.write_text(json.dumps(data))

    rewrite(folder.path / "study.json", former, ())
    stored = {**former, "study": {**former["study"], "n_trials": 7}}
    rewrite(folder.path / "space.yaml", stored, ("budget",))
    opened = StudyFolder(folder.path)
    assert (opened.space().budget.trials, opened.objective) == (7, "kl_10")
    overview = study_overview(opened)
    assert (overview.planned, overview.searched) == (7, {RATE: "0.0001 to 0.01, log"})
    again = create_study(tmp_path, "one", make_space(start=[{RATE: 1e-3}]), prepared)
    assert again.space().budget.trials == 20
    with refusal(StudyError, got="seed was 0, is 1"):
        create_study(tmp_path, "one", make_space(start=[{RATE: 1e-3}], seed=1), prepared)


def test_study_is_locked_from_its_creation_to_its_end(tmp_path: Path, prepared: Prepared) -> None:
    with open_study(tmp_path, "one", make_space(), prepared) as running:
        # Neither the same study nor another one, which would replace it: no trial has ended.
        for changed in ({"budget": {"trials": 50}}, {"seed": 1}):
            with refusal(StudyError, "locked by another process", where="one", fix="Wait"):
                create_study(tmp_path, "one", make_space(**changed), prepared)
        assert StudyFolder(running.path).identity == running.identity
        assert running.space() == make_space()
    assert create_study(tmp_path, "one", make_space(seed=1), prepared)


def weights(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    return str(file)


def fail_a_trial(study: StudyFolder) -> None:
    """Stores a result, so that the study is no longer replaced."""
    study.write_failure(0, {}, make_space().experiment, "lost")


def test_weights_are_identified_by_their_content(tmp_path: Path, prepared: Prepared) -> None:
    def create(content: bytes, name: str) -> StudyFolder:
        model = {"weights_file": weights(tmp_path / name, content)}
        return create_study(
            tmp_path / "results", "one", make_space(experiment={"model": model}), prepared
        )

    fail_a_trial(create(b"first", "a.pt"))
    create(b"first", "b.pt")
    with refusal(StudyError, got="weights.experiment was a7937b64b8ca..."):
        create(b"second", "a.pt")
    with pytest.raises(StudyError, match=r"weights\.experiment was .*, is absent"):
        create_study(tmp_path / "results", "one", make_space(), prepared)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"metric": "kl_all"}, "metric was kl_10, is kl_all"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"resources": {"workers": 2}}, "resources.workers was 1, is 2"),
        ({"resources": {"gpus_per_worker": 1}}, "resources.device was cpu, is cuda"),
        ({"experiment": {"training": {"seed": 1}}}, "experiment.training.seed was 0, is 1"),
        (
            {"experiment": {"training": {"stages": [{"epochs": 7}]}}},
            "experiment.training.stages.0.epochs was 6, is 7",
        ),
        ({"parameters": {}}, f"parameters.{RATE}.max was 0.01, is absent"),
        ({"start": [{RATE: 0.001}]}, f"start.0.{RATE} was absent, is 0.001"),
    ],
)
def test_another_study_is_refused_with_the_differences(
    tmp_path: Path, prepared: Prepared, changed: dict, named: str
) -> None:
    folder = create_study(tmp_path, "one", make_space(), prepared)
    fail_a_trial(folder)
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    base = {"parameters": {RATE: {"min": 1e-4, "max": 1e-2, "log": True}}}
    with refusal(StudyError, "resumed with its own space", got=named):
        create_study(tmp_path, "one", validate_space({**base, **changed}, "test"), prepared)
    after = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    assert after == before


def test_other_data_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    fail_a_trial(create_study(tmp_path, "one", make_space(), prepared))
    other = replace(prepared, packs={"kaggle": PackRef(tmp_path / "pack", "q" * 64)})
    with refusal(StudyError, got="data.packs.kaggle was pppppppppppp..."):
        create_study(tmp_path, "one", make_space(), other)


def test_a_study_without_trials_is_replaced(tmp_path: Path, prepared: Prepared) -> None:
    first = create_study(tmp_path, "one", make_space(resources={"workers": 1000}), prepared)
    first.journal.touch()
    again = create_study(tmp_path, "one", make_space(resources={"workers": 2}), prepared)
    assert again.space().resources.workers == 2
    assert not again.journal.exists()
    with again.lock(), pytest.raises(StudyError, match="locked by another process"):
        create_study(tmp_path, "one", make_space(), prepared)


def other_data(tmp_path: Path, prepared: Prepared) -> Prepared:
    rows = prepared.rows().assign(fold=[1, 0])
    rows.to_parquet(tmp_path / "other.parquet")
    return replace(prepared, rows_file=tmp_path / "other.parquet", folds_fingerprint="g" * 64)


@pytest.mark.parametrize("step", ["rows", "write_space", "write_text"])
def test_a_killed_replacement_leaves_no_mixed_study(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    results = tmp_path / "results"
    first = create_study(results, "one", make_space(), prepared)
    first.record_run({"python": "3.11"})
    first.scratch.mkdir()
    (first.path / "board" / "0000").mkdir(parents=True)
    Leaderboard(first).write_csv()
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
            create_study(results, "one", make_space(), other)
    with pytest.raises(StudyError, match="the study must exist"):
        StudyFolder.open("one", results)
    again = create_study(results, "one", make_space(), prepared)
    pd.testing.assert_frame_equal(again.rows(), prepared.rows())
    assert not again.journal.exists()
    assert not (again.path / "board").exists(), "runs of trials of another study"


def test_a_study_whose_first_trial_just_ended_is_not_replaced(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create_study(tmp_path / "results", "one", make_space(), prepared)

    def locked_late(path: Path, **options: object) -> StudyLock:
        # Another command writes this between the check and the lock.
        fail_a_trial(folder)
        return StudyLock(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(new, "StudyLock", locked_late)
    with pytest.raises(StudyError, match="resumed with its own space"):
        create_study(tmp_path / "results", "one", make_space(), other_data(tmp_path, prepared))
    pd.testing.assert_frame_equal(folder.rows(), prepared.rows())
    assert StudyFolder.open("one", tmp_path / "results").trial(0) is not None


def test_only_one_command_creates_a_study(tmp_path: Path, prepared: Prepared) -> None:
    (tmp_path / "one").mkdir()
    with StudyLock(tmp_path / "one"), pytest.raises(StudyError, match="locked by another process"):
        create_study(tmp_path, "one", make_space(), prepared)
    assert not (tmp_path / "one" / "study.json").exists()


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
        plain = {"parameters": {path: {"values": choices}}, "start": [{path: "a"}]}
        return create_study(tmp_path / "results", "one", validate_space(plain, "test"), prepared)

    first = weights(tmp_path / "a.pt", b"first")
    fail_a_trial(create(first))
    create(first)
    create(weights(tmp_path / "b.pt", b"first"))
    with refusal(StudyError, "resumed with its own space", got=f"weights.{path}.a was "):
        create(weights(tmp_path / "b.pt", b"second"))
    with pytest.raises(ModelError, match="must be a readable file"):
        create(str(tmp_path / "gone.pt"))
    if path == "model":
        with refusal(StudyError, got="parameters.model.values.a.drop_path was absent"):
            create(first, drop_path=0.5)


def test_a_folder_of_weights_is_identified_by_the_files_of_the_searched_models(
    tmp_path: Path, prepared: Prepared
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    names = [f"{name}.r160_in1k" for name in ("test_resnet", "test_vit", "test_convnext")]
    files = [folder / f"{name}.pth" for name in names]
    for file in files:
        file.write_bytes(b"first")

    def create(**model: object) -> StudyFolder:
        plain = {
            "experiment": {"model": {"name": "test_resnet", "weights_file": str(folder), **model}},
            "parameters": {"model.name": {"values": ["test_resnet", "test_vit"]}},
        }
        return create_study(tmp_path / "results", "one", validate_space(plain, "test"), prepared)

    fail_a_trial(create())
    files[2].write_bytes(b"second")
    create()
    create(weights_file=str(folder.rename(tmp_path / "moved")))
    folder = tmp_path / "moved"
    (folder / files[1].name).write_bytes(b"second")
    with refusal(StudyError, got="weights.model.name.test_vit was "):
        create()


def test_unlabelled_weights_may_not_move(tmp_path: Path, prepared: Prepared) -> None:
    def create(file: str) -> StudyFolder:
        search = {"model.weights_file": {"values": [None, file]}}
        return create_study(
            tmp_path / "results", "one", validate_space({"parameters": search}, "test"), prepared
        )

    fail_a_trial(create(weights(tmp_path / "a.pt", b"first")))
    with refusal(StudyError, got="parameters.model.weights_file.values was "):
        create(weights(tmp_path / "b.pt", b"first"))


def test_removed_choice_of_null_is_a_difference() -> None:
    before = {"values": {"none": None, "half": 1}}
    assert differences(before, {"values": {"half": 1}})
    assert not differences(before, dict(before))
