"""Faults that need no recording are refused before the first recording is read or packed."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from hms_ray.cli.main import main
from hms_ray.competition.read import read_labels
from hms_ray.config.loading import validate_space
from hms_ray.dataset.prepare import PackRef, Prepared, prepare
from hms_ray.errors import DataError, StudyError
from hms_ray.predict import submit_trial
from hms_ray.predict.recordings import read_test_rows
from hms_ray.study.new import check_study, create_study
from hms_ray.study.seeds import TrialTarget
from tests.competition_folder import write_competition_folder
from tests.refused import refusal
from tests.study_data import make_result

SPACE = """
experiment:
  name: early
  data: {n_folds: 2}
  input: {downsample: [10, 10]}
  model: {name: test_resnet, pretrained: false, drop_path: 0.0}
  training: {stages: [{epochs: 1}]}
resources: {group: study}
"""
LATE = "training.stages=[{rows: at_least_threshold, epochs: 1}]"

Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose recordings are not parquet: reading one is an error of another kind."""
    folder = write_competition_folder(tmp_path_factory.mktemp("early") / "data", n_patients=4)
    for file in folder.glob("train_*/*.parquet"):
        file.write_text("read too early", encoding="utf-8")
    return folder


@pytest.fixture
def refuse(
    data: Path, tmp_path: Path, error_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Refuse:
    """The error of a command on ``data``; fails if it left anything behind."""
    (tmp_path / "early.yaml").write_text(SPACE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def call(command: str, *words: object) -> str:
        text = error_line(command, "early.yaml", "--data", data, *words)
        assert not (data / "packed").exists()
        assert not Path("results").exists()
        return text

    return call


CASES = [
    (["--set", "model.name=test_resnett"], "must be a timm model, got test_resnett", "test_resnet"),
    (
        ["--set", "model.pretrained=true", "--set", "model.weights_file=no.pt"],
        "model.weights_file must be a readable file",
        "no.pt",
    ),
    (
        ["--set", "model.pretrained=true", "--set", "model.weights_file=."],
        "must have a file for each model: test_resnet.r160_in1k.safetensors",
        "got no weights files",
    ),
    (["--set", "training.stage_threshold=99", "--set", LATE], "needs training rows", "none among"),
    (["--set", "data.n_folds=5"], "the number of folds", "5 folds for 4 patients"),
    (["--set", "input.downsample=[7, 7]"], "input.downsample", "divide"),
    (["--folds", "no.csv"], "no.csv must exist", "no.csv"),
    (["--study", "a/b"], "plain folder name", "'a/b'"),
    (["--study", ".."], "plain folder name", "'..'"),
]


@pytest.mark.parametrize("command", [("train", "--local"), ("train",), ("sweep",)])
@pytest.mark.parametrize(("words", "rule", "got"), CASES)
def test_faults_of_settings_are_found_before_recordings(
    refuse: Refuse, command: tuple[str, ...], words: list[str], rule: str, got: str
) -> None:
    text = refuse(*command, *words)
    assert rule in text
    assert got in text


@pytest.mark.parametrize(
    ("words", "rule"),
    [(["--fold", "2"], "a fold must be from 0 to 1, got 2"), (["--threads", "0"], "at least 1")],
)
def test_options_of_local_training_are_checked_first(
    refuse: Refuse, words: list[str], rule: str
) -> None:
    assert rule in refuse("train", "--local", *words)


@pytest.mark.parametrize("command", [("train", "--local"), ("sweep",)])
@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("training.checkpoint_criterion=kl_10", "KL >=10 needs validation rows to choose"),
        ("training.augment.mosaic={}", "needs an epoch without mosaic"),
    ],
)
def test_best_evaluations_that_cannot_be_chosen_are_refused_first(
    refuse: Refuse,
    command: tuple[str, ...],
    setting: str,
    rule: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hms_ray.train.stage_rows.OBJECTIVES", {"kl_10": 99})
    assert rule in refuse(*command, "--set", "training.checkpoint=best", "--set", setting)


@pytest.mark.parametrize("command", [("train", "--local"), ("sweep",)])
def test_float16_without_a_gpu_is_refused_first(
    refuse: Refuse, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "float16 needs a GPU" in refuse(*command, "--set", "training.precision=float16")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["train", "--local", "--address", "head:6379"], "--local does not use a cluster"),
        (["train", "--threads", "2"], "--threads needs --local"),
        (["train", "--address", "127.0.0.1:1"], "a Ray cluster must answer at the address"),
        (["sweep", "--address", "127.0.0.1:1"], "a Ray cluster must answer at the address"),
    ],
)
def test_options_of_the_place_are_checked_first(
    refuse: Refuse, words: list[str], rule: str
) -> None:
    assert rule in refuse(*words)


def test_fold_table_that_does_not_fit_is_refused_first(
    refuse: Refuse, data: Path, tmp_path: Path
) -> None:
    patients = read_labels(data)["patient_id"].unique()
    table = pd.DataFrame({"patient_id": patients[1:], "fold": [0, 1, 0]})
    table.to_csv(tmp_path / "folds.csv", index=False)
    for command in (("train", "--local"), ("sweep",)):
        text = refuse(*command, "--folds", "folds.csv")
        assert f"a fold table must have every patient, got no patient {patients[0]}" in text


