"""What a terminal and a pipe show of a run."""

import io
import logging
import time
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from hms_ray.distributed import progress as distributed_progress
from hms_ray.distributed.progress import EventPump
from hms_ray.report.live import ProgressView, bar
from hms_ray.report.progress import TrainingProgress
from tests.unit.test_progress import Clock, evaluation, start, sweep


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_pipe_gets_events_at_once_and_evaluations_after_a_quiet_time(clock: Clock) -> None:
    stream = io.StringIO()
    with ProgressView(sweep(clock), stream, clock=clock) as view:
        view.handle({"event": "trial_started", "trial": 0, "text": "loss=kl"})
        clock.now += 29
        view.handle(evaluation(0, 0, 0.1))
        clock.now += 2
        view.handle(evaluation(0, 0, 0.2))
        view.handle(evaluation(0, 0, 0.2))
    assert stream.getvalue().splitlines() == [
        "   0:00 trial 0000 (1 of 4): loss=kl",
        "   0:31 trial 0000 fold 0 stage noisy epoch 1.5: KL >=10 0.6123",
    ]


def test_long_lines_break_between_words(clock: Clock) -> None:
    stream = io.StringIO()
    reason = "a model must be known, got " + "no-such-model-of-this-name " * 6 + "x" * 100
    with ProgressView(sweep(clock), stream, clock=clock) as view:
        view.handle({"event": "trial_failed", "trial": 0, "reason": reason})
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert " ".join(line.strip() for line in lines) == f"0:00 trial 0000 failed: {reason}"


@pytest.mark.parametrize("threaded", [True, False])
def test_a_terminal_shows_running_folds_below_the_lasting_lines(
    clock: Clock, threaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with ProgressView(sweep(clock), stream, threaded=threaded, clock=clock) as view:
        view.handle({"event": "trial_started", "trial": 3, "text": "loss=kl"})
        view.handle(evaluation(3, 0, 0.1))
        assert view._live is not None
        view._live.refresh()
    shown = stream.getvalue()
    assert "   0:00 trial 0003 (1 of 4): loss=kl\n" in shown
    assert "trial 0003  0     noisy  1.5    KL >=10 0.6123" in shown
    assert "0 of 4 trials finished" in shown


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_fault_of_progress_is_logged_and_the_next_event_is_shown(
    clock: Clock, term: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(TrainingProgress, "summary", lambda self: 1 / 0)
    stream = Terminal()
    with ProgressView(sweep(clock), stream, clock=clock) as view:
        view.handle({"event": "no such event"})
        view.handle({"event": "trial_ended", "trial": 0, "scores": {}})
        view.message("still here")
    assert "still here" in stream.getvalue()
    assert "no such event" in caplog.text
    assert ("live view" in caplog.text) == (term == "xterm")


def test_warnings_of_other_modules_are_printed_once(clock: Clock) -> None:
    stream = io.StringIO()
    other = logging.getLogger("hms_ray.sweep.study")
    with ProgressView(sweep(clock), stream, clock=clock) as view:
        other.warning("no %s", "leaderboard")
        other.info("quiet")
        view.handle({"event": "trial_failed", "trial": 0, "reason": "nan"})
    assert stream.getvalue().splitlines() == [
        "   0:00 warning: no leaderboard",
        "   0:00 trial 0000 failed: nan",
    ]
    other.warning("after the end")
    assert "after" not in stream.getvalue()


def test_a_short_loop_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("packing", "windows") as show:
        show(1, 2)
        show(2, 2)
    assert capsys.readouterr() == ("", "")


def test_a_long_loop_ends_with_a_line_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with bar("packing", "windows", delay_s=0) as show:
        show(1, 2)
        show(2, 2)
    assert capsys.readouterr() == ("", "   0:00 packing: 2 windows done\n")


def test_events_sent_late_or_lost_do_not_end_the_printing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        GetTimeoutError("busy"),
        RuntimeError("the actor died"),
        [{"event": "message", "text": "late"}],
    ]

    class Handle:
        class take:  # noqa: N801 - the actor's method
            @staticmethod
            def remote() -> object:
                return object()

    def get(reference: object, timeout: float) -> Any:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Remote:
        @staticmethod
        def remote() -> type[Handle]:
            return Handle

    monkeypatch.setattr(distributed_progress.ray, "remote", lambda **options: lambda actor: Remote)
    monkeypatch.setattr(distributed_progress.ray, "get", get)
    monkeypatch.setattr(distributed_progress, "POLL_S", 0.001)
    stream = io.StringIO()
    with ProgressView(sweep(Clock()), stream, clock=Clock()) as view, EventPump(view):
        while "late" not in stream.getvalue():
            time.sleep(0.001)
    assert stream.getvalue().endswith("   0:00 late\n")


def test_the_table_fits_a_low_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("TERM", "xterm")
    progress = sweep(clock, n_trials=40)
    for trial in range(40):
        start(progress, trial)
    stream = Terminal()
    with ProgressView(progress, stream, threaded=False, clock=clock) as view:
        view.message("hello")
    assert "and 35 more" in stream.getvalue()
