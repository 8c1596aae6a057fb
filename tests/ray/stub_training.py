"""What workers do in tests of studies instead of training.

A module of few imports: a worker imports it again.
"""

import errno
import time
from pathlib import Path

import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.errors import DivergedError
from hms_ray.evaluate.oof import make_oof
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.storage.fold_store import FoldStore
from hms_ray.train.process import Process


def train_by_rate(task: FoldTask, process: Process) -> None:
    """Predicts the better, the smaller the learning rate is; the largest one diverges."""
    rate = task.experiment.training.learning_rate
    if rate > 9e-3:
        raise DivergedError("the training loss must be finite", got="nan")
    rows = task.prepared.rows()
    rows = rows[rows["fold"] == task.fold]
    targets = rows[list(TARGET_COLUMNS)].to_numpy()
    probabilities = (1 - 100 * rate) * targets + 100 * rate / 6
    record = {"seconds": 60.0, "saved_s": 0.0, "optimistic": False, "history": []}
    oof = make_oof(rows, task.fold, probabilities)
    FoldStore(task.results).write(task.key, oof, record, lambda path: path.write_bytes(b""))


def train_on_a_full_disk(task: FoldTask, process: Process) -> None:
    """Stores fold 0; the disk has no room for the other one."""

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if task.fold == 0:
        train_by_rate(task, process)
    else:
        record = {"seconds": 60.0, "saved_s": 0.0}
        FoldStore(task.results).write(task.key, pd.DataFrame({"a": [0]}), record, full)


def train_while_results_are_moved(task: FoldTask, process: Process) -> None:
    """Moves the results away, and ends once they are back."""
    task.results.rename(task.results.with_name("moved"))
    while not task.results.exists():
        time.sleep(0.1)