def test_objective_without_rows_is_refused_first(
    refuse: Refuse, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hms_ray.study.new.OBJECTIVES", {"kl_10": 99})
    assert "needs rows with at least 99 votes" in refuse("sweep")


@pytest.mark.parametrize("place", [["--local"], []])
@pytest.mark.parametrize(
    ("space", "fault"),
    [
        (SPACE.replace("test_resnet", "no_such"), "model.name must be a timm model, got no_such"),
        (
            SPACE.replace("training: {", "training: {precision: float16, "),
            "training.precision: float16 needs a GPU",
        ),
    ],
)
def test_steps_of_a_ladder_are_checked_first(
    space: str,
    fault: str,
    place: list[str],
    data: Path,
    tmp_path: Path,
    error_line: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "early.yaml").write_text(space, encoding="utf-8")
    manifest = tmp_path / "ladder.yaml"
    manifest.write_text("steps:\n  - {name: a, file: early.yaml}\n", encoding="utf-8")
    results = tmp_path / "results"
    text = error_line("ladder", "--file", manifest, "--data", data, "--results", results, *place)
    assert f"a: {fault}" in text
    assert not (data / "packed").exists()


def test_recordings_are_checked_after_all_that(refuse: Refuse) -> None:
    """The control: without a fault of the settings, the recordings are the first fault."""
    assert "fault" in refuse("train", "--local")


def test_all_faults_of_a_folder_are_reported_if_its_labels_are_unusable(
    tmp_path: Path, error_line: Callable[..., str]
) -> None:
    folder = write_competition_folder(tmp_path / "data", n_patients=2, eegs=False)
    labels = pd.read_csv(folder / "train.csv").drop(columns="patient_id")
    labels.to_csv(folder / "train.csv", index=False)
    (tmp_path / "early.yaml").write_text(SPACE, encoding="utf-8")
    main(["check", str(folder)])
    text = error_line("train", tmp_path / "early.yaml", "--data", folder, "--local")
    assert "fault" in text


def test_another_space_under_a_studys_name_is_refused_before_recordings(
    tmp_path: Path, data: Path
) -> None:
    space = validate_space({"experiment": {"data": {"n_folds": 2, "unusable": "keep"}}}, "test")
    folder = write_competition_folder(tmp_path / "data", n_patients=4)
    seen: list[pd.DataFrame] = []
    prepared: Prepared = prepare(folder, space.experiment, tmp_path, check=seen.append)
    assert isinstance(next(iter(prepared.packs.values())), PackRef)
    study = create_study(tmp_path, "one", space, prepared)
    rows = seen[0]
    pd.testing.assert_frame_equal(rows, prepared.rows()[list(rows.columns)])
    other = validate_space(
        {"experiment": {"data": {"n_folds": 2, "unusable": "keep", "unit": "eeg"}}}, "test"
    )
    # Without an ended trial the name is free.
    check_study(tmp_path, "one", other, rows)
    study.write_trial(0, {}, space.experiment, make_result(0.5))
    check_study(tmp_path, "one", space, rows)
    with refusal(StudyError, "only be resumed", got="data.unit was eeg_votes", fix="--study"):
        check_study(tmp_path, "one", other, rows)
    moved = rows.assign(fold=1 - rows["fold"])
    with refusal(StudyError, "only be resumed", got="data.folds was", where="one"):
        check_study(tmp_path, "one", space, moved)


def test_sample_submission_is_read_before_test_recordings(
    tmp_path: Path, error_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_competition_folder(tmp_path / "data", n_patients=2)
    pd.DataFrame({"eeg_id": [5], "spectrogram_id": [6], "patient_id": [7]}).to_csv(
        folder / "test.csv", index=False
    )
    pd.DataFrame({"eeg_id": [8]}).to_csv(folder / "sample_submission.csv", index=False)
    models = SimpleNamespace(experiment=SimpleNamespace(input=None))
    monkeypatch.setattr(submit_trial, "read_models", lambda *_, **__: models)
    trial = SimpleNamespace(number=0, keys={})
    study = SimpleNamespace(name="one", finished_trial=lambda _: trial)
    options = submit_trial.SubmitOptions(data_dir=folder, out=tmp_path / "out.csv")
    with refusal(DataError, "sample_submission.csv must list every EEG", fix="one download"):
        submit_trial.submit_trial(TrialTarget(study, None), options)  # type: ignore[arg-type]
    assert not (folder / "packed").exists()


def test_missing_folder_is_named_by_every_command(
    tmp_path: Path, error_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (
        ["check", "none"],
        ["pack", "none"],
        ["train", "demo", "--data", "none", "--local"],
    ):
        text = error_line(*words)
        assert "a competition folder must exist, in none. Check the path" in text
    with refusal(DataError, "a competition folder must exist", where="none", fix="Check the path"):
        read_test_rows(Path("none"))
