"""The run of a trial: curves of its folds, their means, and its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hms_ray.display import live_runs
from hms_ray.display.live_runs import LiveRuns
from hms_ray.display.tensorboard import (
    RunEnd,
    RunLog,
    named_values,
    objective_tag,
    positions,
)
from hms_ray.errors import StudyError
from tests.tensorboard_reading import curve, scalars, texts

N_FOLDS = 2
OBJECTIVE = "1 objective, mean over folds/KL >=10"


def record(epochs: float, value: float, **changes: Any) -> dict[str, Any]:
    stage, epoch = (0, epochs) if epochs <= 2 else (1, epochs - 2)
    return {
        "stage": ("noisy", "good")[stage],
        "stage_index": stage,
        "epoch": epoch,
        "step": round(10 * epochs),
        "kl_all": value,
        "kl_4": value / 2,
        "kl_10": value / 4,
        "train_loss": 2 * value,
        "learning_rate": 1e-3 / epochs,
        "seconds": 10 * epochs,
        "epochs": epochs,
        "loss": ("kl", "kl_log_votes")[stage],
        "gradient_norm": 8 * value,
        "images_per_s": 100.0,
        "gpu_memory_gib": None,
        **changes,
    }


def history(fold: int, n: int = 4) -> list[dict[str, Any]]:
    return [record(epochs, 1.0 / epochs + fold) for epochs in (0.5, 1.0, 2.0, 2.5)[:n]]


class Store:
    """Stands in for the fold store."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}

    def put(self, fold: int) -> None:
        self.records[f"key {fold}"] = {"history": history(fold), "started_s": 1000.0}

    def record(self, key: str) -> dict[str, Any]:
        if key not in self.records:
            raise StudyError("a fold must be stored", got=key)
        return self.records[key]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def make_run(tmp_path: Path, store: Store) -> Callable[[], RunLog]:
    return lambda: RunLog(tmp_path / "run", tmp_path, "kl_10", N_FOLDS, store.record)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_curves_of_folds_and_their_means(make_run: Callable[[], RunLog], folder: Path) -> None:
    run = make_run()
    run.add(0, "key 0", history(0), 1000.0)
    run.file.flush()
    assert not [tag for tag in scalars(folder) if not tag.startswith("folds/0/")]
    for number, line in enumerate(history(1)):
        run.evaluated(1, "key 1", line, 2000.0 + number)
        run.file.flush()
        assert len(curve(folder, OBJECTIVE)) == number + 1, "as the last fold passes"
    found = scalars(folder)
    assert found[OBJECTIVE] == [
        (2000.0, 500, 0.625),
        (2001.0, 1000, 0.375),
        (2002.0, 2000, 0.25),
        (2003.0, 2500, pytest.approx(0.225)),
    ]
    assert objective_tag("kl_10") == OBJECTIVE
    assert found["folds/0/KL all"] == [
        (1005.0, 500, 2.0),
        (1010.0, 1000, 1.0),
        (1020.0, 2000, 0.5),
        (1025.0, 2500, pytest.approx(0.4)),
    ]
    assert [value for _, _, value in found["folds/1/gradient norm"]] == pytest.approx(
        [24.0, 16.0, 12.0, 11.2]
    )
    assert [value for _, _, value in found["3 training, mean over folds/stage"]] == [0, 0, 0, 1]
    # A loss of another kind has a chart of its own.
    assert curve(folder, "folds/0/loss kl_log_votes") == [(2500, pytest.approx(0.8))]
    assert [step for step, _ in curve(folder, "folds/0/loss kl")] == [500, 1000, 2000]
    assert {tag for tag in found if not tag.startswith("folds")} == {
        OBJECTIVE,
        "2 scores, mean over folds/KL all",
        "2 scores, mean over folds/KL >=4",
        *(f"3 training, mean over folds/loss {kind}" for kind in ("kl", "kl_log_votes")),
        "3 training, mean over folds/learning rate",
        "3 training, mean over folds/gradient norm",
        "3 training, mean over folds/images per second",
        "3 training, mean over folds/stage",
    }
    assert min(found) == OBJECTIVE, "TensorBoard shows it first"


def test_a_run_that_starts_again_doubles_nothing(
    make_run: Callable[[], RunLog], folder: Path, store: Store
) -> None:
    for n_seen in (2, 3, 4):
        run = make_run()
        run.begin()
        run.add(0, "key 0", history(0), 1000.0)
        for line in history(1, n_seen):
            run.evaluated(1, "key 1", line, 2000.0)
        run.file.flush()
    store.put(1)
    run.complete(1, "key 1")
    run.file.flush()
    found = scalars(folder)
    assert {len(points) for tag, points in found.items() if "loss" not in tag} == {4}
    assert [step for _, step, _ in found[OBJECTIVE]] == [500, 1000, 2000, 2500]


