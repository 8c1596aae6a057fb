"""One process trains a fold; others wait for its result, or take over from its checkpoint."""

import logging
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.display.progress import TrainingProgress
from hms_ray.errors import FoldCancelled, FoldMoved
from hms_ray.experiment import fold_checkpoints
from hms_ray.experiment.fold_task import FoldTask, run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import plan_folds
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.resume_folder import CHECKPOINT_FILE, ResumeFolder
from hms_ray.storage.store_contents import store_entries
from hms_ray.storage.store_free import Choice, free
from hms_ray.train.process import Process
from tests.competition_folder import write_competition_folder
from tests.stage_sharing import GOOD, NOISY, assert_equal_folds, counted_steps, staged

EXPERIMENT = staged({**NOISY, "epochs": 2}, GOOD, checkpoint="best", next_stage_from="best")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("data")
    return prepare(write_competition_folder(folder / "hms", 6), EXPERIMENT, folder)


def task_of(prepared: Prepared, results: Path, every_s: float | None = 0.0) -> FoldTask:
    (task,) = plan_folds(EXPERIMENT, prepared, results, Placement(), [0])
    return replace(task, checkpoint_every_s=every_s, share_stages=False)


def interrupted(task: FoldTask, after: int) -> Path:
    """Trains some steps, then stops as Ctrl-C does; the checkpoint's file."""
    with counted_steps(stop_after=after), pytest.raises(KeyboardInterrupt):
        run_task(task, Process())
    return ResumeFolder(task.results, task.key).folder / CHECKPOINT_FILE


def steps(task: FoldTask, process: Process | None = None) -> int:
    with counted_steps() as count:
        run_task(task, process or Process())
    return count[0]


@pytest.fixture(scope="module")
def undisturbed(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, int]:
    task = task_of(prepared, tmp_path_factory.mktemp("undisturbed"), None)
    n_steps = steps(task)
    assert not (FoldStore(task.results).root / "resume" / task.key).exists()
    return FoldStore(task.results).read(task.key), n_steps


