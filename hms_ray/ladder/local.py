"""A ladder in this process, without Ray: fold after fold, breakpoints work."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, TextIO

from hms_ray.errors import HmsRayError
from hms_ray.experiment.fold_task import FoldTask, labelled
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import FoldRunner
from hms_ray.ladder.plan import LadderPlan
from hms_ray.ladder.progress import LadderLines


class LocalTrainer:
    """Trains missing folds in turn.

    Args:
        threads: torch threads.
        runner: trains a fold; this process where absent.
        stream: where progress goes; standard output where absent.
        share_stages: see ``ResourcesConfig``; for this process alone.
    """

    def __init__(
        self,
        threads: int = 1,
        runner: FoldRunner | None = None,
        stream: TextIO | None = None,
        *,
        share_stages: bool = True,
    ) -> None:
        self._runner = runner or InProcessRunner(threads, share_stages=share_stages)
        self._stream = stream or sys.stdout

    @property
    def placement(self) -> Placement:
        """Of this process."""
        return self._runner.placement

    def train(self, plan: LadderPlan, lines: LadderLines) -> dict[str, str]:
        """Trains the missing folds of a plan; see ``run.Trainer``."""
        failed: dict[str, str] = {}
        for unit in plan.missing:
            for task in unit:
                if task.experiment.name in failed:
                    continue
                show = partial(self._show, lines)
                try:
                    labelled(show, task, {"event": "fold_started"})
                    self._runner.run([task], show)
                    labelled(show, task, {"event": "fold_ended"})
                except Exception as error:
                    failed[task.experiment.name] = one_line(error)
                    show(step_failed(plan, task, one_line(error)))
        return failed

    def _show(self, lines: LadderLines, event: dict[str, Any]) -> None:
        for line in lines.lines(event):
            print(line, file=self._stream, flush=True)


def step_failed(plan: LadderPlan, task: FoldTask, reason: str) -> dict[str, Any]:
    """The event of a fold that failed, and with it all missing folds of its experiment."""
    name = task.experiment.name
    tasks = [task for unit in plan.missing for task in unit if task.experiment.name == name]
    keys = [task.key for task in tasks]
    return {"event": "step_failed", "experiment": name, "reason": reason, "keys": keys}


def one_line(error: Exception) -> str:
    """What is told of an error that ends an experiment."""
    if isinstance(error, HmsRayError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__
