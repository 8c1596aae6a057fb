import io
import time
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from hms_ray.distributed import progress
from hms_ray.distributed.progress import ProgressLines, ProgressPrinter, clock_text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_lines(clock: Clock, n_finished: int = 0, best: tuple[int, float] | None = None):
    return ProgressLines(4, n_finished, 3, "kl_10", best, clock)


def evaluation(trial: int, fold: int, progress: float, **others: object) -> dict:
    record = {"stage": "noisy", "epoch": 1.5, "kl_all": 0.9, "kl_10": 0.61234, **others}
    return {**record, "event": "evaluation", "trial": trial, "fold": fold, "progress": progress}


def test_a_trial_is_announced_with_what_is_reused(clock: Clock) -> None:
    lines = make_lines(clock, n_finished=1)
    clock.now += 61
    event = {"event": "trial_started", "trial": 7, "text": "loss=kl", "reused": [0, 2]}
    assert lines.lines(event) == [
        "   1:01 trial 0007 (2/4): loss=kl",
        "   1:01 trial 0007 (2/4): reused from the store: fold 0, 2",
    ]


def test_epochs_are_throttled_and_folds_are_not(clock: Clock) -> None:
    lines = make_lines(clock)
    lines.lines({"event": "trial_started", "trial": 0, "text": "", "reused": []})
    clock.now += 4.9
    assert lines.lines(evaluation(0, 0, 0.25)) == []
    clock.now += 0.2
    assert len(lines.lines(evaluation(0, 0, 0.5))) == 1
    clock.now += 0.1
    assert lines.lines(evaluation(0, 0, 0.75)) == []
    (done,) = lines.lines({"event": "fold_ended", "trial": 0, "fold": 0})
    assert "trial 0000 fold 1/3 done" in done


def test_an_epoch_line_holds_everything_in_eighty_columns(clock: Clock) -> None:
    lines = ProgressLines(4, 0, 10, "kl_10", (12, 0.5933), clock)
    lines.lines({"event": "trial_started", "trial": 13, "text": "", "reused": []})
    clock.now += 45_000
    (line,) = lines.lines(evaluation(13, 9, 0.5, stage="a stage with a long name", epoch=12.5))
    assert len(line) <= 80
    assert line.startswith("12:30:00 trial 0013 fold 10/10 a stag 12.5 KL 0.6123, best 0.5933, ")
    assert line.endswith(" left")


def test_a_score_that_there_is_not_is_left_out(clock: Clock) -> None:
    lines = make_lines(clock)
    lines.lines({"event": "trial_started", "trial": 0, "text": "", "reused": []})
    clock.now += 10
    (line,) = lines.lines(evaluation(0, 0, 0.5, kl_10=None))
    assert "KL" not in line
    assert "noisy 1.5" in line


def test_the_best_is_marked_and_kept(clock: Clock) -> None:
    lines = make_lines(clock)

    def end(trial: int, score: float) -> str:
        lines.lines({"event": "trial_started", "trial": trial, "text": "", "reused": []})
        scores = {"kl_all": 0.9, "kl_4": None, "kl_10": score}
        (line,) = lines.lines({"event": "trial_ended", "trial": trial, "scores": scores})
        return line

    assert end(0, 0.5).endswith(
        "trial 0000 (1/4): KL all 0.9000  KL >=4 -  KL >=10 0.5000  best so far"
    )
    assert end(1, 0.6).endswith("trial 0001 (2/4): KL all 0.9000  KL >=4 -  KL >=10 0.6000")
    assert end(2, 0.4).endswith("best so far")
    lines.lines({"event": "trial_started", "trial": 3, "text": "", "reused": []})
    (line,) = lines.lines({"event": "fold_ended", "trial": 3, "fold": 0})
    assert "best 0.4000" in line


def test_time_left_comes_from_the_folds_trained_here(clock: Clock) -> None:
    lines = make_lines(clock, n_finished=2)
    assert lines.seconds_left() is None
    # Two of three folds of this trial are in the store; another trial follows it.
    lines.lines({"event": "trial_started", "trial": 5, "text": "", "reused": [0, 1]})
    clock.now += 30
    lines.lines(evaluation(5, 2, 0.5))
    assert lines.seconds_left() == pytest.approx((1 + 3 - 0.5) * 30 / 0.5)
    clock.now += 30
    lines.lines({"event": "fold_ended", "trial": 5, "fold": 2})
    assert lines.seconds_left() == pytest.approx(3 * 60)
    lines.lines({"event": "trial_ended", "trial": 5, "scores": {"kl_10": 0.5}})
    assert lines.seconds_left() == pytest.approx(3 * 60)


