"""Progress of a ladder in 80 columns."""

from typing import Any

from hms_ray.ladder.progress import LadderLines


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def event(kind: str, key: str = "x", **more: Any) -> dict[str, Any]:
    return {"event": kind, "experiment": "1_panels", "fold": 1, "key": key, **more}


def test_folds_are_counted_and_the_time_left_goes_by_their_work() -> None:
    clock = Clock()
    lines = LadderLines({"x": 1.0, "y": 3.0}, 3, clock)
    assert lines.lines(event("fold_started")) == []
    clock.now = 10.0
    (line,) = lines.lines(event("fold_ended"))
    assert line == "   0:10 1/2 1_panels fold 2/3 done, 0:30 left"


def test_a_long_fold_tells_how_it_goes_now_and_then() -> None:
    clock = Clock()
    lines = LadderLines({"x": 1.0}, 3, clock)
    record = {"progress": 0.5, "stage": "train", "epoch": 2.5, "kl_all": 1.23456}
    clock.now = 29.0
    assert lines.lines(event("evaluation", **record)) == []
    clock.now = 31.0
    (line,) = lines.lines(event("evaluation", **record))
    assert line == "   0:31 0/1 1_panels fold 2/3 train 2.5 KL 1.2346, 0:31 left"


def test_stages_from_the_store_are_no_work() -> None:
    clock = Clock()
    lines = LadderLines({"x": 4.0, "y": 1.0}, 3, clock)
    reused = {"progress": 0.75, "stages": ["noisy"], "saved_s": 12.4}
    (line,) = lines.lines(event("stages_reused", **reused))
    assert line.endswith("0/2 1_panels fold 2/3 stage noisy from the store, 12 s saved")
    clock.now = 5.0
    (line,) = lines.lines(event("fold_ended"))
    assert line.endswith("done, 0:05 left")


def test_what_a_failure_leaves_undone_does_not_wait() -> None:
    clock = Clock()
    lines = LadderLines({"x": 1.0, "y": 1.0, "z": 1.0}, 3, clock)
    failed = {"event": "step_failed", "experiment": "b", "reason": "word " * 30, "keys": ["y"]}
    told = lines.lines(failed)
    assert told[0].startswith("   0:00 b failed: word word")
    assert len(told) > 1
    assert max(map(len, told)) <= 80
    clock.now = 7.0
    assert lines.lines(event("fold_ended"))[0].endswith("1/2 1_panels fold 2/3 done, 0:07 left")


def test_what_a_failed_step_has_done_stays_counted() -> None:
    clock = Clock()
    lines = LadderLines({"x": 1.0, "y": 1.0, "z": 1.0, "w": 2.0}, 3, clock)
    clock.now = 1.0
    lines.lines(event("fold_ended", "x"))
    failed = {"event": "step_failed", "experiment": "1_panels", "reason": "r", "keys": ["x", "y"]}
    lines.lines(failed)
    clock.now = 2.0
    # One of four units of work is done, three wait: y is given up.
    assert lines.seconds_left() == 6.0
    assert " 2/3 " in lines.lines(event("fold_ended", "z"))[0]
    # Another group was at y when its step failed.
    assert " 3/4 " in lines.lines(event("fold_ended", "y"))[0]
    assert " 4/4 " in lines.lines(event("fold_ended", "w"))[0]
