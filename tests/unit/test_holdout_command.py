"""``hms-ray holdout``: scores against plain NumPy, the record of openings, refusals."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from hms_ray.blend.fit_command import blend
from hms_ray.blend.holdout import HoldoutOptions, open_holdout
from hms_ray.blend.result_files import BLEND_FILE
from hms_ray.blend.settings import Settings
from hms_ray.blend.stored import read_blend
from hms_ray.blend.submit import submit
from hms_ray.cli.main import main
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.config.values import replace_values
from hms_ray.display.holdout_table import HoldoutReport, HoldoutScores
from hms_ray.errors import DataError, PredictionError, StudyError, TrainingError
from hms_ray.evaluate.calibration import fit_recalibration
from hms_ray.evaluate.oof import read_oof
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import run_experiment
from hms_ray.predict.models import Predictor
from hms_ray.predict.recordings import recordings_of_held_out
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.predict.trial import read_models
from hms_ray.study.folder import StudyFolder
from hms_ray.study.holdout import OPENINGS_FILE, openings
from tests.competition_folder import write_competition_folder
from tests.refused import refusal
from tests.trained_study import TrainedStudy, train_study

pytestmark = pytest.mark.usefixtures("one_process")

CPU = torch.device("cpu")
VALUES = {"data.holdout": 0.3}
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    """A study with three held-out patients, two trials and their blend; never opened.

    Beside it ``whole``, without a hold-out, and ``refolded``, with other folds.
    """
    place = tmp_path_factory.mktemp("study")
    data = write_competition_folder(place / "data")
    study = train_study(place, data=data, values=VALUES, name="first")
    add_trial(study, 1, {"training.stages.0.learning_rate": 0.003})
    blend(["first"], study.results)
    train_study(place, data=data, values={"data.holdout": 0.0}, name="whole")
    train_study(place, data=data, values={**VALUES, "data.fold_seed": 7}, name="refolded")
    return study


def add_trial(study: TrainedStudy, number: int, values: dict[str, Any]) -> None:
    experiment = replace_values(study.folder.space().experiment, values)
    result = run_experiment(
        experiment, study.prepared, study.results, InProcessRunner(device="cpu")
    )
    study.folder.write_trial(number, values, experiment, result)


@pytest.fixture
def study(original: TrainedStudy, tmp_path: Path) -> TrainedStudy:
    """A copy that a test may open and change."""
    shutil.copytree(original.results, tmp_path / "results")
    return replace(original, results=tmp_path / "results")


@pytest.fixture
def run(study: TrainedStudy, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the study's results folder; its status and output."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main([*words, "--results", str(study.results)])
        return status, capsys.readouterr().out

    return call


def opened(study: TrainedStudy, **others: Any) -> HoldoutReport:
    options = HoldoutOptions(results=study.results, device="cpu", **others)
    return open_holdout(study.folder, options)


def by_fold(study: TrainedStudy, number: int) -> np.ndarray:
    """Predictions (folds, n, 6) of the held-out rows by each fold model of a trial."""
    models = read_models("x", study.folder.finished_trial(number).keys, study.results)
    rows = study.folder.held_out_rows()
    assert rows is not None
    recordings = recordings_of_held_out(study.data, rows, [models.experiment.input], "error")
    predictor = Predictor(models.experiment, recordings, CPU)
    return np.stack([predictor.predict(fold) for fold in models.folds.values()])


def plain_kl(rows: pd.DataFrame, predicted: np.ndarray) -> np.ndarray:
    total = np.zeros(len(rows))
    for k, name in enumerate(TARGET_COLUMNS):
        target = rows[name].to_numpy()
        there = target > 0
        clipped = np.clip(predicted[there, k], 1e-15, 1 - 1e-15)
        total[there] += target[there] * np.log(target[there] / clipped)
    return total


def plain_interval(rows: pd.DataFrame, kl: np.ndarray) -> tuple[float, float, int]:
    """Mean, its patient-clustered standard error, number of patients."""
    residuals = pd.Series(kl - kl.mean()).groupby(rows["patient_id"].to_numpy()).sum()
    n = len(residuals)
    return float(kl.mean()), float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / len(kl)), n


def check(intervals: Any, rows: pd.DataFrame, kl: np.ndarray) -> None:
    """Compares intervals of each objective with plain NumPy."""
    for name, fewest in {"kl_all": 0, "kl_4": 4, "kl_10": 10}.items():
        which = (rows["total_votes"] >= fewest).to_numpy()
        mean, error, n = plain_interval(rows[which], kl[which])
        width = stats.t.ppf(0.975, n - 1) * error
        found = intervals[name]
        np.testing.assert_allclose(
            [found.mean, found.low, found.high], [mean, mean - width, mean + width], rtol=1e-9
        )


def check_recalibrated(
    scores: HoldoutScores, own: pd.DataFrame, oof: np.ndarray, rows: pd.DataFrame, mean: np.ndarray
) -> None:
    """Fitted on the out-of-fold rows of a score, applied to the held-out ones."""
    for name, fewest in {"kl_all": 0, "kl_4": 4, "kl_10": 10}.items():
        known = (own["total_votes"] >= fewest).to_numpy()
        fitted = fit_recalibration(own[known][list(TARGET_COLUMNS)], oof[known])
        kl = plain_kl(rows, fitted.apply(mean))[(rows["total_votes"] >= fewest).to_numpy()]
        found = scores.recalibrated[name]
        assert found is not None
        assert found.mean == pytest.approx(kl.mean())


def check_difference(scores: HoldoutScores, name: str) -> None:
    """Welch's interval from the two intervals printed beside it."""
    single, oof = (scores.single or {})[name], (scores.out_of_fold or {})[name]
    assert single is not None
    assert oof is not None
    difference = scores.differences()[name]
    assert difference is not None
    assert difference.mean == pytest.approx(single.mean - oof.mean)
    errors = [
        (one.high - one.mean) / stats.t.ppf(0.975, one.n_patients - 1) for one in (single, oof)
    ]
    assert difference.high - difference.mean > 1.9 * np.hypot(*errors)


