"""A ladder in this process, without Ray: fold after fold, so that breakpoints work."""

from __future__ import annotations

import traceback
from typing import Any, TextIO

from hms_ray.display.live import ProgressView
from hms_ray.display.progress import Progress
from hms_ray.errors import StorageError, one_line
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import FoldRunner
from hms_ray.ladder.plan import LadderPlan


class LocalTrainer:
    """Trains missing folds one after the other.

    Args:
        runner: trains a fold.
        stream: where progress is shown; default: standard output.
    """

    def __init__(self, runner: FoldRunner, stream: TextIO | None = None) -> None:
        self._runner, self._stream = runner, stream

    @property
    def placement(self) -> Placement:
        """Of this process."""
        return self._runner.placement

    def train(self, plan: LadderPlan, progress: Progress) -> dict[str, str]:
        """Trains the missing folds of a plan; see ``run.Trainer``."""
        failed: dict[str, str] = {}
        with ProgressView(progress, self._stream, threaded=False) as view:
            for task in (task for unit in plan.missing for task in unit):
                if task.experiment.name in failed:
                    continue
                try:
                    self._runner.run([task], view.handle)
                except StorageError:
                    raise
                except Exception as error:
                    failed[task.experiment.name] = one_line(error)
                    view.handle(step_failed(task, error))
        return failed


def step_failed(task: FoldTask, error: Exception) -> dict[str, Any]:
    """The event of a fold that failed; no fold of its experiment is trained any more."""
    return {
        "event": "step_failed",
        "experiment": task.experiment.name,
        "reason": one_line(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
