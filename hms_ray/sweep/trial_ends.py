"""What a study does when one of its trials ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from hms_ray.errors import HmsRayError
from hms_ray.evaluate.metric import Array
from hms_ray.search.outcomes import STOP_REASON, Outcome, Proposal, Pruned
from hms_ray.storage.run_log import FaultLog
from hms_ray.storage.visibility import wait_until
from hms_ray.study.folder import StudyFolder
from hms_ray.study.kept_weights import FREE_EVERY, KeptWeights
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.trial import DIVERGED, PRUNED, STOPPED, State, StoredTrial

logger = logging.getLogger(__name__)

CSV_SHARE: Final = 0.01
"""Share of the time that ``leaderboard.csv`` may take: 40 ms each time with 1,000 trials."""


class TrialEnds:
    """Records failures, reports ends, and writes the leaderboard.

    The outcome that a trial reported counts. The files of a finished or pruned trial may become
    visible on this machine later; they are looked for again at each end and in ``settle``.

    Args:
        folder: the study's folder.
        report: gets progress events.
        kept: frees weights after ``FREE_EVERY`` ends and in ``settle``; default: all are kept.
        on_stored: called once with each finished or pruned trial when its files are visible,
            and the KL (n,) of each row of a finished one.
        on_ended: called once with each trial, in any state, when its files are visible.
    """

    def __init__(
        self,
        folder: StudyFolder,
        report: Callable[[dict[str, Any]], None],
        kept: KeptWeights | None = None,
        on_stored: Callable[[StoredTrial, Array | None], None] = lambda trial, scores: None,
        on_ended: Callable[[StoredTrial], None] = lambda trial: None,
    ) -> None:
        self._kept, self._on_stored, self._on_ended = kept, on_stored, on_ended
        self._folder, self._report = folder, report
        self._outcomes: dict[int, Outcome] = {}
        self._unseen: list[int] = []
        self._csv_due = 0.0
        self._faults = FaultLog(logger, folder.path)

    def record(self, proposal: Proposal, outcome: Outcome) -> None:
        """Takes the outcome of a trial; a fault here is logged and does not end the search.

        Raises:
            StorageError: if the study's folder cannot be written any more.
        """
        number = proposal.number
        self._outcomes[number] = outcome
        with self._faults(f"the end of trial {number:04d} was not recorded completely"):
            if isinstance(outcome, Pruned) and not outcome.diverged:
                event = {"event": "trial_pruned", "trial": number, "reason": outcome.reason}
                self._report(event)
                self._unseen.append(number)
            elif isinstance(outcome, Pruned):
                self._record_failure(proposal, outcome.reason, DIVERGED)
            elif isinstance(outcome, str):
                state: State = STOPPED if outcome == STOP_REASON else "failed"
                self._record_failure(proposal, outcome, state)
            else:
                scores = dict(outcome)
                self._report({"event": "trial_ended", "trial": number, "scores": scores})
                self._unseen.append(number)
        self._publish()
        if len(self._outcomes) % FREE_EVERY == 0:
            self._free_weights()

    def _free_weights(self) -> None:
        if self._kept is not None:
            with self._faults("weights were not freed"):
                self._kept.free(self.leaderboard.trials)

    def _record_failure(self, proposal: Proposal, reason: str, state: State) -> None:
        number = proposal.number
        self._folder.write_failure(
            number,
            proposal.point,
            proposal.experiment,
            reason,
            state=state,
            # The trial's own record has the traceback; it has none if its process was lost.
            if_exists="replace" if state == STOPPED else "keep",
        )
        file = self._folder.trial_path(number) / "error.txt"
        details = file.read_text(encoding="utf-8") if file.is_file() else ""
        ended = {"event": f"trial_{state}", "trial": number, "reason": reason}
        self._report({**ended, "traceback": details})
        self.leaderboard.add(number)
        if (trial := self._stored(number)) is not None:
            self._on_ended(trial)

    def _publish(self) -> bool:
        """Reports trials with stored folds that are visible now.

        The leaderboard's file follows as often as ``CSV_SHARE`` allows, and in ``settle``.

        Returns:
            Whether all of them are visible.
        """
        for number in list(self._unseen):
            trial = self._stored(number)
            if trial is not None and (trial.finished or trial.state == PRUNED):
                self._unseen.remove(number)
                scores = self.leaderboard.add(number)
                self._on_stored(trial, scores)
                self._on_ended(trial)
        if time.monotonic() >= self._csv_due:
            self._write_csv()
        return not self._unseen

    def _write_csv(self) -> None:
        began = time.monotonic()
        with self._faults("leaderboard not written"):
            self.leaderboard.write_csv()
        ended = time.monotonic()
        self._csv_due = ended + (ended - began) / CSV_SHARE

    @cached_property
    def leaderboard(self) -> Leaderboard:
        """Brought up to date trial by trial: to read all trials again takes seconds.

        A damaged trial of an earlier run is logged; it must not end the search.
        """
        return Leaderboard(self._folder, on_damaged=self._log_damaged)

    def _log_damaged(self, error: HmsRayError) -> None:
        with self._faults("a trial is not in the leaderboard"):
            raise error

    def settle(self) -> None:
        """Waits until the files of finished and pruned trials are visible, for a limited time."""
        wait_until(self._publish)
        self._write_csv()
        self._free_weights()
        for number in self._unseen:
            logger.warning(
                "trial %04d has ended, but its files are not visible on this machine: %s",
                number,
                self._folder.trial_path(number),
            )

    def finished(self) -> list[StoredTrial]:
        """The finished trials of this run whose files are visible."""
        stored = map(self._stored, self._outcomes)
        return [trial for trial in stored if trial is not None and trial.finished]

    def failed(self) -> list[str]:
        """The reasons of the trials of this run that have failed; not of stopped ones."""
        finished = {trial.number for trial in self.finished()}
        return [
            outcome
            for number, outcome in self._outcomes.items()
            if isinstance(outcome, str) and outcome != STOP_REASON and number not in finished
        ]

    def _stored(self, number: int) -> StoredTrial | None:
        with self._faults(f"trial {number:04d} could not be read"):
            return self._folder.trial(number)
        return None
