"""The next point to train, from Optuna; handles duplicates, failures and resumption."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import optuna

from hms_ray.config.conditions import n_points, points
from hms_ray.config.space import Space
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.search.distributions import (
    Point,
    make_sampler,
    resolve,
    trial_key,
)
from hms_ray.search.earlier_trials import (
    INTERRUPTED,
    RERUN,
    RETRY,
    EarlierTrials,
    counts,
    was_interrupted,
)
from hms_ray.search.gain_journal import GainJournal
from hms_ray.search.journal import Journal, Scores, StudyTitle
from hms_ray.search.outcomes import (
    Exhausted,
    Next,
    Proposal,
    Pruned,
    RecoverScores,
    Reports,
)
from hms_ray.search.warm_start import KnownTrial
from hms_ray.study.gains import StudyGains

MAX_DUPLICATES: Final = 20
"""Draws in a row without a new experiment, before untried points are listed instead."""

MAX_LISTED_POINTS: Final = 2_000
"""Largest space that is listed point by point; each takes about a millisecond."""


class Proposals:
    """Proposes points and records their results in an Optuna study, kept in a journal file.

    A finished trial is recorded as COMPLETE with its value, a failed one as FAIL, a pruned or
    diverged one as PRUNED; PRUNED ones count for the budget. A point
    that repeats a finished experiment is not trained again: it is recorded as COMPLETE with
    the known value (attribute ``duplicate_of``), and another point is drawn. A point whose
    values are invalid together is recorded as FAIL, and another point is drawn.

    The order of proposals: failed trials that are retried on request; trials that a killed run
    left RUNNING, whose old records become FAIL; start points, those that failed in an earlier run
    last (two attempts in all); the sampler's draws, or the points of the grid.

    Args:
        space: search space with its study's settings.
        journal: file of Optuna's journal; made if missing.
        recover: returns the outcome of a trial that was stored but not recorded in the
            journal, or None.
        reports: returns what is known of the folds of a trial that has just ended.
        on_duplicate: called with (trial, the finished trial that it repeats).
        gains: of the study, if its metric is ``blend_gain``; its references are renewed here.
        retry_failed: propose every experiment again that failed in an earlier run and never
            finished, whether it was drawn or a start point; not those that a user stopped.
        known: trials of other studies that teach the sampler.
        title: what Optuna's own tools show of the study.

    Raises:
        StudyError: if the journal cannot be read.
    """

    def __init__(
        self,
        space: Space,
        journal: Path,
        *,
        recover: RecoverScores = lambda number: None,
        reports: Reports = lambda number: (),
        on_duplicate: Callable[[int, int], None] = lambda number, original: None,
        gains: StudyGains | None = None,
        retry_failed: bool = False,
        known: Sequence[KnownTrial] = (),
        title: StudyTitle | None = None,
    ) -> None:
        self._space = space
        self._on_duplicate, self._reports = on_duplicate, reports
        self._objective = space.objective
        self._journal = (
            Journal(journal, space, title)
            if gains is None
            else GainJournal(journal, space, gains, title)
        )
        self._running: dict[str, int] = {}
        self._followers: dict[int, list[int]] = {}
        self._keys: list[tuple[Point, str]] | None = None
        self._only_duplicates = False
        self._invalid: str | None = None
        self._grid = points(space) if space.method == "grid" else None
        self._journal.add_known(known, self._objective)
        earlier = EarlierTrials(space, self._journal, recover)
        self._finished, self._pruned = earlier.finished, earlier.pruned
        self._failed, self._draws = earlier.failed, earlier.n_draws
        self._queue = deque(earlier.queue(retry_failed))
        self._renew()

    @property
    def n_finished(self) -> int:
        """Experiments that count for the budget: with a score, pruned or diverged."""
        return len(self._settled)

    @property
    def _settled(self) -> set[str]:
        return self._finished.keys() | self._pruned.keys()

    @property
    def n_running(self) -> int:
        """Proposals without a result."""
        return len(self._running)

    @property
    def n_interrupted(self) -> int:
        """Points that a killed run left, still to be proposed again."""
        return sum(origin == RERUN for _, origin, _ in self._queue)

    @property
    def n_retried(self) -> int:
        """Failed points still to be proposed again."""
        return sum(origin == RETRY for _, origin, _ in self._queue)

    def next(self) -> Next:
        """The next point to train; ``wait`` while it depends on running ones; or the end."""
        while self._queue:
            point, origin, replaced = self._queue.popleft()
            trial = self._journal.add_point(origin, point)
            for number in replaced:
                self._journal.fail(number, f"{INTERRUPTED}; repeated as trial {trial.number}")
            found = self._proposal_of(trial)
            if found is not None:
                return found
        if self._grid is not None:
            return self._next_of_grid(self._grid)
        for _ in range(MAX_DUPLICATES):
            if self._only_duplicates or not self._untried():
                return self._nothing_left()
            sampler = make_sampler(self._space, self._draws)
            self._draws += 1
            found = self._proposal_of(self._journal.add_sampled(sampler))
            if found is not None:
                return found
        if self._keys is None:
            self._only_duplicates = True
            return self._nothing_left()
        # The sampler repeats its favourites, but the space is small enough to list the rest.
        point = next(point for point, key in self._keys if not self._tried(key))
        return self._proposal_of(self._journal.add_point("listed", point)) or "wait"

    def _next_of_grid(self, grid: Iterator[Point]) -> Next:
        """The first point of the grid that no trial has; interrupted ones are queued."""
        known = [
            trial.params
            for trial in self._journal.trials()
            if not was_interrupted(trial.user_attrs)
        ]
        for point in grid:
            if point not in known:
                found = self._proposal_of(self._journal.add_point("grid", point))
                if found is not None:
                    return found
        return self._nothing_left()

    def complete(self, number: int, scores: Scores) -> None:
        """Records a finished trial; as failed if its objective is not a finite number.

        Args:
            number: of the proposal.
            scores: ``kl_all``, ``kl_4``, ``kl_10``.
        """
        if not counts(scores, self._objective):
            name, value = SCORE_NAMES[self._objective], scores[self._objective]
            self.fail(number, f"{name} must be a finite number, got {value}")
            return
        self._finished[self._end(number)] = (number, scores)
        self._journal.report(number, self._reports(number))
        self._journal.complete(number, scores, self._objective)
        for follower in self._followers.pop(number, []):
            self._complete_duplicate(follower, number, scores)
        self._renew()

    def _renew(self) -> None:
        self._journal.renew([number for number, _ in self._finished.values()])

    def fail(self, number: int, reason: str) -> None:
        """Records a failed trial; its experiment is not proposed again in this run."""
        self._failed[self._end(number)] = number
        for failed in (number, *self._followers.pop(number, [])):
            self._journal.fail(failed, reason)

    def prune(self, number: int, outcome: Pruned) -> None:
        """Records a trial that was stopped between folds or has diverged.

        Args:
            number: of the proposal.
            outcome: how it ended.
        """
        self._pruned[self._end(number)] = (number, outcome.reason)
        if not outcome.diverged:
            self._journal.report(number, self._reports(number))
        self._journal.prune(number, outcome.reason)
        for follower in self._followers.pop(number, []):
            self._prune_duplicate(follower, number, outcome.reason)

    def _prune_duplicate(self, number: int, original: int, reason: str) -> None:
        """Records a repetition of a pruned trial with the same intermediate values."""
        first = next(trial for trial in self._journal.trials() if trial.number == original)
        self._journal.repeat_reports(number, first)
        self._journal.prune(number, reason, original)
        self._on_duplicate(number, original)

    def _end(self, number: int) -> str:
        key = next(key for key, running in self._running.items() if running == number)
        del self._running[key]
        return key

    def _proposal_of(self, trial: optuna.Trial) -> Proposal | None:
        """A proposal, or None if the point needs no training, which is recorded."""
        try:
            experiment = resolve(self._space, trial.params)
        except ConfigError as error:
            self._invalid = str(error)
            self._journal.fail(trial.number, self._invalid)
            return None
        key = trial_key(experiment)
        if key in self._finished:
            self._complete_duplicate(trial.number, *self._finished[key])
        elif key in self._pruned:
            self._prune_duplicate(trial.number, *self._pruned[key])
        elif key in self._running:
            self._followers.setdefault(self._running[key], []).append(trial.number)
        elif key in self._failed:
            self._journal.fail(trial.number, f"failed before as trial {self._failed[key]}")
        else:
            self._running[key] = trial.number
            return Proposal(trial.number, dict(trial.params), experiment)
        return None

    def _tried(self, key: str) -> bool:
        return key in self._settled or key in self._running or key in self._failed

    def _untried(self) -> bool:
        """Whether the space may have an experiment that was not tried."""
        count = n_points(self._space)
        if count is None or count > MAX_LISTED_POINTS:
            return True
        if self._keys is None:
            self._keys = list(self._listed())
        return not all(self._tried(key) for _, key in self._keys)

    def _listed(self) -> Iterator[tuple[Point, str]]:
        """Every valid point with its key."""
        for point in points(self._space):
            try:
                yield point, trial_key(resolve(self._space, point))
            except ConfigError as error:
                self._invalid = str(error)

    def _nothing_left(self) -> Next:
        if self._running:
            return "wait"
        reason = "every experiment of the space was tried"
        if self._only_duplicates:
            reason = f"{MAX_DUPLICATES} draws in a row repeated experiments already tried"
        if self._invalid is None:
            return Exhausted(reason)
        if self._only_duplicates:
            reason += " or were invalid"
        return Exhausted(f"{reason}; an invalid point: {self._invalid}")

    def _complete_duplicate(self, number: int, original: int, scores: Scores) -> None:
        self._journal.complete_duplicate(number, original, scores, self._objective)
        self._on_duplicate(number, original)