def test_lost_events_are_completed_from_the_store_in_order(
    make_run: Callable[[], RunLog], folder: Path, store: Store
) -> None:
    run = make_run()
    for fold in range(N_FOLDS):
        for line in history(fold)[::3]:
            run.evaluated(fold, f"key {fold}", line, 2000.0)
    run.file.flush()
    for fold in range(N_FOLDS):
        store.put(fold)
        run.complete(fold, f"key {fold}")
    run.file.flush()
    assert [step for step, _ in curve(folder, "folds/1/KL all")] == [500, 1000, 2000, 2500]
    assert [step for step, _ in curve(folder, OBJECTIVE)] == [500, 1000, 2000, 2500]


def test_values_of_another_cache_key_are_replaced(
    make_run: Callable[[], RunLog], folder: Path
) -> None:
    run = make_run()
    for fold in range(N_FOLDS):
        run.add(fold, f"key {fold}", history(fold), 1000.0)
    run.file.flush()
    again = make_run()
    again.add(0, "key 0", history(0), 1000.0)
    again.add(1, "another machine's", history(5, 1), 3000.0)
    again.file.flush()
    assert curve(folder, "folds/1/KL all") == [(500, 7.0)]
    assert len(curve(folder, "folds/0/KL all")) == 4
    assert curve(folder, OBJECTIVE) == [(500, pytest.approx((2 + 7) / 2 / 4))]


def test_a_fold_that_was_trained_anew_with_other_bits_equals_the_store(
    make_run: Callable[[], RunLog], folder: Path, store: Store
) -> None:
    run = make_run()
    run.add(0, "key 0", history(0), 1000.0)
    for line in history(1):
        run.evaluated(1, "key 1", {**line, "kl_10": line["kl_10"] + 0.01}, 2000.0)
    run.file.flush()
    store.put(1)
    run.complete(1, "key 1")
    run.file.flush()
    stored = [line["kl_10"] for line in history(1)]
    assert [value for _, value in curve(folder, "folds/1/KL >=10")] == pytest.approx(stored)
    means = [(a["kl_10"] + b) / 2 for a, b in zip(history(0), stored, strict=True)]
    assert [value for _, value in curve(folder, OBJECTIVE)] == pytest.approx(means)


def test_records_of_earlier_versions_are_shown_without_what_they_lack(
    make_run: Callable[[], RunLog], folder: Path
) -> None:
    lacking = ("epochs", "loss", "gradient_norm", "images_per_s", "gpu_memory_gib")
    old = [{k: v for k, v in line.items() if k not in lacking} for line in history(0)]
    assert positions(old) == positions(history(0)) == [500, 1000, 2000, 2500]
    run = make_run()
    run.add(0, "key 0", old, 1000.0)
    run.file.flush()
    assert {tag.removeprefix("folds/0/") for tag in scalars(folder)} == {
        *("KL all", "KL >=4", "KL >=10", "loss", "learning rate", "stage")
    }


def test_a_fold_without_rows_of_a_score_does_not_count_in_its_mean(
    make_run: Callable[[], RunLog], folder: Path
) -> None:
    run = make_run()
    run.add(0, "key 0", [record(0.5, 4.0, kl_10=None)], 0.0)
    run.add(1, "key 1", [record(0.5, 8.0)], 0.0)
    run.file.flush()
    assert curve(folder, OBJECTIVE) == [(500, 2.0)]
    assert curve(folder, "2 scores, mean over folds/KL all") == [(500, 6.0)]


def test_end_has_scores_state_and_reason(make_run: Callable[[], RunLog], folder: Path) -> None:
    run = make_run()
    run.add(0, "key 0", history(0), 1000.0)
    scores = {"kl_all": 0.9, "kl_4": None, "kl_10": 0.6}
    recalibrated = {"kl_all": 0.8, "kl_4": None}
    ended = {"minutes": 12.0, "estimate": 0.6, "ended_s": 3000.0}
    run.end(RunEnd(scores=scores, recalibrated=recalibrated, **ended))
    run.file.flush()
    found = {tag: points for tag, points in scalars(folder).items() if tag.startswith("result")}
    assert found == {
        "result/KL all": [(3000.0, 2500, pytest.approx(0.9))],
        "result/KL >=10": [(3000.0, 2500, pytest.approx(0.6))],
        "result/recalibrated KL all": [(3000.0, 2500, pytest.approx(0.8))],
        "result/estimate": [(3000.0, 2500, pytest.approx(0.6))],
        "result/minutes of training": [(3000.0, 2500, 12.0)],
    }
    assert texts(folder) == {"1 state": "complete"}
    run.begin()
    run.end(RunEnd(state="failed", reason="a <b> *loss*\nof 1e3"))
    run.file.flush()
    assert texts(folder) == {"1 state": r"failed: a &lt;b&gt; \*loss\* of 1e3"}
    assert not [tag for tag in scalars(folder) if tag.startswith("result")]


