"""The bridge between Tune's searcher interface and the study's proposals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ray.tune.search import Searcher

from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.search.proposals import Exhausted, Proposal, Proposals

MIN_FAILURES: Final = 3
"""Failed trials that end a run, even if fewer trials are missing."""
LOST: Final = "the trial's process was lost; see the logs in Ray's session folder"


class StudySearch(Searcher):
    """Suggests the study's proposals to Tune and records their results.

    A trial's last result holds either its scores or ``error``, a text; trials that Tune
    itself reports as failed lost their process.

    The search ends when ``n_trials`` are finished, when as many trials of this run have
    failed as were missing at its start (at least ``MIN_FAILURES``), or when no point is left.

    Args:
        proposals: source of points, and record of results.
        n_trials: finished trials to end with, those of earlier runs included.
        on_end: called with (proposal, reason of failure or None) after the result is
            recorded.
        on_exhausted: called once with the reason if the search ends before ``n_trials``.
    """

    def __init__(
        self,
        proposals: Proposals,
        n_trials: int,
        *,
        on_end: Callable[[Proposal, str | None], None] = lambda proposal, reason: None,
        on_exhausted: Callable[[str], None] = lambda reason: None,
    ) -> None:
        super().__init__()
        self._proposals = proposals
        self._n_trials = n_trials
        self._max_failures = max(MIN_FAILURES, n_trials - proposals.n_finished)
        self._n_failed = 0
        self._ended = False
        self._running: dict[str, Proposal] = {}
        self._on_end, self._on_exhausted = on_end, on_exhausted

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Config of the next trial; ``FINISHED`` at the end, None to be called again."""
        n_running = self._proposals.n_running
        if self._proposals.n_finished + n_running >= self._n_trials:
            return None if n_running else str(Searcher.FINISHED)
        if self._n_failed >= self._max_failures:
            if not n_running:
                self._end(f"{self._n_failed} trials failed in this run")
            return None if n_running else str(Searcher.FINISHED)
        proposal = self._proposals.next()
        if proposal == "wait":
            return None
        if isinstance(proposal, Exhausted):
            self._end(proposal.reason)
            return str(Searcher.FINISHED)
        self._running[trial_id] = proposal
        return {
            "number": proposal.number,
            "point": proposal.point,
            "experiment": proposal.experiment.model_dump(mode="json"),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Records the result of a trial."""
        proposal = self._running.pop(trial_id)
        reason = LOST if error or result is None else result.get("error")
        if result is None or reason is not None:
            self._n_failed += 1
            self._proposals.fail(proposal.number, reason or LOST)
        else:
            scores = {name: result[name] for name in SCORE_NAMES}
            self._proposals.complete(proposal.number, scores)
        self._on_end(proposal, reason)

    def _end(self, reason: str) -> None:
        # Tune calls ``suggest`` after the end too.
        if not self._ended:
            self._ended = True
            self._on_exhausted(reason)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher to restore it later. The state of this one is in the
        # journal, and open files and callbacks cannot be pickled.
        return {"_metric": self._metric, "_mode": self._mode}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the state is Optuna's journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the state is Optuna's journal."""
