"""The TensorBoard runs of a ladder: ``LADDER/board/STEP``, one per experiment."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.space import Objective
from hms_ray.display.live_runs import LiveRuns
from hms_ray.display.notice import Event
from hms_ray.display.run_texts import experiment_texts
from hms_ray.display.tensorboard import RunEnd, RunLog
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.ladder.result import StepResult
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.folder_names import BOARD
from hms_ray.storage.run_log import FaultLog

logger = logging.getLogger(__name__)

OBJECTIVE: Final[Objective] = "kl_all"
"""Score that is shown first; the table of a ladder orders no steps by a score."""
_FORMER: Final = "steps"
"""Folder of the event files of earlier versions."""


class LadderBoard:
    """Keeps the runs of a ladder's experiments up to date while a block runs.

    Args:
        folder: of the ladder; runs of steps that it has no longer are removed.
        tasks: step -> its folds.
    """

    def __init__(self, folder: Path, tasks: Mapping[str, Sequence[FoldTask]]) -> None:
        self._folder, self._path, self._tasks = folder, folder / BOARD, tasks
        self._live = LiveRuns(self._open, self._run_of)
        self._faults = FaultLog(logger)

    def __enter__(self) -> LadderBoard:
        with self._faults("TensorBoard's files of an earlier run were not removed"):
            former = set(self._path.glob("*")) - {self._path / step for step in self._tasks}
            for path in (*former, self._folder / _FORMER):
                shutil.rmtree(path, ignore_errors=True)
        for step in self._tasks:
            self._live.begin(step, self._stored(step))
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def handle(self, event: Event) -> None:
        """Takes an event of the training; returns at once."""
        self._live.handle(event)

    def ended(self, outcomes: Mapping[str, StepResult | str], rows: pd.DataFrame) -> None:
        """Completes the runs; returns at once.

        Args:
            outcomes: step -> its result, or why it has none.
            rows: the ladder's rows.
        """
        for step, tasks in self._tasks.items():
            end = partial(_end_of, outcomes[step], rows, tasks[0].experiment)
            self._live.end(step, self._stored(step), end)

    def _stored(self, step: str) -> dict[int, str]:
        """Fold -> cache key of the folds of a step that are stored."""
        tasks = self._tasks[step]
        return {task.fold: task.key for task in tasks if FoldStore(task.results).has(task.key)}

    def _open(self, step: str) -> RunLog:
        tasks = self._tasks[step]
        read = FoldStore(tasks[0].results).record
        return RunLog(self._path / step, self._folder, OBJECTIVE, len(tasks), read)

    def _run_of(self, event: Event) -> str | None:
        name = event.get("experiment")
        return name if name in self._tasks else None


def _end_of(
    outcome: StepResult | str, rows: pd.DataFrame, experiment: Experiment, run: RunLog
) -> RunEnd:
    texts = experiment_texts(experiment)
    if isinstance(outcome, str):
        return RunEnd(state="failed", reason=outcome, texts=texts)
    predicted, votes = probabilities_of(outcome.oof), rows["total_votes"].to_numpy()
    scores = kl_report(rows[list(TARGET_COLUMNS)].to_numpy(), predicted, votes)
    return RunEnd(scores=scores, minutes=outcome.fold_minutes, texts=texts)
