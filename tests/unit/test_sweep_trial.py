from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest

from hms_ray.config.loading import validate_space
from hms_ray.dataset.prepare import Prepared
from hms_ray.experiment.run import ExperimentResult
from hms_ray.search.proposals import Proposal
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from hms_ray.sweep import study as sweep_study
from hms_ray.sweep import trial_actor as sweep_trial
from hms_ray.sweep.trial_actor import StudyJob, run_trial
from tests.study_data import make_result

SPACE = validate_space({"study": {"objective": "kl_all"}}, "test")
CONFIG = {"number": 0, "point": {}, "experiment": SPACE.experiment.model_dump(mode="json")}


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path / "results", "one", SPACE, prepared)


@pytest.fixture
def job(study: StudyFolder) -> StudyJob:
    return StudyJob(study.path, *[None] * 5, logs=WorkerLogs(study.path))


@pytest.fixture
def run(tmp_path: Path, study: StudyFolder, prepared: Prepared) -> sweep_study._Run:
    run = sweep_study._Run(SPACE, prepared, tmp_path / "results", study, None, None)
    run._pump = MagicMock()
    return run


def proposal(number: int) -> Proposal:
    return Proposal(number, {}, SPACE.experiment)


def test_trial_with_a_result_is_not_run_again(
    study: StudyFolder, job: StudyJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def train(number: int, *_: object) -> ExperimentResult:
        runs.append(number)
        if len(runs) > 1:
            raise RuntimeError("trained again")
        return make_result(0.5)

    monkeypatch.setattr(sweep_trial, "_train", train)
    # Tune repeats a trial whose process it lost, also after it had written its result.
    first, second = run_trial(CONFIG, job), run_trial(CONFIG, job)
    assert first == second == make_result(0.5).scores
    assert runs == [0]
    (trial,) = study.trials()
    assert trial.finished


def test_failed_trial_is_logged_and_run_again(
    job: StudyJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> ExperimentResult:
        raise RuntimeError("no luck")

    monkeypatch.setattr(sweep_trial, "_train", train)
    assert run_trial(CONFIG, job) == {"error": "RuntimeError: no luck"}
    (log,) = (job.study / "logs").iterdir()
    assert "[trial 0000] trial failed\nTraceback" in log.read_text()
    monkeypatch.setattr(sweep_trial, "_train", lambda *_: make_result(0.5))
    assert run_trial(CONFIG, job)["kl_10"] == 0.5


def test_damaged_trial_of_an_earlier_run_does_not_end_the_search(
    tmp_path: Path,
    study: StudyFolder,
    run: sweep_study._Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(2):
        study.write_trial(number, {}, SPACE.experiment, make_result(0.5 + number))
    (study.trial_path(0) / "oof.parquet").unlink()
    monkeypatch.setattr(sweep_study, "write_trial_logs", lambda *_: None)
    run._trial_ended(proposal(1), None)
    ((event,), _) = run._pump.send.call_args
    assert event["event"] == "trial_ended"
    assert "0000/oof.parquet" in caplog.text
    assert not (study.path / "leaderboard.csv").exists()
    study.trial_path(0).rename(tmp_path / "moved")
    run._trial_ended(proposal(1), None)
    board = pd.read_csv(study.path / "leaderboard.csv", dtype={"trial": str})
    assert board["trial"].tolist() == ["0001"]


def test_error_in_tensorboard_logs_does_not_end_the_search(
    tmp_path: Path,
    study: StudyFolder,
    run: sweep_study._Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    study.write_trial(0, {}, SPACE.experiment, make_result(0.5))

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(sweep_study, "write_trial_logs", fail)
    run._trial_ended(proposal(0), None)
    assert "the disk is full" in caplog.text
    assert (study.path / "leaderboard.csv").exists()