@pytest.mark.parametrize("damage", ["none", "torn", "changed", "empty"])
def test_a_damaged_checkpoint_is_ignored_with_a_warning(
    damage: str,
    prepared: Prepared,
    undisturbed: tuple[Any, int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = task_of(prepared, tmp_path)
    file = interrupted(task, 5)
    content = file.read_bytes()
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    file.write_bytes(
        {"none": content, "torn": content[:middle], "changed": changed, "empty": b""}[damage]
    )
    with caplog.at_level(logging.WARNING):
        trained = steps(task)
    whole, n_steps = undisturbed
    assert (trained == n_steps) is (damage != "none")
    assert n_steps - 5 <= trained <= n_steps
    assert ("a checkpoint cannot be used" in caplog.text) is (damage != "none")
    assert_equal_folds(FoldStore(task.results).read(task.key), whole)
    assert not file.parent.exists()


@pytest.mark.parametrize(("every_s", "expected"), [(0.0, True), (3600.0, False), (None, False)])
def test_checkpoints_keep_their_distance(
    every_s: float | None, expected: bool, prepared: Prepared, tmp_path: Path
) -> None:
    assert interrupted(task_of(prepared, tmp_path, every_s), 5).is_file() is expected


@pytest.mark.parametrize("ends", ["stored", "killed", "cancelled"])
def test_a_second_process_waits_and_takes_over(
    ends: str,
    prepared: Prepared,
    undisturbed: tuple[Any, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fold_checkpoints, "POLL_S", 0.01)
    whole, n_steps = undisturbed
    task = task_of(prepared, tmp_path)
    interrupted(task, 5)
    taken, waiting = threading.Event(), threading.Event()
    reports: list[dict[str, Any]] = []

    def report(record: dict[str, Any]) -> None:
        reports.append(record)
        waiting.set()

    def train_first() -> None:
        first = ResumeFolder(task.results, task.key)
        assert first.take()
        taken.set()
        assert waiting.wait(30)
        if ends == "stored":
            source = FoldStore(whole.weights.parents[3])
            target = FoldStore(task.results).path(task.key)
            target.parent.mkdir(parents=True)
            os.rename(_copied(source.path(task.key), tmp_path), target)
        first.release(remove=False)

    cancelled = ends == "cancelled"
    thread = threading.Thread(target=train_first)
    thread.start()
    assert taken.wait(30)
    process = Process(report=report, should_stop=lambda: cancelled and waiting.is_set())
    if cancelled:
        with pytest.raises(FoldCancelled):
            run_task(task, process)
        thread.join()
        return
    trained = steps(task, process)
    thread.join()
    assert reports[0]["event"] == "fold_waits"
    assert f"pid {os.getpid()}" in reports[0]["writer"]
    assert trained == 0 if ends == "stored" else 0 < trained < n_steps
    assert_equal_folds(FoldStore(task.results).read(task.key), whole)


def _copied(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place / "copy"))


def test_the_store_lists_and_frees_checkpoints_that_nobody_trains(
    prepared: Prepared, tmp_path: Path
) -> None:
    task = task_of(prepared, tmp_path)
    file = interrupted(task, 5)
    old = time.time() - 3 * 24 * 3600

    def freed(**choice: Any) -> list[str]:
        os.utime(file.parent, (old, old))
        return [reason for _, reason in free(tmp_path, Choice(**choice))]

    (entry,) = (entry for entry in store_entries(tmp_path) if entry.kind == "checkpoint")
    assert entry.name == task.key
    assert not entry.in_work
    assert freed() == []
    writer = ResumeFolder(task.results, task.key)
    assert writer.take()
    assert freed(age_days=1) == []
    writer.release(remove=False)
    assert freed(age_days=4) == []
    assert file.is_file()
    assert freed(age_days=1) == ["a fold that is not being trained"]
    assert not file.parent.exists()


def test_progress_of_a_resumed_fold() -> None:
    progress = TrainingProgress(2)
    source = {"experiment": "base", "fold": 1}
    progress.update({"event": "fold_started", **source})
    waits = progress.update({"event": "fold_waits", "writer": " (host a, pid 1)", **source})
    assert waits.text == ("base fold 1 waits for its result from another process (host a, pid 1)")
    event = {"event": "fold_resumed", "stage": "good", "epoch": 1.5, "progress": 0.8, **source}
    assert progress.update(event).text == "base fold 1 resumed at stage good, epoch 1.5"
    assert progress.table()[1] == ("base", "1", "good", "1.5", "")


def test_a_folder_that_its_writer_removes_meanwhile_is_not_taken(tmp_path: Path) -> None:
    writer, waiting, third = (ResumeFolder(tmp_path, "key") for _ in range(3))
    assert writer.take()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(waiting.take)
        time.sleep(0.05)
        writer.release(remove=True)
        assert not taken.result()
    assert waiting.take()
    assert not third.take()
    waiting.release(remove=True)


def test_a_fold_whose_machine_is_about_to_leave_writes_a_checkpoint_and_ends(
    prepared: Prepared, tmp_path: Path, undisturbed: tuple[Any, int]
) -> None:
    task = task_of(prepared, tmp_path, 3600.0)
    asked: list[int] = []

    def leaves() -> bool:
        asked.append(1)
        return len(asked) == 2

    with counted_steps() as first, pytest.raises(FoldMoved, match="about to leave"):
        run_task(task, Process(leaves=leaves))
    assert (ResumeFolder(tmp_path, task.key).folder / CHECKPOINT_FILE).is_file()
    n_left = steps(task)
    assert 0 < n_left == undisturbed[1] - first[0], "nothing is trained twice"
    # Without checkpoints it stays as long as it can.
    other = tmp_path / "other"
    assert steps(task_of(prepared, other, None), Process(leaves=lambda: True)) == undisturbed[1]