def reused(stages: list[str], progress: float, fold: int = 0) -> dict:
    event = {"event": "stages_reused", "trial": 3, "fold": fold, "saved_s": 34.4}
    return {**event, "stages": stages, "progress": progress}


def test_stages_from_the_store_are_told_with_the_time_they_saved(clock: Clock) -> None:
    lines = make_lines(clock)
    lines.lines({"event": "trial_started", "trial": 3, "text": "", "reused": []})
    assert lines.lines(reused(["noisy"], 0.4)) == [
        "   0:00 trial 0003 fold 1/3 stage noisy from the store, 34 s saved"
    ]
    told = lines.lines(reused(["noisy", "a stage with a rather long name of its own"], 0.4))
    assert max(map(len, told)) <= 80
    assert " ".join(line.strip() for line in told).endswith(
        "stages noisy, a stage with a rather long name of its own from the store, 34 s saved"
    )


def test_time_left_does_not_take_what_the_store_gave_for_work_done_here(clock: Clock) -> None:
    lines = make_lines(clock, n_finished=3)
    lines.lines({"event": "trial_started", "trial": 3, "text": "", "reused": [2]})
    lines.lines(reused(["noisy"], 0.4))
    assert lines.seconds_left() is None
    clock.now += 30
    lines.lines(evaluation(3, 0, 0.7))
    # 0.3 of a fold in 30 s; 0.3 of this one and a whole one are left.
    assert lines.seconds_left() == pytest.approx(1.3 * 100)
    clock.now += 30
    lines.lines({"event": "fold_ended", "trial": 3, "fold": 0})
    assert lines.seconds_left() == pytest.approx(100)
    lines.lines(reused(["noisy"], 0.4, fold=1))
    assert lines.seconds_left() == pytest.approx(60)
    lines.lines({"event": "trial_failed", "trial": 3, "reason": "lost"})
    assert lines.seconds_left() == pytest.approx(300)  # another trial's three folds


def test_a_failure_is_told_in_full(clock: Clock) -> None:
    lines = make_lines(clock)
    lines.lines({"event": "trial_started", "trial": 0, "text": "", "reused": []})
    lines.lines(evaluation(0, 0, 0.5))
    reason = "a model must be known, got " + "x" * 100
    event = {"event": "trial_failed", "trial": 0, "reason": reason}
    told = " ".join(line.strip() for line in lines.lines(event))
    assert told == f"0:00 trial 0000 (1/4) failed: {reason}"
    assert lines.seconds_left() is None


def test_events_out_of_turn_do_no_harm(clock: Clock) -> None:
    lines = make_lines(clock)
    assert lines.lines({"event": "fold_ended", "trial": 9, "fold": 0})
    assert lines.lines({"event": "trial_failed", "trial": 9, "reason": "lost"})
    assert lines.lines({"event": "said", "text": "hello"}) == ["   0:00 hello"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (1e6, "12 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_a_late_answer_does_not_end_the_printing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [GetTimeoutError("busy"), [{"event": "said", "text": "late"}]]
    asked: list[object] = []

    class Handle:
        class take:  # noqa: N801 - the actor's method
            @staticmethod
            def remote() -> object:
                asked.append(object())
                return asked[-1]

    def get(reference: object, timeout: float) -> Any:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Remote:
        @staticmethod
        def remote() -> type[Handle]:
            return Handle

    monkeypatch.setattr(progress.ray, "remote", lambda **options: lambda actor: Remote)
    monkeypatch.setattr(progress.ray, "get", get)
    monkeypatch.setattr(progress, "POLL_S", 0.001)
    stream = io.StringIO()
    with ProgressPrinter(make_lines(Clock()), stream):
        while not stream.getvalue():
            time.sleep(0.001)
    assert stream.getvalue() == "   0:00 late\n"