def test_scores_of_the_best_trial_are_those_of_plain_numpy(study: TrainedStudy) -> None:
    report = opened(study)
    best = study.folder.finished_trial()
    rows = study.folder.held_out_rows()
    assert rows is not None
    predicted = by_fold(study, best.number)
    scores = report.scores[0]
    assert scores.name == f"Best trial, {best.number:04d}"
    check(scores.single, rows, np.mean([plain_kl(rows, one) for one in predicted], axis=0))
    check(scores.averaged, rows, plain_kl(rows, predicted.mean(axis=0)))
    own = study.folder.rows()
    oof = best.oof(own)[list(PROBABILITY_COLUMNS)].to_numpy()
    check(scores.out_of_fold, own, plain_kl(own, oof))
    assert (scores.out_of_fold or {})["kl_all"].mean == pytest.approx(best.scores["kl_all"])  # type: ignore[union-attr]
    check_difference(scores, "kl_all")
    check_recalibrated(scores, own, oof, rows, predicted.mean(axis=0))
    assert (report.n_rows, report.n_patients) == (len(rows), 3)
    assert scores.averaged["kl_all"] != scores.single["kl_all"]  # type: ignore[index]


def test_scores_of_the_blend_use_each_members_folds(study: TrainedStudy) -> None:
    scores = opened(study).scores[1]
    stored = read_blend(study.folder.path / "blend" / BLEND_FILE)
    rows = study.folder.held_out_rows()
    assert rows is not None
    predicted = np.stack([by_fold(study, int(member.name)) for member in stored.members])
    single = [plain_kl(rows, stored.fitted.predict(predicted[:, fold])) for fold in range(2)]
    check(scores.single, rows, np.mean(single, axis=0))
    check(scores.averaged, rows, plain_kl(rows, stored.fitted.predict(predicted.mean(axis=1))))
    own = study.folder.rows()
    nested = read_oof(study.folder.path / "blend" / "oof_nested.parquet", own)
    probabilities = nested[list(PROBABILITY_COLUMNS)].to_numpy()
    check(scores.out_of_fold, own, plain_kl(own, probabilities))
    blended = stored.fitted.predict(predicted.mean(axis=1))
    check_recalibrated(scores, own, probabilities, rows, blended)


def test_opening_is_recorded_before_anything_is_printed(
    study: TrainedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*words: object, **options: object) -> None:
        raise OSError("no terminal")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.print", broken)
        with pytest.raises(OSError, match="no terminal"):
            main(["--debug", "holdout", "first", "--results", str(study.results)])
    (record,) = openings(study.folder)
    best = study.folder.finished_trial()
    assert record["study"] == "first"
    assert record["trial"] == best.number
    assert record["keys"] == {str(fold): key for fold, key in best.keys.items()}
    members = record["blend"]["members"]
    stored = read_blend(study.folder.path / "blend" / BLEND_FILE)
    assert members == {
        member.name: {str(fold): key for fold, key in (member.keys or {}).items()}
        for member in stored.needed()
    }
    assert record["scores"][0]["single_fold_models"]["kl_10"]["mean"] > 0
    assert record["date"].endswith("+00:00")


