"""Requests to stop a study or a trial, and signals once and twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hms_ray.cli.main import main
from hms_ray.config.loading import validate_space
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import FoldCancelled, StudyError
from hms_ray.search.outcomes import STOP_REASON
from hms_ray.search.proposals import Proposals
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.storage.stop_requests import StopRequests
from hms_ray.study import stop as study_stop
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from hms_ray.study.stop import stop
from hms_ray.sweep import stop_watch
from hms_ray.sweep import trial_actor as sweep_trial
from hms_ray.sweep.stop_watch import StopWatch
from hms_ray.sweep.trial_actor import StudyJob, run_trial
from hms_ray.sweep.tune_searcher import MIN_FAILURES, StudySearch
from tests.refused import refusal
from tests.study_data import make_result, make_space

SPACE = make_space()


@pytest.fixture
def study(tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    monkeypatch.setattr(stop_watch, "POLL_S", 0.02)
    monkeypatch.setattr(study_stop, "_POLL_S", 0.02)
    return create_study(tmp_path, "one", SPACE, prepared)


class Run:
    """A study process in this one: holds the lock, follows requests."""

    def __init__(self, study: StudyFolder) -> None:
        self.cancelled: list[int] = []
        self.end = threading.Event()
        self.watch = StopWatch(study.path, self.stop_trial, self.end.set)
        self._study = study
        self._thread = threading.Thread(target=self._work)

    def stop_trial(self, number: int) -> str | None:
        self.cancelled.append(number)
        if number == 9:
            return "does not run"
        # Its end is reported by another thread, some requests later.
        if self.cancelled.count(number) == 3:
            threading.Thread(
                target=self.watch.trial_ended, args=[number], kwargs={"stopped": number != 4}
            ).start()
        return None

    def _work(self) -> None:
        with self._study.lock(), self.watch:
            self.end.wait(30)

    def __enter__(self) -> Run:
        self._thread.start()
        while not (self._study.path / ".lock-owner.json").is_file():
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self._thread.join()


@pytest.fixture
def run(study: StudyFolder) -> Iterator[Run]:
    with Run(study) as run:
        yield run


def test_a_study_is_stopped_and_the_command_waits_for_its_end(
    study: StudyFolder, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stop", "one", "--results", str(study.path.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study one stopped; the same command resumes it"
    assert lines[1].startswith("next: hms-ray leaderboard one")
    assert run.end.is_set()
    assert run.cancelled == []


def test_a_trial_is_stopped_and_the_study_continues(study: StudyFolder, run: Run) -> None:
    assert stop(study, 3) == "trial 0003 of one stopped; the study continues"
    assert run.cancelled[:3] == [3, 3, 3], "again until it has ended: it may not have folds yet"
    assert not run.end.is_set()
    for number, answer in ((9, "does not run"), (4, "has ended by itself")):
        with refusal(
            StudyError,
            "only a running trial can be stopped",
            got=f"trial {number:04d}, which {answer}",
            where=str(study.path),
            fix="hms-ray leaderboard one",
        ):
            stop(study, number)


def test_a_study_that_does_not_run_cannot_be_stopped(study: StudyFolder) -> None:
    with refusal(
        StudyError,
        "only a running study",
        got="one, which does not run",
        where=str(study.path),
        fix="hms-ray studies",
    ):
        stop(study, None)
    assert StopRequests(study.path).pending() == []


def test_a_request_without_effect_is_withdrawn(study: StudyFolder) -> None:
    with study.lock(), refusal(StudyError, "within 0 s", got="one, which still runs", fix="log"):
        stop(study, None, timeout_s=0.1)
    assert StopRequests(study.path).pending() == []


def test_a_study_that_is_just_starting_is_stopped_too(study: StudyFolder) -> None:
    requests, ended = StopRequests(study.path), threading.Event()
    with study.lock():
        command = threading.Thread(target=stop, args=(study, None))
        command.start()
        while requests.pending() != [None]:
            time.sleep(0.01)
        # Only now it removes the requests of earlier runs.
        with StopWatch(study.path, lambda number: None, ended.set):
            assert ended.wait(10)
    command.join()


def test_the_study_is_stopped_once_since_a_second_ctrl_c_ends_it_at_once(
    study: StudyFolder,
) -> None:
    stops: list[int] = []
    with StopWatch(study.path, lambda number: None, lambda: stops.append(1)) as watch:
        StopRequests(study.path).write(None)
        watch._thread.join(0.3)
    assert stops == [1]
    assert StopRequests(study.path).pending() == [], "none is left for the next run"


def test_requests_of_an_earlier_run_have_no_effect(study: StudyFolder) -> None:
    StopRequests(study.path).write(None)
    with Run(study) as run:
        time.sleep(0.1)
        assert not run.end.is_set()


def search_of(study: StudyFolder, n_trials: int) -> tuple[StudySearch, list[Any]]:
    space = validate_space(
        {
            "parameters": {"training.learning_rate": {"min": 1e-4, "max": 1e-2}},
            "budget": {"trials": n_trials},
        },
        "test",
    )
    ends: list[Any] = []
    search = StudySearch(
        Proposals(space, study.journal),
        n_trials,
        on_end=lambda proposal, outcome: ends.append((proposal.number, outcome)),
    )
    return search, ends


def test_stopped_trials_are_recorded_and_do_not_end_the_search(study: StudyFolder) -> None:
    search, ends = search_of(study, n_trials=2)
    for place in range(MIN_FAILURES + 2):
        config = search.suggest(str(place))
        assert isinstance(config, dict)
        assert search.stop(config["number"])
        search.on_trial_complete(str(place), {"error": "trial was stopped"})
        assert not search.stop(config["number"]), "it does not run any more"
    assert {outcome for _, outcome in ends} == {STOP_REASON}
    # One that finishes before it can be stopped is finished.
    config = search.suggest("last")
    assert isinstance(config, dict)
    search.stop(config["number"])
    search.on_trial_complete("last", dict(make_result(0.5).scores))
    assert ends[-1] == (config["number"], make_result(0.5).scores)


def test_retried_trials_are_trained_though_enough_are_finished(study: StudyFolder) -> None:
    space, done = make_space(budget={"trials": 1}), make_result(0.5).scores
    first = Proposals(space, study.journal)
    failed, finished = first.next(), first.next()
    first.fail(failed.number, "no memory")  # type: ignore[union-attr]
    first.complete(finished.number, done)  # type: ignore[union-attr]
    again = Proposals(space, study.journal, retry_failed=True)
    search = StudySearch(again, n_trials=1)
    config = search.suggest("a")
    assert isinstance(config, dict)
    assert config["point"] == failed.point  # type: ignore[union-attr]
    assert search.suggest("b") is None
    search.on_trial_complete("a", dict(done))
    assert search.suggest("b") == StudySearch.FINISHED
    assert again.n_finished == 2


def test_a_stopped_start_point_is_not_tried_again(study: StudyFolder) -> None:
    space = validate_space(
        {
            "parameters": {"training.learning_rate": {"values": [0.1, 0.2]}},
            "start": [{"training.learning_rate": 0.1}],
        },
        "test",
    )
    for reason, again in (("out of memory", True), (STOP_REASON, False)):
        proposals = Proposals(space, study.path / f"{again}.journal")
        first = proposals.next()
        proposals.fail(first.number, reason)  # type: ignore[union-attr]
        later = Proposals(space, study.path / f"{again}.journal").next()
        assert (later.point == first.point) is again, reason  # type: ignore[union-attr]


def test_a_cancelled_trial_leaves_its_record_to_the_study(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: object) -> None:
        raise FoldCancelled("trial 0000 was stopped")

    monkeypatch.setattr(sweep_trial, "_train", cancelled)
    job = StudyJob(study.path, *[None] * 6, logs=WorkerLogs(study.path))  # type: ignore[arg-type]
    config = {"number": 0, "point": {}, "experiment": SPACE.experiment.model_dump_json()}
    assert run_trial(config, job) == {"error": "trial 0000 was stopped"}
    assert study.trials() == []


COMMAND = """
import sys, time
from hms_ray.distributed.process_state import interrupt_status, stop_signals
try:
    with stop_signals():
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            time.sleep({clean_s})
            print("clean", flush=True)
