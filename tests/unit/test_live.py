"""What a terminal and a pipe show of a run."""

import errno
import io
import logging
import subprocess
import sys
import threading
import time
from typing import Any
from unittest.mock import MagicMock

import pytest

from hms_ray.display.live import ProgressView, bar
from hms_ray.display.progress import TrainingProgress
from hms_ray.distributed import progress as distributed_progress
from hms_ray.distributed.progress import EventPump
from tests.unit.test_progress import Clock, evaluation, start, sweep

HELLO = {"event": "message", "text": "hello"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "10"}.items():
        monkeypatch.setenv(name, value)


def test_pipe_gets_events_at_once_and_evaluations_after_a_quiet_time(clock: Clock) -> None:
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
def test_terminal_shows_running_folds_below_the_lasting_lines(clock: Clock, threaded: bool) -> None:
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


def test_table_fits_a_low_terminal(clock: Clock) -> None:
    progress = sweep(clock, n_trials=40)
    for trial in range(40):
        start(progress, trial)
    stream = Terminal()
    with ProgressView(progress, stream, threaded=False, clock=clock) as view:
        view.handle(HELLO)
    assert "and 35 more" in stream.getvalue()


def test_line_printed_while_the_view_is_drawn_waits_for_no_lock(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing, draw = threading.Event(), ProgressView._view

    def slow(view: ProgressView) -> Any:
        drawing.set()
        time.sleep(0.05)
        return draw(view)

    monkeypatch.setattr(ProgressView, "_view", slow)
    stream = Terminal()
    with ProgressView(sweep(clock), stream, threaded=False, clock=clock) as view:
        assert view._live is not None
        drawing.clear()
        threading.Thread(target=view._live.refresh, daemon=True).start()
        drawing.wait()
        printing = threading.Thread(target=view.handle, args=(HELLO,), daemon=True)
        printing.start()
        printing.join(timeout=10)
        assert not printing.is_alive()
    assert "hello" in stream.getvalue()


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_fault_of_progress_is_logged_and_the_next_event_is_shown(
    clock: Clock, term: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(TrainingProgress, "summary", lambda self: 1 / 0)
    stream = Terminal()
    with ProgressView(sweep(clock), stream, clock=clock) as view:
        view.handle({"event": "no such event"})
        view.handle({"event": "trial_ended", "trial": 0, "scores": {}})
        view.handle(HELLO)
    assert "hello" in stream.getvalue()
    assert "no such event" in caplog.text
    assert ("live view" in caplog.text) == (term == "xterm")


class Closed(io.StringIO):
    """A pipe or terminal whose reader has gone after the first text."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        if self.getvalue():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("threaded", [False, True])
def test_closed_stream_does_not_end_the_work(
    clock: Clock, terminal: bool, threaded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    progress = sweep(clock)
    with ProgressView(progress, Closed(terminal), threaded=threaded, clock=clock) as view:
        for trial in range(3):
            view.handle({"event": "trial_failed", "trial": trial, "reason": "nan"})
    assert ", 3 failed" in progress.summary()
    assert caplog.text.count("nothing more is printed: BrokenPipeError") == 1


def test_result_without_a_reader_does_not_end_the_command() -> None:
    program = """
import sys
from hms_ray.display.live import print_text
sys.stdin.readline()
for _ in range(3):
    print_text("the result")
print("more")
"""
    command = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    command.stdout.close()
    assert command.stdin is not None
    command.stdin.write(b"\n")
    command.stdin.close()
    assert command.wait(30) == 0
    assert command.stderr is not None
    assert b"Traceback" not in command.stderr.read()
    command.stderr.close()


def test_text_that_the_stream_cannot_encode_is_skipped(clock: Clock) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    with ProgressView(sweep(clock), stream, clock=clock) as view:
        for text in ("\u00e9", "hello"):
            view.handle({"event": "message", "text": text})
    assert stream.buffer.getvalue().endswith(b"hello\n")  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["start", "stop"])
def test_live_view_that_cannot_be_shown_does_not_end_the_work(
    clock: Clock, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("only one live display")

    stream = Terminal()
    monkeypatch.setattr(f"rich.live.Live.{method}", fail)
    with ProgressView(sweep(clock), stream, threaded=False, clock=clock) as view:
        view.handle(HELLO)
    assert "hello" in stream.getvalue()
    assert "only one live display" in caplog.text


def test_repeated_fault_is_logged_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with ProgressView(sweep(clock), io.StringIO(), clock=clock) as view:
        for _ in range(3):
            view.handle({"event": "no such event"})
    assert caplog.text.count("could not be shown") == 1


def test_event_that_cannot_be_sent_does_not_end_the_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    actor = MagicMock()
    actor.put.remote.side_effect = RuntimeError("the actor died")
    for _ in range(2):
        distributed_progress.send_event(actor, HELLO, trial=0)
    assert caplog.text.count("a progress event was not sent: RuntimeError: the actor died") == 1


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


@pytest.mark.parametrize(
    ("delay_s", "printed"), [(2, ""), (0, "   0:00 packing: 2 windows done\n")]
)
def test_only_a_long_loop_prints_a_line_on_standard_error(
    delay_s: float, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with bar("packing", "windows", delay_s) as show:
        show(1, 2)
        show(2, 2)
    assert capsys.readouterr() == ("", printed)


def test_lost_events_do_not_end_the_printing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [RuntimeError("the actor died"), [{"event": "message", "text": "late"}]]

    def get(reference: object) -> Any:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    # Else it starts a Ray, or connects to one of this machine.
    monkeypatch.setattr(distributed_progress.ray, "get_runtime_context", MagicMock())
    monkeypatch.setattr(distributed_progress, "NodeAffinitySchedulingStrategy", MagicMock())
    monkeypatch.setattr(distributed_progress.ray, "remote", MagicMock())
    monkeypatch.setattr(distributed_progress.ray, "get", get)
    monkeypatch.setattr(distributed_progress, "POLL_S", 0.001)
    stream = io.StringIO()
    with ProgressView(sweep(Clock()), stream, clock=Clock()) as view, EventPump(view):
        while "late" not in stream.getvalue():
            time.sleep(0.001)
    assert stream.getvalue().endswith("   0:00 late\n")
