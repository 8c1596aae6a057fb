"""A fixed list of runs, in the form of Tune's searcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from hms_ray.study.confirmation import ConfirmingRun
from hms_ray.sweep.run_faults import RunFaults
from hms_ray.sweep.tune_searcher import LOST


class RunList(Searcher):
    """Suggests runs in order.

    Args:
        runs: to be trained.
        on_end: called with a run and the reason of its failure, or None.
        faults: of the run.
    """

    def __init__(
        self,
        runs: Sequence[ConfirmingRun],
        on_end: Callable[[ConfirmingRun, str | None], None],
        faults: RunFaults,
    ) -> None:
        super().__init__()
        self._faults = faults
        self._waiting, self._on_end = list(runs), on_end
        self._running: dict[str, ConfirmingRun] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Config of the next run; ``FINISHED`` at the end, None while the last ones run."""
        if not self._waiting:
            return None if self._running else str(Searcher.FINISHED)
        run = self._running[trial_id] = self._waiting.pop(0)
        return {
            "number": run.number,
            "point": dict(run.point),
            "experiment": run.experiment.model_dump_json(),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Reports the end of a run; its process has written the result."""
        run = self._running.pop(trial_id, None)
        if result and "storage" in result:
            self._faults.add(result["storage"])
        elif run is not None:
            failed = LOST if error or not result else result.get("error")
            self._on_end(run, None if failed is None else str(failed))

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher to restore it; stored runs are enough to resume.
        return {"_metric": self._metric, "_mode": self._mode}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: runs that are stored are not suggested again."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
