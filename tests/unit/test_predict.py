"""Fold models on rows that they have been scored on, and on test recordings."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray.blend.submit import submit
from hms_ray.cli.main import main
from hms_ray.competition.schema import PROBABILITY_COLUMNS, SUBMISSION_COLUMNS
from hms_ray.errors import ConfigError, HmsRayError, StudyError, TrainingError
from hms_ray.experiment.cache_key import NUMERICS_VERSION
from hms_ray.predict.files import require_output_file
from hms_ray.predict.models import Predictor, open_device, precision_on, predict_trial
from hms_ray.predict.recordings import Recordings, recordings_of_rows, recordings_of_test
from hms_ray.predict.submit_trial import SubmitOptions, _training_patients_warning
from hms_ray.predict.trial import TrialModels, read_models
from hms_ray.storage.fold_store import FoldStore, StoredFold
from hms_ray.study.folder import StudyFolder
from hms_ray.train.checkpoint import load_weights, save_weights
from hms_ray.transforms.normalise import Constants
from tests.refused import refusal, refused
from tests.trained_study import INPUTS, TEST_EEGS, TrainedStudy, train_study, write_test_set

pytestmark = pytest.mark.usefixtures("one_process")

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=list(INPUTS))
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    switches = {
        "input.channels": 3,
        "input.pad": [136, 80],
        "model.output": "sigmoid",
        "model.head": "per_tier",
        "training.label_rows": "random_window",
        "input.eeg.margin_s": 2,
        "prediction.flips": ["hemisphere_flip"],
        "prediction.shifts_s": [2],
        # Averages of few steps are nearly alike.
        "training.stages": [{"epochs": 2, "learning_rate": 0.025}],
    }
    values = switches if request.param == "eeg" else {}
    return train_study(tmp_path_factory.mktemp(request.param), request.param, values=values)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    return train_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    return write_test_set(tmp_path / "test")


@pytest.fixture
def own(study: TrainedStudy, tmp_path: Path) -> TrainedStudy:
    """The study with a results folder that a test may damage."""
    shutil.copytree(study.results, tmp_path / "results")
    return replace(study, results=tmp_path / "results")


def models_of(study: TrainedStudy) -> TrialModels:
    return read_models("one", study.folder.finished_trial().keys, study.results)


def rows_of(study: TrainedStudy) -> Recordings:
    config = study.folder.space().experiment
    return recordings_of_rows(study.data, [config.input], config.data.unit, config.data.window)


def stored(fold: StoredFold) -> np.ndarray:
    return fold.oof[list(PROBABILITY_COLUMNS)].to_numpy()


def valid_rows(study: TrainedStudy, fold: int) -> np.ndarray:
    return np.flatnonzero(study.prepared.rows()["fold"].to_numpy() == fold)


def submitted(study: TrainedStudy, data: Path, out: Path, trial: str = "", **options: Any) -> str:
    """What submitting a study or a trial prints."""
    call = SubmitOptions(data_dir=data, results=study.results, out=out, device="cpu", **options)
    return submit(study.name + trial, call)


def test_a_folds_validation_rows_are_predicted_as_stored(each: TrainedStudy) -> None:
    recordings, models = rows_of(each), models_of(each)
    predictor = Predictor(models.experiment, recordings, CPU)
    assert recordings.rows["row_id"].tolist() == each.prepared.rows()["row_id"].tolist()
    for number, fold in models.folds.items():
        found = predictor.predict(fold, valid_rows(each, number))
        np.testing.assert_array_equal(found, stored(fold))
        assert found.std(axis=0).max() > 1e-3  # rows that are all alike would prove little


def test_another_folds_model_predicts_something_else(each: TrainedStudy) -> None:
    """So the equality above does not hold for any model."""
    models = models_of(each)
    predictor = Predictor(models.experiment, rows_of(each), CPU)
    other = predictor.predict(models.folds[1], valid_rows(each, 0))
    assert np.abs(other - stored(models.folds[0])).max() > 1e-4


def test_folds_are_averaged(each: TrainedStudy, test_set: Path) -> None:
    models = models_of(each)
    recordings = recordings_of_test(test_set, [models.experiment.input])
    single = [
        Predictor(models.experiment, recordings, CPU).predict(fold)
        for fold in models.folds.values()
    ]
    seen: list[tuple[int, int]] = []
    mean, notes = predict_trial(models, recordings, CPU, lambda *done: seen.append(done))
    np.testing.assert_array_equal(mean, (single[0] + single[1]) / 2)
    assert np.abs(single[0] - single[1]).max() > 1e-4
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert notes == ()
    assert recordings.rows["eeg_id"].tolist() == list(TEST_EEGS)


def test_submitting_a_study_writes_the_predictions_of_its_best_trial(
    each: TrainedStudy, test_set: Path, tmp_path: Path
) -> None:
    out = tmp_path / "submission.csv"
    expected = f"{out}: 3 rows, mean of 2 folds of {each.name} 0000"
    written, rate = submitted(each, test_set, out).splitlines()
    assert written == expected
    assert rate.startswith("3 test rows in ")
    table = pd.read_csv(out)
    assert tuple(table.columns) == SUBMISSION_COLUMNS
    assert table["eeg_id"].tolist() == sorted(TEST_EEGS)  # as the sample has them
    recordings = recordings_of_test(test_set, [models_of(each).experiment.input])
    mean, _ = predict_trial(models_of(each), recordings, CPU)
    order = np.argsort(TEST_EEGS)
    np.testing.assert_allclose(table[list(PROBABILITY_COLUMNS)], mean[order], atol=1e-12)
    np.testing.assert_allclose(table[list(PROBABILITY_COLUMNS)].sum(axis=1), 1, atol=1e-12)


def test_train_rows_are_predicted_by_row_and_marked_optimistic(
    study: TrainedStudy, tmp_path: Path
) -> None:
    out = tmp_path / "rows.parquet"
    text = submitted(study, study.data, out, "/0", train_rows=True)
    warning, result = text.splitlines()
    rows, table = study.prepared.rows(), pd.read_parquet(out)
    n = len(rows)
    assert warning.startswith(f"{n} of {n} rows are of patients in the study")
    assert warning.endswith("not out-of-fold predictions")
    assert result == f"{out}: {n} rows, mean of 2 folds of kaggle 0000"
    assert list(table.columns) == ["row_id", "eeg_id", "patient_id", *PROBABILITY_COLUMNS]
    assert table.attrs == {"row_unit": "eeg_votes", "optimistic": True}
    for name in ("row_id", "eeg_id", "patient_id"):
        assert table[name].tolist() == rows[name].tolist()
    mean, _ = predict_trial(models_of(study), rows_of(study), CPU)
    np.testing.assert_array_equal(table[list(PROBABILITY_COLUMNS)], mean)


def test_train_rows_of_new_patients_are_not_optimistic(
    study: TrainedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = study.prepared.rows().assign(patient_id=lambda rows: rows["patient_id"] + 10_000)
    monkeypatch.setattr(StudyFolder, "rows", lambda _: others)
    out = tmp_path / "rows.parquet"
    submitted(study, study.data, out, train_rows=True)
    assert pd.read_parquet(out).attrs == {"row_unit": "eeg_votes"}
    rows, known = pd.DataFrame({"patient_id": [1, 2]}), pd.DataFrame({"patient_id": [2, 3]})
    assert _training_patients_warning(rows[:1], known) == ()
    assert _training_patients_warning(rows, known)[0].startswith("1 of 2 rows are of patients")


def test_recordings_without_signal_are_predicted_with_a_warning(
    each: TrainedStudy, tmp_path: Path
) -> None:
    folder = write_test_set(tmp_path / "test", silent=True)
    out = tmp_path / "out.parquet"
    lines = submitted(each, folder, out).splitlines()
    sources = {view.split()[0] for view in INPUTS[each.name]["views"]} - {"panels"}
    warnings = sorted(line.split(": ")[1:] for line in lines[:-2])
    n_sources = len(sources) if sources else 1
    assert warnings == [["1 row without a usable signal, zero-filled", "700002"]] * n_sources
    table = pd.read_parquet(out)
    assert table["eeg_id"].tolist() == sorted(TEST_EEGS)
    assert np.isfinite(table[list(PROBABILITY_COLUMNS)]).all(axis=None)


def test_damaged_weights_are_refused(own: TrainedStudy) -> None:
    weights = FoldStore(own.results).path(own.folder.finished_trial().keys[1]) / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:-1])
    with refusal(StudyError, got="weights.pt does not match", fix="hms-ray train"):
        models_of(own)


def test_remedy_of_a_damaged_fold_trains_it_again(
    own: TrainedStudy, test_set: Path, tmp_path: Path
) -> None:
    before = models_of(own).folds[1].weights.read_bytes()
    weights = FoldStore(own.results).path(own.folder.finished_trial().keys[1]) / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:-1])
    fix = str(refused(submitted, own, test_set, tmp_path / "out.csv").fix)
    _, _, *words = shlex.split(fix[fix.index("hms-ray") :].replace("DIR", str(own.data)))
    # With Ray the study has a name of its own, which --local would use for its logs.
    assert main(["train", *words, "--local"]) == 0
    assert models_of(own).folds[1].weights.read_bytes() == before
    assert submitted(own, test_set, tmp_path / "out.csv")


def change_record(study: TrainedStudy, fold: int, **changes: Any) -> None:
    """Changes the record of a fold, the one file without a checksum."""
    keys = study.folder.finished_trial().keys
    file = FoldStore(study.results).path(keys[fold]) / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("name", ["resolved", "made_from", "normalisation", "precision"])
def test_a_record_that_lacks_what_predicting_needs_is_damaged(own: TrainedStudy, name: str) -> None:
    change_record(own, 0, **{name: None})
    with refusal(StudyError, got="record.json lacks what prediction needs"):
        models_of(own)


def test_a_fold_of_another_version_is_refused(own: TrainedStudy) -> None:
    resolved = models_of(own).folds[0].record["resolved"]
    change_record(own, 0, resolved={**resolved, "input": {**resolved["input"], "blur": 1}})
    with refusal(StudyError, "of this version", got="input.blur", fix="Run its study again"):
        models_of(own)


def test_another_version_of_the_numerics_gives_a_warning(
    own: TrainedStudy, test_set: Path, tmp_path: Path
) -> None:
    made_from = models_of(own).folds[0].record["made_from"]
    change_record(own, 0, made_from={**made_from, "numerics": 0})
    assert submitted(own, test_set, tmp_path / "out.csv").splitlines()[0] == (
        "kaggle 0000: trained with numerics version 0, predicted with "
        f"{NUMERICS_VERSION}: predictions may "
        "differ from its out-of-fold ones"
    )


def test_a_fold_of_another_normalisation_or_model_is_damaged(own: TrainedStudy) -> None:
    predictor = Predictor(models_of(own).experiment, rows_of(own), CPU)
    change_record(own, 0, normalisation={"kaggle": {"mode": "global", "mean": 0.0, "std": 1.0}})
    with refusal(StudyError, "complete", got="record.json: a fold's normalisation"):
        predictor.predict(models_of(own).folds[0])
    fold = models_of(own).folds[1]
    torch.save({"a": torch.zeros(1)}, fold.weights)
    with refusal(StudyError, got="weights.pt does not match the experiment"):
        predictor.predict(fold)


def test_predictions_that_are_not_finite_are_refused(own: TrainedStudy) -> None:
    fold = models_of(own).folds[0]
    predictor = Predictor(models_of(own).experiment, rows_of(own), CPU)
    weights = load_weights(fold.weights)
    save_weights(fold.weights, {**weights, "classifier.bias": torch.full((6,), torch.nan)})
    n = len(own.prepared.rows())
    got, where = f"{n} of {n} rows", "the fold stored"
    with refusal(TrainingError, "predictions must be finite", got=got, where=where):
        predictor.predict(fold)


@pytest.mark.parametrize(
    ("part", "where"),
    [("open_sources", "the recordings to predict"), ("predict_rows", "the fold stored in")],
)
def test_full_memory_is_one_error(
    own: TrainedStudy, part: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 MiB.")

    monkeypatch.setattr(f"hms_ray.predict.models.{part}", fill)
    with refusal(
        TrainingError, "fit into the memory", got="64.00 MiB", where=where, fix="use --device cpu"
    ):
        Predictor(models_of(own).experiment, rows_of(own), CPU).predict(models_of(own).folds[0])


def test_pretrained_weights_are_not_loaded(own: TrainedStudy) -> None:
    """All weights come from the fold store, whatever they were initialised from."""
    for fold in (0, 1):
        resolved = models_of(own).folds[fold].record["resolved"]
        model = {**resolved["model"], "pretrained": True, "weights_file": "gone.safetensors"}
        change_record(own, fold, resolved={**resolved, "model": model})
    models = models_of(own)
    assert models.experiment.model.weights_file == "gone.safetensors"
    predictor = Predictor(models.experiment, rows_of(own), CPU)
    state = torch.random.get_rng_state()
    found = predictor.predict(models.folds[1], valid_rows(own, 1))
    np.testing.assert_array_equal(found, stored(models.folds[1]))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bfloat16_becomes_float32_on_a_device_without_it(own: TrainedStudy, test_set: Path) -> None:
    assert precision_on("bfloat16", CPU) == "float32"
    assert precision_on("float64", CPU) == "float64"
    assert precision_on("float16", CPU) == "float32"
    assert precision_on("float16", torch.device("cuda")) == "float16"
    change_record(own, 1, precision="bfloat16")
    models = models_of(own)
    predictor = Predictor(models.experiment, rows_of(own), CPU)
    found = predictor.predict(models.folds[1], valid_rows(own, 1))
    np.testing.assert_array_equal(found, stored(models.folds[1]))
    recordings = recordings_of_test(test_set, [models.experiment.input])
    _, notes = predict_trial(models, recordings, CPU)
    assert notes == ("one: trained in bfloat16, predicted in float32: cpu has no native bfloat16",)


@pytest.mark.parametrize(
    ("name", "threads", "rule"),
    [
        (None, 0, "threads must be at least 1"),
        ("tpu", 1, "a device must be one of cpu, cuda"),
        ("cuda", 1, "CUDA requested but not available"),
    ],
)
def test_unavailable_devices_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str | None, threads: int, rule: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refusal(ConfigError, rule):
        open_device(name, threads)
    assert open_device(None).type == "cpu"


@pytest.mark.parametrize("value", [0.25, (0.5, -1.25, 1 / 3)])
def test_constants_are_read_from_a_record_bit_for_bit(value: float | tuple[float, ...]) -> None:
    constants = Constants(value, value)
    assert Constants.from_plain(json.loads(json.dumps(constants.plain()))) == constants


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("submission.txt", r"must end in \.csv or \.parquet, got .*submission\.txt"),
        ("folder.csv", "must not be a folder"),
        ("a.csv", r"test\.csv must exist"),
    ],
)
def test_faults_are_found_before_models_run(
    study: TrainedStudy, tmp_path: Path, out: str, message: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(HmsRayError, match=message):
        submitted(study, tmp_path, tmp_path / out)


def test_an_unwritable_file_is_refused_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refusal(ConfigError, "writable folder", got="file, which is a file"):
        require_output_file(tmp_path / "file" / "deep" / "a.csv")
    require_output_file(tmp_path / "new" / "deep" / "a.csv")
    assert not (tmp_path / "new").exists()


def test_a_device_is_checked_before_recordings_are_packed(
    study: TrainedStudy, test_set: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        submitted(study, test_set, tmp_path / "out.csv", threads=0)
    assert not (test_set / "packed").exists()