@pytest.mark.parametrize("place", ["predict_all_folds", "recordings_of_held_out"])
def test_a_failure_leaves_no_opening(
    study: TrainedStudy, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def broken(*arguments: object, **options: object) -> Any:
        raise TrainingError("predictions must be finite", got="nan")

    monkeypatch.setattr(f"hms_ray.blend.holdout.{place}", broken)
    with refusal(TrainingError, "predictions must be finite"):
        opened(study)
    assert openings(study.folder) == []
    assert not (study.folder.path / OPENINGS_FILE).exists()


def test_a_second_opening_says_when_and_for_what_it_was_opened(
    study: TrainedStudy, run: Run
) -> None:
    best = f"trial {study.folder.finished_trial().number:04d} of first and the blend"
    assert "not opened" in run("show", "first")[1]
    status, first = run("holdout", "first")
    assert status == 0
    assert "opened" not in first
    status, second = run("holdout", "first")
    assert status == 0
    text = " ".join(second.split())
    date = openings(study.folder)[0]["date"][:16].replace("T", " ")
    assert f"This hold-out was opened 1 time: {date} UTC for {best}. Choices made" in text
    assert "Choices made since then may have used what it showed" in text
    shown = " ".join(run("show", "first")[1].split())
    assert "of 3 patients, opened 2 times: " in shown
    assert best in shown
    assert len(json.loads(run("show", "first", "--json")[1])["openings"]) == 2


def test_json_has_every_number(study: TrainedStudy, run: Run) -> None:
    report = opened(study)
    status, text = run("holdout", "first", "--json", "--device", "cpu")
    assert status == 0
    found = json.loads(text)
    assert found["scores"] == [scores.to_json() for scores in report.scores]
    assert found["study"] == "first"
    assert len(found["opened_before"]) == 1
    single = report.scores[0].single
    assert single is not None
    assert single["kl_4"] is not None
    printed = found["scores"][0]["single_fold_models"]["kl_4"]
    assert printed == single["kl_4"].to_json()


def test_text_has_both_scores_and_the_next_command(study: TrainedStudy, run: Run) -> None:
    status, text = run("holdout", "first")
    assert status == 0
    scores = openings(study.folder)[0]["scores"]
    for one in scores:
        for kind in ("single_fold_models", "mean_of_fold_models", "out_of_fold"):
            assert f"{one[kind]['kl_10']['mean']:.4f} [" in text
        kl_10 = one["recalibrated"]["kl_10"]["mean"]
        assert f"KL >=10 {kl_10:.4f}." in " ".join(text.split())
        assert f"{one['difference']['kl_10']['mean']:+.4f} [" in text
    assert "KL >=10" in text
    assert text.splitlines()[-1].startswith("next: hms-ray submit ")


def test_the_same_rows_opened_by_another_study_count(study: TrainedStudy) -> None:
    """Whoever searches again under another name has seen the hold-out all the same."""
    shutil.copytree(study.folder.path, study.results / "second")
    opened(study)
    other = StudyFolder.open("second", study.results)
    assert [opening["study"] for opening in openings(other)] == ["first"]
    (other.path.parent / "broken").mkdir()
    (other.path.parent / "broken" / "study.json").write_text("{", encoding="utf-8")
    assert [opening["study"] for opening in openings(other)] == ["first"]
    assert not (other.path / OPENINGS_FILE).exists()


def test_a_study_without_a_hold_out_is_refused(tmp_path: Path, results: Path) -> None:
    with refusal(
        StudyError,
        "the study must have a hold-out",
        got="data.holdout: 0",
        where="one",
        fix="--set data.holdout=0.15",
    ):
        open_holdout(StudyFolder.open("one", results), HoldoutOptions(results=results))


def test_a_locked_study_is_not_opened(study: TrainedStudy) -> None:
    """A search that runs still chooses."""
    with study.folder.lock(), refusal(StudyError, "study is locked by another process"):
        opened(study)
    assert openings(study.folder) == []


def test_folder_with_other_held_out_rows_is_refused(study: TrainedStudy, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    labels = pd.read_csv(study.data / "train.csv")
    labels.assign(seizure_vote=labels["seizure_vote"] + 1).to_csv(other / "train.csv", index=False)
    with refusal(
        DataError,
        "must have the held-out rows of the study",
        got="other rows",
        where=str(other),
        fix="--data DIR",
    ):
        opened(study, data_dir=other)
    with refusal(DataError, "the competition folder must exist", where="gone", fix="--data DIR"):
        opened(study, data_dir=tmp_path / "gone")
    assert openings(study.folder) == []


def test_a_moved_folder_is_named_with_data(study: TrainedStudy, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(study.data, moved, ignore=shutil.ignore_patterns("packed", "*_eegs"))
    there = opened(study, data_dir=moved)
    assert (moved / "packed").is_dir()
    assert there.scores[0].to_json() == opened(study).scores[0].to_json()


def test_models_that_saw_held_out_patients_are_refused(study: TrainedStudy) -> None:
    """A blend of them is not scored; a trial of them is an error."""
    keys = StudyFolder.open("whole", study.results).finished_trial().keys
    file = study.folder.path / "blend" / BLEND_FILE
    content = json.loads(file.read_text())
    for member in content["members"]:
        member["keys"] = {str(fold): key for fold, key in keys.items()}
    file.write_text(json.dumps(content))
    report = opened(study)
    assert len(report.scores) == 1
    (note,) = report.notes
    assert note.startswith("The blend is not scored: ")
    assert note.endswith(" saw held-out patients.")
    assert openings(study.folder)[0]["blend"] is None
    result = study.folder.finished_trial().path / "result.json"
    trial = json.loads(result.read_text())
    result.write_text(json.dumps({**trial, "keys": content["members"][0]["keys"]}))
    with refusal(StudyError, "a fold model must not have seen held-out patients", got="1015"):
        opened(study)


def test_blend_with_a_member_without_models_is_not_scored(study: TrainedStudy) -> None:
    file = study.folder.path / "blend" / BLEND_FILE
    content = json.loads(file.read_text())
    for member in content["members"]:
        del member["keys"]
    file.write_text(json.dumps(content))
    report = opened(study)
    assert len(report.scores) == 1
    assert "may have seen these patients" in report.notes[0]


def test_members_with_different_folds_are_scored_by_their_means(
    study: TrainedStudy, run: Run
) -> None:
    """A blend of single fold models is then undefined."""
    place = study.folder.path / "blend"
    blend(["first", "refolded"], study.results, Settings(out=place, method="equal"))
    scores = opened(study).scores[1]
    assert scores.single is None
    assert scores.averaged["kl_all"] is not None
    assert "the members have different folds" in scores.notes[0]
    assert scores.differences()["kl_all"] is None
    assert "different folds" in run("holdout", "first")[1]


def test_rows_without_a_signal_are_treated_as_in_training(
    original: TrainedStudy, tmp_path: Path
) -> None:
    rows = original.folder.held_out_rows()
    assert rows is not None
    data = tmp_path / "data"
    shutil.copytree(original.data, data, ignore=shutil.ignore_patterns("packed", "*_eegs"))
    number = rows["spectrogram_id"].iloc[0]
    file = data / "train_spectrograms" / f"{number}.parquet"
    silent = pd.read_parquet(file)
    silent.iloc[:, 1:] = np.float32(np.nan)
    silent.to_parquet(file)
    inputs = [original.folder.space().experiment.input]
    counts = {
        policy: len(recordings_of_held_out(data, rows, inputs, policy).rows)
        for policy in ("keep", "error", "drop")
    }
    n_silent = int((rows["spectrogram_id"] == number).sum())
    assert counts == {"keep": len(rows), "error": len(rows), "drop": len(rows) - n_silent}


@pytest.fixture
def mine_csv(study: TrainedStudy, tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    study.folder.finished_trial().oof(study.folder.rows()).to_csv(file, index=False)
    return file


@pytest.mark.parametrize("inputs", [["first", "FILE"], ["FILE"]])
def test_files_are_not_blended_in_a_study_with_a_hold_out(
    study: TrainedStudy, mine_csv: Path, inputs: list[str]
) -> None:
    given = [str(mine_csv) if name == "FILE" else name for name in inputs]
    with refusal(
        PredictionError,
        "files cannot be blended in a study with a hold-out",
        got="mine",
        where="first",
        fix="Blend the study's own trials",
    ):
        blend(given, study.results, Settings(targets="first", out=mine_csv.parent / "out"))
    assert not (mine_csv.parent / "out").exists()


def test_models_of_all_patients_are_not_blended_in_a_study_with_a_hold_out(
    study: TrainedStudy,
) -> None:
    with refusal(
        PredictionError,
        "must not have seen its patients",
        got="whole/0000",
        where="first",
        fix="data.holdout_seed",
    ):
        blend(["first", "whole"], study.results, Settings(rows="common"))


def test_predicted_training_rows_have_no_held_out_patients(
    study: TrainedStudy, tmp_path: Path
) -> None:
    out = tmp_path / "rows.parquet"
    text = submit(
        "first",
        SubmitOptions(
            data_dir=study.data, results=study.results, out=out, train_rows=True, device="cpu"
        ),
    )
    assert "3 held-out patients skipped; score them with: hms-ray holdout first" in text
    found = pd.read_parquet(out)
    assert sorted(found["row_id"]) == sorted(study.folder.rows()["row_id"])
