"""What one run of a study has reached."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from hms_ray.display.run_cost import RunCost
from hms_ray.errors import StudyError
from hms_ray.evaluate.metric import named_scores
from hms_ray.study.folder import StudyFolder
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.trial import StoredTrial
from hms_ray.sweep.trial_ends import TrialEnds
from hms_ray.text import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """Result of one run of a study.

    Attributes:
        folder: the study's folder.
        leaderboard: of all its trials.
        best: finished trial with the best objective.
        n_finished: trials that count for the budget, of all runs: finished, pruned, diverged.
        n_failed: failed trials of this run.
        n_trained: folds trained in this run.
        n_reused: folds of this run's trials that were in the store already.
        costs: of this run: of the search and of confirming runs, those that trained.
        limit: the limit of hours that is reached, as text; None if there is none.
    """

    folder: StudyFolder
    leaderboard: Leaderboard
    best: StoredTrial
    n_finished: int
    n_failed: int
    n_trained: int
    n_reused: int
    costs: tuple[RunCost, ...] = ()
    limit: str | None = None

    def shortfall(self, n_trials: int) -> str | None:
        """What is missing of the budget because trials failed; None if nothing is.

        Failed trials that others replaced do not count.
        """
        if not self.n_failed or self.n_finished >= n_trials:
            return None
        return f"{self.n_finished} of {counted(n_trials, 'trial')} finished, {self.n_failed} failed"


def study_result(
    folder: StudyFolder,
    ends: TrialEnds,
    n_finished: int,
    costs: tuple[RunCost, ...],
    limit: str | None,
) -> StudyResult:
    """The result of a run; writes the leaderboard.

    Args:
        folder: the study's folder.
        ends: of the trials of this run.
        n_finished: see ``StudyResult``.
        costs: likewise.
        limit: likewise.

    Raises:
        StudyError: if no trial is finished.
    """
    ends.settle()
    # A damaged trial of an earlier run is reported here, after all are trained.
    leaderboard = Leaderboard(folder)
    leaderboard.write_csv()
    finished, failed = leaderboard.finished, ends.failed()
    if not finished:
        got = f"{len(failed)} failed, the first with: {failed[0]}" if failed else "none"
        raise StudyError(
            "a study must have a finished trial",
            got=got,
            where=folder.path,
            fix="Read the traceback in each trial's error.txt." if failed else None,
        )
    done = ends.finished()
    n_reused = sum(len(trial.reused) for trial in done)
    best = f"trial {finished[0].number:04d}, {named_scores(finished[0].scores)}"
    n_trials = counted(len(finished), "trial")
    logger.info("%s finished, %d failed in this run; best: %s", n_trials, len(failed), best)
    return StudyResult(
        folder=folder,
        leaderboard=leaderboard,
        best=finished[0],
        n_finished=n_finished,
        n_failed=len(failed),
        n_trained=sum(len(trial.keys) for trial in done) - n_reused,
        n_reused=n_reused,
        costs=costs,
        limit=limit,
    )
