from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.config.loading import validate_space
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import StudyError
from hms_ray.experiment.run import ExperimentResult
from hms_ray.search.outcomes import STOP_REASON, Proposal, Pruned
from hms_ray.storage import visibility
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.study.folder import StudyFolder
from hms_ray.study.kept_weights import FREE_EVERY, KeptWeights
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.new import create_study
from hms_ray.study.trial import StoredTrial
from hms_ray.sweep import study as sweep_study
from hms_ray.sweep import trial_actor as sweep_trial
from hms_ray.sweep import trial_ends
from hms_ray.sweep.trial_actor import StudyJob, run_trial
from hms_ray.sweep.trial_ends import TrialEnds
from hms_ray.sweep.tune_searcher import LOST, StudySearch
from tests.refused import refusal
from tests.study_data import make_result

SPACE = validate_space({"metric": "kl_all"}, "test")
CONFIG = {"number": 0, "point": {}, "experiment": SPACE.experiment.model_dump_json()}


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    return create_study(tmp_path / "results", "one", SPACE, prepared)


@pytest.fixture
def job(study: StudyFolder) -> StudyJob:
    return StudyJob(study.path, *[None] * 6, logs=WorkerLogs(study.path))


Event = dict[str, Any]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def ends(
    tmp_path: Path, study: StudyFolder, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> TrialEnds:
    monkeypatch.setattr(visibility, "VISIBLE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(visibility, "_POLL_S", 0.01)
    return TrialEnds(study, events.append)


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


def test_failure_that_cannot_be_recorded_is_still_reported(
    job: StudyJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(sweep_trial, "_train", fail)
    monkeypatch.setattr(StudyFolder, "write_failure", fail)
    assert run_trial(CONFIG, job) == {"error": "OSError: the disk is full"}


def hide(monkeypatch: pytest.MonkeyPatch, n_looks: int) -> None:
    """The trials folder of a shared file system that shows new entries late."""
    seen, looks = StudyFolder.trial, [None] * n_looks
    monkeypatch.setattr(StudyFolder, "trial", lambda *given: looks.pop() if looks else seen(*given))


def test_success_that_is_not_visible_yet_keeps_its_predictions(
    study: StudyFolder, ends: TrialEnds, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make_result(0.5)
    study.write_trial(0, {}, SPACE.experiment, result)
    hide(monkeypatch, 3)
    ends.record(proposal(0), result.scores)
    assert events == [{"event": "trial_ended", "trial": 0, "scores": result.scores}]
    ends.settle()
    (trial,) = ends.finished()
    pd.testing.assert_frame_equal(trial.oof(study.rows()), result.oof)
    assert ends.failed() == []


def test_trial_that_stays_invisible_is_named_and_no_failure(
    study: StudyFolder,
    ends: TrialEnds,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends.record(proposal(7), make_result(0.5).scores)
    ends.settle()
    assert "trial 0007 has ended, but its files are not visible" in caplog.text
    assert not study.trial_path(7).exists()
    assert ends.failed() == []


def test_failure_of_a_lost_process_does_not_replace_an_invisible_success(
    study: StudyFolder, ends: TrialEnds, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    study.write_trial(0, {}, SPACE.experiment, make_result(0.5))
    hide(monkeypatch, 2)
    ends.record(proposal(0), LOST)
    (event,) = events
    assert (event["event"], event["reason"]) == ("trial_failed", LOST)
    (trial,) = study.trials()
    assert trial.finished
    assert ends.failed() == []


def test_record_of_the_trial_itself_is_kept_with_its_traceback(
    study: StudyFolder, ends: TrialEnds, events: list[Event]
) -> None:
    study.write_failure(0, {}, SPACE.experiment, "too large", "Traceback: too large")
    ends.record(proposal(0), "too large")
    assert events[0]["traceback"] == "Traceback: too large"
    (trial,) = study.trials()
    assert (trial.path / "error.txt").read_text() == "Traceback: too large"
    ends.record(proposal(1), LOST)
    assert ends.failed() == ["too large", LOST]
    assert [trial.reason for trial in study.trials()] == ["too large", LOST]


def test_pruned_trial_that_is_not_visible_yet_counts_once(
    tmp_path: Path, study: StudyFolder, ends: TrialEnds, monkeypatch: pytest.MonkeyPatch
) -> None:
    del ends  # its fixture makes the waits short
    stored, logged = [], []
    ends = TrialEnds(
        study,
        lambda event: None,
        on_stored=lambda *given: stored.append(given),
        on_ended=logged.append,
    )
    result = replace(make_result(0.5), keys={0: "a" * 64}, reused=())
    study.write_pruned(0, {}, SPACE.experiment, result, "after 1 of 2 folds", 0.6, 2)
    hide(monkeypatch, 2)
    ends.record(proposal(0), Pruned("after 1 of 2 folds"))
    assert stored == []
    ends.settle()
    ends.settle()
    ((trial, scores),) = stored
    assert (trial.state, trial.saved_folds_minutes, scores) == ("pruned", (1, 1.5), None)
    assert [one.number for one in logged] == [0]


def test_what_a_pruned_trial_did_not_train_is_in_the_cost(
    tmp_path: Path, study: StudyFolder, prepared: Prepared
) -> None:
    run = sweep_study._Run(SPACE, prepared, tmp_path / "results", study, None, None)
    result = replace(make_result(0.5), keys={0: "a" * 64}, reused=())
    study.write_pruned(0, {}, SPACE.experiment, result, "after 1 of 2 folds", 0.6, 2)
    study.write_trial(1, {}, SPACE.experiment, make_result(0.5))
    pruned, finished = study.trials()
    run._take_stored(pruned, None)
    run._take_stored(finished, np.zeros(2))
    assert run._costs.cost().saved_by_pruning_s == 90


def test_a_stopped_trial_has_not_failed(
    study: StudyFolder, ends: TrialEnds, events: list[Event]
) -> None:
    # Its own process was cancelled in an operation that then failed.
    study.write_failure(0, {}, SPACE.experiment, "interrupted", "Traceback")
    ends.record(proposal(0), STOP_REASON)
    (trial,) = study.trials()
    assert (trial.state, trial.reason) == ("stopped", STOP_REASON)
    assert not (trial.path / "error.txt").exists()
    assert [(event["event"], event["reason"]) for event in events] == [
        ("trial_stopped", STOP_REASON)
    ]
    assert ends.failed() == []


class Recorded:
    """Stands in for the study's proposals."""

    n_finished = n_running = n_retried = 0

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def next(self) -> Proposal:
        return proposal(0)

    def complete(self, number: int, scores: Any) -> None:
        self.outcomes.append(scores)

    def fail(self, number: int, reason: str) -> None:
        self.outcomes.append(reason)


def test_result_of_a_lost_process_counts_if_it_was_written() -> None:
    for stored in ({"kl_all": 0.5, "kl_4": None, "kl_10": 0.4}, None):
        recorded = Recorded()
        search = StudySearch(recorded, 1, recover=lambda number, stored=stored: stored)
        search.suggest("a")
        search.on_trial_complete("a", error=True)
        assert recorded.outcomes == [stored or LOST]


def test_end_that_cannot_be_recorded_ends_the_search_with_its_error() -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    search = StudySearch(Recorded(), 9, on_end=fail)
    search.suggest("a")
    search.on_trial_complete("a", result={"error": "too large"})
    # Tune would call again.
    search.on_trial_complete("a", error=True)
    assert search.suggest("b") == StudySearch.FINISHED
    assert str(search.faults.first) == "the disk is full"


def test_damaged_trial_of_an_earlier_run_does_not_end_the_search(
    tmp_path: Path,
    study: StudyFolder,
    prepared: Prepared,
    ends: TrialEnds,
    events: list[Event],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(2):
        study.write_trial(number, {}, SPACE.experiment, make_result(0.5 + number))
    (study.trial_path(0) / "oof.parquet").unlink()
    scores = make_result(1.5).scores
    ends.record(proposal(1), scores)
    assert events[0]["event"] == "trial_ended"
    assert "0000/oof.parquet" in caplog.text
    board = pd.read_csv(study.path / "leaderboard.csv", dtype={"trial": str})
    assert board["trial"].tolist() == ["0001"]
    run = sweep_study._Run(SPACE, prepared, tmp_path / "results", study, None, None)
    with refusal(StudyError, "must exist", where="0000/oof.parquet", fix="Move the trial"):
        run.result()
    study.trial_path(0).rename(tmp_path / "moved")
    assert run.result().best.number == 1


def test_end_of_a_trial_reads_no_other_trial(
    study: StudyFolder, ends: TrialEnds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost of an end must not grow with the trials before it."""
    for number in range(4):
        study.write_trial(number, {}, SPACE.experiment, make_result(0.5 + number))
    assert ends.leaderboard.finished[0].number == 0
    monkeypatch.setattr(StudyFolder, "trials", None)
    read, opened = StudyFolder.trial, set[int]()
    monkeypatch.setattr(StudyFolder, "trial", lambda f, n: opened.add(n) or read(f, n))
    study.write_trial(4, {}, SPACE.experiment, make_result(0.3))
    ends.record(proposal(4), make_result(0.3).scores)
    ends.record(proposal(5), "no luck")
    assert opened == {4, 5}
    ends.settle()
    board = pd.read_csv(study.path / "leaderboard.csv", dtype={"trial": str})
    assert board["trial"].tolist() == ["0004", "0000", "0001", "0002", "0003", "0005"]


def test_leaderboard_file_takes_one_percent_of_the_time(
    study: StudyFolder, ends: TrialEnds, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = [100.0], list[float]()

    def write(board: Leaderboard) -> None:
        now[0] += 0.04
        written.append(now[0])

    monkeypatch.setattr(trial_ends, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Leaderboard, "write_csv", write)
    for number in range(100):
        now[0] += 0.2
        ends.record(proposal(number), "no luck")
    assert written[0] == pytest.approx(100.24), "at the first end"
    assert len(written) == 5
    assert min(b - a for a, b in pairwise(written)) > 4
    ends.settle()
    assert len(written) == 6, "whatever the time"


def test_each_end_is_reported_once_with_its_trial(study: StudyFolder, tmp_path: Path) -> None:
    ended: list[StoredTrial] = []
    ends = TrialEnds(study, lambda event: None, on_ended=ended.append)
    study.write_trial(0, {}, SPACE.experiment, make_result(0.5))
    ends.record(proposal(0), make_result(0.5).scores)
    ends.record(proposal(1), LOST)
    ends.record(proposal(2), STOP_REASON)
    ends.settle()
    assert [(trial.number, trial.state) for trial in ended] == [
        *((0, "complete"), (1, "failed"), (2, "stopped"))
    ]


def test_study_is_locked_while_its_run_is_set_up(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SPACE.model_copy(update={"seed": 1})

    def set_up(space: object, prepared: Prepared, results: Path, *_: object) -> None:
        create_study(results, "one", other, prepared)

    monkeypatch.setattr(sweep_study, "_Run", set_up)
    with refusal(StudyError, "locked by another process", where="one", fix="Wait"):
        sweep_study.run_study(SPACE, prepared, tmp_path, "one")


def test_weights_are_freed_every_few_ends_and_at_the_end(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[int] = []

    class Kept(KeptWeights):
        def free(self, trials: Sequence[StoredTrial]) -> int:
            freed.append(len(trials))
            return 0

    kept = Kept(study, tmp_path / "results", 1, "kl_all")
    ends = TrialEnds(study, lambda event: None, kept)
    for number in range(FREE_EVERY + 2):
        study.write_trial(number, {}, SPACE.experiment, make_result(0.5))
        ends.record(proposal(number), make_result(0.5).scores)
    assert freed == [FREE_EVERY]
    ends.settle()
    assert freed == [FREE_EVERY, FREE_EVERY + 2]
