"""The bridge between Tune's searcher interface and the study's proposals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from ray.tune.search import Searcher

from hms_ray.errors import StorageError
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.search.outcomes import STOP_REASON, Exhausted, Outcome, Proposal, Pruned, RecoverScores
from hms_ray.search.proposals import Proposals
from hms_ray.study.trial import PRUNED
from hms_ray.sweep.run_faults import RunFaults

logger = logging.getLogger(__name__)

MIN_FAILURES: Final = 3
"""Failed trials that end a run, even if fewer trials are missing."""
LOST: Final = "the trial's process was lost; see the logs in Ray's session folder"


class StudySearch(Searcher):
    """Suggests the study's proposals to Tune and records their results.

    A trial's last result holds its scores, ``error``, a text, or ``storage``, a fault that ends
    the run and leaves the trial open; a trial without one lost its process.

    The search ends when ``n_trials`` are finished and failed trials that are to be retried
    have ended, when a limit of hours is reached, when as many trials of this run have
    failed as were missing at its start (at least ``MIN_FAILURES``), or when no point is left.
    A fault, such as an outcome that cannot be recorded, ends the run: nothing is recorded
    after it.

    Args:
        proposals: source of points, and record of results.
        n_trials: finished trials to end with, those of earlier runs included.
        recover: scores of a trial that stored its result and lost its process, or None.
        on_end: called with (proposal, scores or reason of failure) after the outcome is
            recorded.
        on_exhausted: called once with the reason if the search ends before ``n_trials``.
        reached_limit: the limit of the budget that is reached, as text, or None.
        faults: of the run.
    """

    def __init__(
        self,
        proposals: Proposals,
        n_trials: int,
        *,
        recover: RecoverScores = lambda number: None,
        on_end: Callable[[Proposal, Outcome], None] = lambda proposal, outcome: None,
        on_exhausted: Callable[[str], None] = lambda reason: None,
        reached_limit: Callable[[], str | None] = lambda: None,
        faults: RunFaults | None = None,
    ) -> None:
        super().__init__()
        self.faults = faults or RunFaults()
        self._proposals = proposals
        self._n_trials = n_trials
        n_missing = max(n_trials - proposals.n_finished, proposals.n_retried)
        self._max_failures = max(MIN_FAILURES, n_missing)
        self._n_failed = 0
        self._ended = False
        self._running: dict[str, Proposal] = {}
        self._stopped: set[int] = set()
        self._recover, self._on_end, self._on_exhausted = recover, on_end, on_exhausted
        self._reached_limit = reached_limit

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Config of the next trial; ``FINISHED`` at the end, None to be called again."""
        if self.faults.first is not None:
            return str(Searcher.FINISHED)
        try:
            return self._suggest(trial_id)
        except Exception as fault:
            self.faults.add(fault)
            return str(Searcher.FINISHED)

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        n_running = self._proposals.n_running
        enough = self._proposals.n_finished + n_running >= self._n_trials
        if enough and not self._proposals.n_retried:
            return None if n_running else str(Searcher.FINISHED)
        if self._n_failed >= self._max_failures:
            if not n_running:
                self._end(f"{self._n_failed} trials failed in this run")
            return None if n_running else str(Searcher.FINISHED)
        if (limit := self._reached_limit()) is not None:
            if not n_running:
                self._end(limit)
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
            # As text: Tune keeps several copies, and statistics of each number in them.
            "experiment": proposal.experiment.model_dump_json(),
        }

    def stop(self, number: int) -> bool:
        """Notes that a trial is being stopped; False if it does not run.

        Called from another thread. Unless it finishes after all, the trial is recorded as
        stopped, which does not count as a failure.
        """
        running = any(proposal.number == number for proposal in list(self._running.values()))
        if running:
            self._stopped.add(number)
        return running

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Records the outcome of a trial.

        What the trial reported decides: it reports its scores after it has written its
        result, whether this machine can see the files already or not.
        """
        proposal = self._running.pop(trial_id, None)
        if proposal is None or self.faults.first is not None:
            return  # Tune ends all trials after a fault: they stay open.
        try:
            if (found := (result or {}).get("storage")) is not None:
                raise found
            outcome = self._outcome(proposal.number, result or {})
            diverged = isinstance(outcome, Pruned) and outcome.diverged
            if (isinstance(outcome, str) or diverged) and proposal.number in self._stopped:
                outcome = STOP_REASON
            if isinstance(outcome, str):
                self._n_failed += outcome != STOP_REASON
                self._proposals.fail(proposal.number, outcome)
            elif isinstance(outcome, Pruned):
                self._proposals.prune(proposal.number, outcome)
            else:
                self._proposals.complete(proposal.number, outcome)
            self._on_end(proposal, outcome)
        except StorageError as fault:
            self.faults.add(fault)
        except Exception as fault:
            logger.exception("trial %04d: its end was not recorded", proposal.number)
            self.faults.add(fault)

    def _outcome(self, number: int, result: dict[str, Any]) -> Outcome:
        if "error" in result:
            error = str(result["error"])
            return Pruned(error, diverged=True) if result.get("diverged") else error
        if PRUNED in result:
            return Pruned(str(result[PRUNED]))
        if all(name in result for name in SCORE_NAMES):
            return {name: result[name] for name in SCORE_NAMES}
        # It may have written its result before its process was lost.
        return self._recover(number) or LOST

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
