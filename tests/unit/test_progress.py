"""From the events of a run to its state, texts and time left."""

import re
from typing import Any

import pytest

from hms_ray.display.loop_progress import LoopProgress
from hms_ray.display.notice import Notice
from hms_ray.display.progress import TrainingProgress
from hms_ray.text import clock_text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sweep(clock: Clock, n_trials: int = 4, **options: Any) -> TrainingProgress:
    return TrainingProgress(3, n_trials=n_trials, objective="kl_10", clock=clock, **options)


def start(progress: TrainingProgress, trial: int) -> Notice:
    return progress.update({"event": "trial_started", "trial": trial, "text": "loss=kl"})


def fold_event(kind: str, trial: int, fold: int, **more: Any) -> dict[str, Any]:
    return {"event": kind, "trial": trial, "fold": fold, **more}


def evaluation(trial: int, fold: int, progress: float, **more: Any) -> dict[str, Any]:
    record = {"stage": "noisy", "epoch": 1.5, "kl_all": 0.9, "kl_10": 0.61234, **more}
    return fold_event("evaluation", trial, fold, progress=progress, **record)


def train(progress: TrainingProgress, clock: Clock, trial: int, fold: int, seconds: float) -> None:
    progress.update(fold_event("fold_started", trial, fold))
    clock.now += seconds
    progress.update(fold_event("fold_ended", trial, fold))


def left(progress: TrainingProgress) -> str | None:
    found = re.search(r", (\S+) left$", progress.summary())
    return found[1] if found else None


def test_trial_is_announced_with_the_folds_it_reuses(clock: Clock) -> None:
    progress = sweep(clock, n_finished=1)
    assert start(progress, 7) == Notice("trial 0007 (2 of 4): loss=kl")
    assert progress.table()[1][:3] == ("trial 0007", "-", "starting")
    reused = {"event": "folds_reused", "trial": 7, "keys": {0: "a" * 64, 2: "b" * 64}}
    notice = progress.update(reused)
    assert notice.text == "trial 0007: reused from the fold store: fold 0, 2"
    assert notice.details.endswith(f"cache key of fold 2: {'b' * 64}")


def test_a_reason_why_folds_are_not_reused_is_printed_once(clock: Clock) -> None:
    progress = sweep(clock)

    def notice(trial: int, reason: str) -> Notice:
        text = f"{trial + 2} stored folds are not reused: made with {reason}"
        return progress.update({"event": "folds_not_reused", "trial": trial, "text": text})

    assert notice(0, "torch 2.10, now 2.11") == Notice(
        "trial 0000: 2 stored folds are not reused: made with torch 2.10, now 2.11"
    )
    assert notice(1, "torch 2.10, now 2.11").passing
    assert not notice(2, "numerics version 1, now 2").passing


def test_evaluation_names_fold_stage_epoch_and_the_score_of_the_objective(clock: Clock) -> None:
    progress = sweep(clock)
    start(progress, 3)
    notice = progress.update(evaluation(3, 0, 0.25, stage="good", epoch=3.0))
    assert notice.text == "trial 0003 fold 0 stage good epoch 3: KL >=10 0.6123"
    assert notice.passing
    headings, row = progress.table()
    assert headings == ("running", "fold", "stage", "epoch", "score")
    assert row == ("trial 0003", "0", "good", "3", "KL >=10 0.6123")
    # A fold may have no rows for the objective.
    notice = progress.update(evaluation(3, 0, 0.5, kl_10=None))
    assert notice.text.endswith("epoch 1.5: KL all 0.9000")


def test_best_trial_is_marked_and_kept(clock: Clock) -> None:
    progress = sweep(clock)

    def end(trial: int, score: float) -> str:
        start(progress, trial)
        scores = {"kl_all": 0.9, "kl_4": None, "kl_10": score}
        return progress.update({"event": "trial_ended", "trial": trial, "scores": scores}).text

    assert end(0, 0.5) == "trial 0000: KL all 0.9000, KL >=10 0.5000, best so far"
    assert end(1, 0.6) == "trial 0001: KL all 0.9000, KL >=10 0.6000"
    assert end(2, 0.4).endswith("best so far")
    assert progress.summary() == "3 of 4 trials finished, best KL >=10 0.4000 (trial 0002)"


def test_failure_has_its_reason_and_the_log_its_traceback(clock: Clock) -> None:
    progress = sweep(clock)
    start(progress, 0)
    progress.update(evaluation(0, 0, 0.5))
    event = {"event": "trial_failed", "trial": 0, "reason": "no memory", "traceback": "line 7"}
    notice = progress.update(event)
    assert (notice.text, notice.details) == ("trial 0000 failed: no memory", "line 7")
    assert progress.table() == []
    assert progress.summary() == "0 of 4 trials finished, 1 failed"


@pytest.mark.parametrize(
    ("state", "text", "summary"),
    [
        ("pruned", "trial 0000 pruned after 1 of 5 folds", "1 of 4 trials finished, 1 pruned"),
        ("diverged", "trial 0000 diverged: after 1", "1 of 4 trials finished, 1 diverged"),
        ("stopped", "trial 0000 after 1", "0 of 4 trials finished, 1 stopped"),
    ],
)
def test_other_ends_of_a_trial_are_no_failures(
    clock: Clock, state: str, text: str, summary: str
) -> None:
    progress = sweep(clock)
    start(progress, 0)
    event = {"event": f"trial_{state}", "trial": 0, "reason": "after 1 of 5 folds"}
    assert progress.update(event).text.startswith(text)
    assert progress.table() == []
    assert progress.summary() == summary


