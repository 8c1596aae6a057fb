"""TensorBoard logs of a ladder: the curves of each step and fold, as soon as they are stored."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hms_ray.display.notice import Event, Notice
from hms_ray.display.progress import TrainingProgress
from hms_ray.display.tensorboard import write_fold
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.run_log import FaultLog
from hms_ray.train.selection import kept_record

logger = logging.getLogger(__name__)

LOGS_FOLDER: Final = "steps"
"""Below a ladder's folder; the logs of a fold are in ``steps/STEP/fold_K``."""


class FoldLogs:
    """Writes the curves of every fold once; a failure is logged and ends nothing.

    Args:
        folder: of the ladder, whose earlier logs are removed; None: nothing is written.
        tasks: step -> its folds.
    """

    def __init__(self, folder: Path | None, tasks: Mapping[str, Sequence[FoldTask]]) -> None:
        self._left: list[tuple[str, FoldTask]] = []
        self._faults = FaultLog(logger)
        if folder is None:
            return
        self._folder = folder / LOGS_FOLDER
        self._left = [(step, task) for step, folds in tasks.items() for task in folds]
        with self._faults("TensorBoard logs of an earlier run were not removed"):
            if self._folder.exists():
                shutil.rmtree(self._folder)

    def write_stored(self) -> None:
        """Writes the folds that the fold store has by now and that are not yet written."""
        left = []
        for step, task in self._left:
            store = FoldStore(task.results)
            if not store.has(task.key):
                left.append((step, task))
                continue
            with self._faults("TensorBoard logs were not written"):
                record: dict[str, Any] = store.record(task.key)
                write_fold(
                    self._folder / step / f"fold_{task.fold}",
                    record["history"],
                    scores=kept_record(record["history"]),
                    started_s=record["started_s"],
                )
        self._left = left


class LoggedProgress(TrainingProgress):
    """Progress of a ladder, which also writes TensorBoard logs whenever a fold ends.

    Args:
        logs: of the ladder.
        n_folds, options: see ``TrainingProgress``.
    """

    def __init__(self, logs: FoldLogs, n_folds: int, **options: Any) -> None:
        super().__init__(n_folds, **options)
        self._logs = logs

    def update(self, event: Event) -> Notice:
        """See ``TrainingProgress.update``."""
        if event["event"] == "fold_ended":
            self._logs.write_stored()
        return super().update(event)