def evaluation(name: str, fold: int, line: dict[str, Any]) -> dict[str, Any]:
    return {"event": "evaluation", "experiment": name, "fold": fold, "key": f"key {fold}", **line}


@pytest.fixture
def live(make_run: Callable[[], RunLog]) -> Iterator[LiveRuns]:
    with LiveRuns(lambda _: make_run(), lambda event: event.get("experiment"), 0.01) as runs:
        yield runs


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)


def test_files_grow_while_folds_are_trained(live: LiveRuns, folder: Path) -> None:
    for fold in range(N_FOLDS):
        for number, line in enumerate(history(fold)):
            live.handle(evaluation("a", fold, line))
            tag = f"folds/{fold}/KL all"
            wait_for(lambda n=number, t=tag: len(scalars(folder).get(t, [])) == n + 1)
    assert len(curve(folder, OBJECTIVE)) == 4
    moved = scalars(folder)["folds/1/KL all"][-1][0]
    assert abs(moved - time.time()) < 60, "the time at which it was made"
    live.handle({"event": "message", "text": "of no run"})


def test_at_most_30_s_behind_the_training() -> None:
    assert live_runs.WRITE_EVERY_S + live_runs.LATE_S <= 10


def test_a_resumed_fold_has_the_curve_of_its_checkpoint(
    make_run: Callable[[], RunLog], folder: Path
) -> None:
    with LiveRuns(lambda _: make_run(), lambda event: "a") as live:
        source = {"experiment": "a", "fold": 0, "key": "key 0"}
        live.handle({"event": "fold_resumed", "history": history(0, 2), **source})
        live.handle(evaluation("a", 0, history(0)[2]))
        live.handle({"event": "stages_reused", "history": history(1, 3), **source | {"fold": 1}})
    found = scalars(folder)
    assert [step for _, step, _ in found["folds/0/KL all"]] == [500, 1000, 2000]
    times = [moment for moment, _, _ in found["folds/0/KL all"]]
    assert times[1] - times[0] == pytest.approx(5.0)
    assert times[1] == pytest.approx(time.time(), abs=60)
    assert len(found["folds/1/KL all"]) == 3


def test_stored_folds_are_completed_once_they_are_visible(
    live: LiveRuns, folder: Path, store: Store
) -> None:
    live.handle({"event": "folds_reused", "experiment": "a", "keys": {0: "key 0"}})
    live.handle({"event": "fold_ended", "experiment": "a", "fold": 1, "key": "key 1"})
    store.put(1)
    wait_for(lambda: folder.exists() and "folds/1/KL all" in scalars(folder))
    assert "folds/0/KL all" not in scalars(folder)
    store.put(0)
    wait_for(lambda: len(scalars(folder).get(OBJECTIVE, [])) == 4)


def test_events_that_come_after_the_end_change_nothing(
    make_run: Callable[[], RunLog], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LiveRuns(lambda _: make_run(), lambda event: "a", 0.01) as live:
        live.end("a", {}, lambda run: RunEnd(scores={"kl_all": 0.5}))
        # The last events of a process may come after the news of its end.
        live.handle({"event": "trial_started", "trial": 1, "text": ""})
        live.handle(evaluation("a", 0, history(0)[0]))
    assert curve(folder, "result/KL all") == [(500, 0.5)]
    monkeypatch.setattr(live_runs, "LATE_S", 0.0)
    with LiveRuns(lambda _: make_run(), lambda event: "a", 0.01) as live:
        live.end("a", {}, lambda run: RunEnd(scores={"kl_4": 0.5}))
        wait_for(lambda: "result/KL >=4" in scalars(folder))
        live.handle({"event": "trial_started", "trial": 1, "text": ""})
    assert "result/KL >=4" in scalars(folder)


def test_faults_end_nothing_and_are_logged_once(
    folder: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    full = threading.Event()
    full.set()

    class Full(RunLog):
        def evaluated(self, *arguments: Any) -> None:
            super().evaluated(*arguments)
            if full.is_set():
                raise OSError(28, "No space left on device")

    def open_run(name: str) -> RunLog:
        return Full(folder, folder.parent, "kl_10", N_FOLDS, store.record)

    with caplog.at_level(logging.WARNING), LiveRuns(open_run, lambda _: "a", 0.01) as live:
        for line in history(0, 3):
            live.handle(evaluation("a", 0, line))
        wait_for(lambda: not live._jobs)
        full.clear()
        live.handle(evaluation("a", 0, history(0)[3]))
    assert caplog.text.count("TensorBoard's files were not written: OSError: [Errno 28]") == 1
    assert len(curve(folder, "folds/0/KL all")) == 4


def test_names_of_charts_cover_the_records_of_training() -> None:
    shown = named_values(record(1.0, 1.0, gpu_memory_gib=2.0, criterion=0.5))
    assert shown["GPU memory (GiB)"] == 2.0
    assert shown["checkpoint criterion"] == 0.5
    assert len(shown) == 10