def test_time_left_waits_for_whole_folds(clock: Clock) -> None:
    progress = sweep(clock, n_trials=8)
    start(progress, 0)
    clock.now += 20  # workers start
    train(progress, clock, 0, 0, 10)
    assert left(progress) is None
    train(progress, clock, 0, 1, 10)
    assert left(progress) == clock_text(22 * (20 + 10 + 10) / 2)


def test_time_left_waits_for_as_many_folds_as_are_trained_at_once(clock: Clock) -> None:
    progress = sweep(clock, n_trials=8)
    for trial in range(4):
        start(progress, trial)
        progress.update(fold_event("fold_started", trial, 0))
    clock.now += 10
    for trial in range(4):
        assert left(progress) is None
        progress.update(fold_event("fold_ended", trial, 0))
    assert left(progress) == clock_text((8 * 3 - 4) * 10 / 4)


def test_time_left_of_a_single_fold_needs_a_share_of_its_work(clock: Clock) -> None:
    progress = TrainingProgress(5, work={("one", 0): 1.0}, clock=clock)
    event = {**evaluation(0, 0, 0.2), "experiment": "one"}
    del event["trial"]
    progress.update({**event, "event": "fold_started"})
    clock.now += 20
    assert " left" not in progress.update(event).text
    clock.now += 20
    notice = progress.update({**event, "progress": 0.4})
    assert notice.text == "one fold 0 stage noisy epoch 1.5: KL all 0.9000, 1:00 left"


def test_time_left_of_a_study_waits_for_one_whole_fold(clock: Clock) -> None:
    progress = sweep(clock, n_trials=1)
    start(progress, 0)
    clock.now += 90
    progress.update(evaluation(0, 0, 0.9))
    assert left(progress) is None
    progress.update(fold_event("fold_ended", 0, 0))
    assert left(progress) == "3:00"


def test_time_left_counts_down_between_events(clock: Clock) -> None:
    progress = sweep(clock, n_trials=1)
    start(progress, 0)
    for fold in range(2):
        train(progress, clock, 0, fold, 30)
    clock.now += 12
    assert left(progress) == "0:18"
    clock.now += 60
    assert left(progress) == "0:00"


def test_reused_folds_and_stages_are_no_work_of_this_run(clock: Clock) -> None:
    progress = sweep(clock, n_trials=1)
    start(progress, 3)
    progress.update({"event": "folds_reused", "trial": 3, "keys": {2: "a" * 64}})
    progress.update(fold_event("fold_started", 3, 0))
    stages = {"stages": ["noisy"], "saved_s": 34.4, "progress": 0.4}
    notice = progress.update(fold_event("stages_reused", 3, 0, **stages))
    assert notice.text == "trial 0003 fold 0: stage noisy reused from the fold store, 34 s saved"
    clock.now += 40
    progress.update(evaluation(3, 0, 0.85))
    assert left(progress) is None
    progress.update(fold_event("fold_ended", 3, 0))
    # 0.6 of a fold took 40 s; a whole one is left.
    assert left(progress) == clock_text(40 / 0.6)


def step(kind: str, experiment: str, **more: Any) -> dict[str, Any]:
    return {"event": kind, "experiment": experiment, "fold": 1, **more}


def test_folds_of_a_ladder_are_counted_and_weighed_by_their_work(clock: Clock) -> None:
    progress = TrainingProgress(3, work={("x", 1): 1.0, ("y", 1): 3.0}, clock=clock)
    progress.update(step("fold_started", "x"))
    clock.now += 10
    assert progress.update(step("fold_ended", "x")).text == "x fold 1 done (1 of 2), 0:30 left"
    assert progress.summary() == "1 of 2 folds trained, 0:30 left"


def test_folds_of_a_failed_step_are_not_waited_for(clock: Clock) -> None:
    work = {("x", 1): 1.0, ("y", 1): 2.0, ("z", 1): 1.0}
    progress = TrainingProgress(3, work=work, clock=clock)
    progress.update(step("fold_started", "y"))
    progress.update(step("step_failed", "y", reason="nan"))
    clock.now += 7
    assert progress.update(step("fold_ended", "x")).text == "x fold 1 done (1 of 2), 0:07 left"
    # Another group may have been at the step's other fold.
    assert "(2 of 3)" in progress.update(step("fold_ended", "y")).text


def test_events_out_of_order_do_no_harm(clock: Clock) -> None:
    progress = sweep(clock)
    assert progress.update(fold_event("fold_ended", 9, 0))
    assert progress.update({"event": "trial_failed", "trial": 9, "reason": "lost"})
    assert progress.update({"event": "message", "text": "hello"}) == Notice("hello")


def test_loop_does_not_count_what_was_done_before(clock: Clock) -> None:
    progress = LoopProgress("packing eeg", "windows", clock)

    def count(done: int) -> str:
        return progress.update({"event": "counted", "done": done, "total": 2000}).text

    assert count(1000) == "packing eeg: 1,000 of 2,000 windows"
    clock.now += 2
    assert count(1400) == "packing eeg: 1,400 of 2,000 windows"
    clock.now += 2
    assert count(1500) == "packing eeg: 1,500 of 2,000 windows, 0:04 left"
    assert progress.update({"event": "ended"}) == Notice("packing eeg: 1,500 windows done")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (1e6, "12 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
