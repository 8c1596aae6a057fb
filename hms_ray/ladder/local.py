"""A ladder in this process, without Ray: fold after fold, breakpoints work."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, TextIO

from hms_ray.errors import HmsRayError
from hms_ray.experiment import FoldRunner, FoldTask, InProcessRunner, Placement
from hms_ray.ladder.lines import LadderLines
from hms_ray.ladder.plan import LadderPlan


class LocalTrainer:
    """Trains missing folds in turn.

    Args:
        threads: torch threads.
        runner: trains a fold; this process where absent.
        stream: where progress goes; standard output where absent.
    """

    def __init__(
        self, threads: int = 1, runner: FoldRunner | None = None, stream: TextIO | None = None
    ) -> None:
        self._runner = InProcessRunner(threads) if runner is None else runner
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
                show = partial(self._show, lines, task)
                try:
                    show({"event": "fold_started"})
                    self._runner.run([task], show)
                    show({"event": "fold_ended"})
                except Exception as error:
                    reason = one_line(error)
                    failed[task.experiment.name] = reason
                    show({"event": "step_failed", "reason": reason, "keys": keys_of(plan, task)})
        return failed

    def _show(self, lines: LadderLines, task: FoldTask, record: dict[str, Any]) -> None:
        about = {"step": task.experiment.name, "fold": task.fold, "key": task.key}
        for line in lines.lines({"event": "evaluation", **record, **about}):
            print(line, file=self._stream, flush=True)


def keys_of(plan: LadderPlan, failed: FoldTask) -> list[str]:
    """Keys of all missing folds of a failed task's experiment."""
    name = failed.experiment.name
    return [task.key for unit in plan.missing for task in unit if task.experiment.name == name]


def one_line(error: Exception) -> str:
    """What is told of an error that ends an experiment."""
    if isinstance(error, HmsRayError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__
