"""How often the process of a trial is started again after it was lost.

Ray Tune starts it again without limit, since it also counts processes that were lost with their
machines. The queue of folds counts the others; a process that cannot even start is counted here.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any, Final

import ray
from ray.exceptions import RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial

from hms_ray.errors import TrainingError
from hms_ray.text import counted

TRIAL_RESTARTS: Final = 3
"""So often the process of a trial is started again while its machines stay alive."""


def check_restarts(queue: Any, trial: str) -> None:
    """Notes that the process of a trial has started.

    Args:
        queue: handle of the queue's actor.
        trial: distinguishes the trials of a run.

    Raises:
        TrainingError: if earlier ones were lost more than ``TRIAL_RESTARTS`` times.
    """
    node, n_lost = ray.get_runtime_context().get_node_id(), 0
    # A lost queue does not know it.
    with suppress(RayActorError):
        n_lost = ray.get(queue.call.remote("started", trial, node))
    if n_lost > TRIAL_RESTARTS:
        raise TrainingError(
            f"the process of a trial must start at most {counted(TRIAL_RESTARTS + 1, 'time')} "
            "while its machines stay alive",
            got=counted(n_lost + 1, "start"),
            fix="Read Ray's logs, in /tmp/ray/session_latest/logs on each machine: its memory may "
            "be full.",
        )


class StartLimit(Callback):
    """Lets a trial fail whose process cannot be started ``TRIAL_RESTARTS`` times in a row."""

    def __init__(self) -> None:
        self._n_failed: Counter[str] = Counter()

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Tune when a process has started."""
        self._n_failed[trial.trial_id] = 0

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Tune when a lost process is started again."""
        self._n_failed[trial.trial_id] += 1
        if self._n_failed[trial.trial_id] > TRIAL_RESTARTS:
            # The next loss is final.
            trial.max_failures = 0
