import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.dataset.prepare import Prepared
from hms_ray.experiment.run import ExperimentResult
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from hms_ray.sweep import study as sweep_study
from hms_ray.sweep import trial_actor as sweep_trial
from hms_ray.sweep.trial_actor import run_trial

SPACE = validate_space({"study": {"objective": "kl_all"}}, "test")
CONFIG = {"number": 0, "point": {}, "experiment": SPACE.experiment.model_dump(mode="json")}


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path / "results", "one", SPACE, prepared)


def result_of(score: float) -> ExperimentResult:
    oof = pd.DataFrame(
        {"row_id": ["1-0", "2-0"], "eeg_id": [1, 2], "patient_id": [10, 20], "fold": [0, 1]}
    )
    oof[list(PROBABILITY_COLUMNS)] = np.full((2, 6), 1 / 6)
    scores = {"kl_all": score, "kl_4": score, "kl_10": score}
    return ExperimentResult(scores, oof, {0: "a" * 64}, (), False, 1.0)


def test_trial_with_a_result_is_not_run_again(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def train(number: int, *_: object) -> ExperimentResult:
        runs.append(number)
        if len(runs) > 1:
            raise RuntimeError("trained again")
        return result_of(0.5)

    monkeypatch.setattr(sweep_trial, "_train", train)
    job = SimpleNamespace(study=study.path)
    # Tune repeats a trial whose process it lost, also after it had written its result.
    first, second = run_trial(CONFIG, job), run_trial(CONFIG, job)
    assert first == second == {"kl_all": 0.5, "kl_4": 0.5, "kl_10": 0.5}
    assert runs == [0]
    (trial,) = study.trials()
    assert trial.finished


def test_failed_trial_is_run_again(study: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    job = SimpleNamespace(study=study.path)

    def train(*_: object) -> ExperimentResult:
        raise RuntimeError("no luck")

    monkeypatch.setattr(sweep_trial, "_train", train)
    assert run_trial(CONFIG, job) == {"error": "RuntimeError: no luck"}
    monkeypatch.setattr(sweep_trial, "_train", lambda *_: result_of(0.5))
    assert run_trial(CONFIG, job)["kl_all"] == 0.5


def test_damaged_trial_of_an_earlier_run_does_not_end_the_search(
    tmp_path: Path,
    study: StudyFolder,
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(2):
        study.write_trial(number, {}, SPACE.experiment, result_of(0.5 + number))
    (study.trial_path(0) / "oof.parquet").unlink()
    monkeypatch.setattr(sweep_study, "write_trial_logs", lambda *_: None)
    run = sweep_study._Run(SPACE, prepared, tmp_path / "results", study, None, None)
    events = []
    run._pump = SimpleNamespace(send=events.append)
    run._trial_ended(1, None)
    assert [event["event"] for event in events] == ["trial_ended"]
    assert "0000/oof.parquet" in caplog.text
    assert not (study.path / "leaderboard.csv").exists()
    study.trial_path(0).rename(tmp_path / "moved")
    run._trial_ended(1, None)
    board = pd.read_csv(study.path / "leaderboard.csv", dtype={"trial": str})
    assert board["trial"].tolist() == ["0001"]
    assert json.loads((study.trial_path(1) / "result.json").read_text())["reason"] is None


def test_error_in_tensorboard_logs_does_not_end_the_search(
    tmp_path: Path,
    study: StudyFolder,
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    study.write_trial(0, {}, SPACE.experiment, result_of(0.5))

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(sweep_study, "write_trial_logs", fail)
    run = sweep_study._Run(SPACE, prepared, tmp_path / "results", study, None, None)
    run._trial_ended(0, None)
    assert "the disk is full" in caplog.text
    assert (study.path / "leaderboard.csv").exists()