except KeyboardInterrupt as interrupt:
    sys.exit(interrupt_status(interrupt))
"""
INT, TERM = signal.SIGINT, signal.SIGTERM


def signalled(signals: Sequence[signal.Signals], clean_s: float) -> tuple[int, str, str]:
    """Status and output of a command that gets signals, the second one while it cleans up."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(clean_s=clean_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line, number in zip(("ready\n", "cleaning\n"), signals, strict=False):
        assert process.stdout.readline() == line
        process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("number", "status", "answer"),
    [(INT, 130, "press Ctrl-C again to end at once"), (TERM, 143, "stopping after SIGTERM")],
)
def test_a_first_signal_cleans_up(number: signal.Signals, status: int, answer: str) -> None:
    found, out, err = signalled([number], 0)
    assert (found, out) == (status, "cleaning\nclean\n")
    assert answer in err
    assert "Traceback" not in err


@pytest.mark.parametrize("signals", [(INT, INT), (TERM, TERM), (TERM, INT)])
def test_a_second_signal_ends_at_once(signals: tuple[signal.Signals, ...]) -> None:
    started = time.monotonic()
    status, out, err = signalled(signals, 60)
    assert (status, out) == (130 if signals[0] == INT else 143, "")
    assert err.splitlines()[-1] == "ended at once"
    assert time.monotonic() - started < 20
