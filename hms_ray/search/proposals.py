"""The next point to train, from Optuna; handles duplicates, failures and resumption."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeGuard

import optuna
from optuna.trial import TrialState

from hms_ray.config.conditions import n_points, points
from hms_ray.config.experiment import Experiment
from hms_ray.config.space import Space
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.search.distributions import (
    Point,
    make_sampler,
    resolve,
    trial_key,
)
from hms_ray.search.gain_journal import GainJournal
from hms_ray.search.journal import Journal, Scores, scores_of
from hms_ray.search.pruner import FoldReport
from hms_ray.search.warm_start import KnownTrial
from hms_ray.study.gains import StudyGains

MAX_DUPLICATES: Final = 20
"""Draws in a row without a new experiment, before untried points are listed instead."""

MAX_LISTED_POINTS: Final = 2_000
"""Largest space that is listed point by point; each takes about a millisecond."""

INTERRUPTED: Final = "the study was stopped"
"""Beginning of the reason of trials that did not fail by themselves."""
STOP_REASON: Final = "stopped by hms-ray stop"
"""Reason of trials that a user has stopped; they are not repeated."""
RETRY: Final = "retry"
"""Origin of points that failed in an earlier run and are tried again on request."""
MAX_ATTEMPTS: Final = 2
"""Attempts at a start point that fails by itself, over all runs."""


@dataclass(frozen=True)
class Pruned:
    """How a trial ended that has no score and teaches the sampler nevertheless.

    Attributes:
        reason: in one line.
        diverged: whether its loss was no longer finite, which ranks it last; else it was
            stopped by the pruning rule.
    """

    reason: str
    diverged: bool = False


RecoverScores = Callable[[int], Scores | Pruned | None]
Reports = Callable[[int], Sequence[FoldReport]]

Outcome = Scores | Pruned | str
"""How a trial ended: its scores, as pruned, or why it failed, in one line."""


@dataclass(frozen=True)
class Proposal:
    """A point to try.

    Attributes:
        number: Optuna's number of the trial.
        point: value or label of every searched path.
        experiment: what the point resolves to.
    """

    number: int
    point: Point
    experiment: Experiment


@dataclass(frozen=True)
class Exhausted:
    """No point is left to train.

    Attributes:
        reason: one sentence for the user.
    """

    reason: str


Next = Proposal | Exhausted | Literal["wait"]


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
    ) -> None:
        self._space = space
        self._on_duplicate, self._reports = on_duplicate, reports
        self._objective = space.objective
        self._journal = (
            Journal(journal, space) if gains is None else GainJournal(journal, space, gains)
        )
        self._finished: dict[str, tuple[int, Scores]] = {}
        self._pruned: dict[str, tuple[int, str]] = {}
        self._failed: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._followers: dict[int, list[int]] = {}
        self._queue: deque[tuple[Point, str, list[int]]] = deque()
        self._keys: list[tuple[Point, str]] | None = None
        self._only_duplicates = False
        self._invalid: str | None = None
        self._draws = 0
        self._grid = points(space) if space.method == "grid" else None
        self._journal.add_known(known, self._objective)
        self._load(recover, retry_failed)
        self._renew()

    def _load(self, recover: RecoverScores, retry_failed: bool) -> None:
        trials = self._journal.trials()
        self._draws = sum(trial.user_attrs.get("origin") == "sampler" for trial in trials)
        stale: dict[str, tuple[Point, list[int]]] = {}
        retried: dict[str, Point] = {}
        settled = [
            trial.params
            for trial in trials
            if trial.state != TrialState.FAIL or trial.user_attrs.get("reason") == STOP_REASON
        ]
        for trial in trials:
            if not self._journal.has_point(trial):
                if trial.state == TrialState.RUNNING:
                    # Killed while drawing: the same draw is made again.
                    self._journal.fail(trial.number, f"{INTERRUPTED} while drawing")
                continue
            try:
                key = trial_key(resolve(self._space, trial.params))
            except ConfigError as error:
                # It is invalid in every later run too.
                settled.append(trial.params)
                if trial.state == TrialState.RUNNING:
                    self._journal.fail(trial.number, str(error))
                continue
            if trial.state in (TrialState.RUNNING, TrialState.FAIL):
                # Of a failed trial too: its process was lost, and its result seen too late.
                scores = recover(trial.number)
                if isinstance(scores, Pruned):
                    if trial.state == TrialState.RUNNING:
                        self._journal.prune(trial.number, scores.reason)
                    self._pruned.setdefault(key, (trial.number, scores.reason))
                elif self._counts(scores):
                    if trial.state == TrialState.RUNNING:
                        self._journal.complete(trial.number, scores, self._objective)
                    self._finished.setdefault(key, (trial.number, scores))
                elif trial.state == TrialState.RUNNING:
                    stale.setdefault(key, (trial.params, []))[1].append(trial.number)
                elif trial.user_attrs.get("reason") == STOP_REASON:
                    self._failed[key] = trial.number
                else:
                    retried[key] = trial.params
            elif trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs:
                self._finished.setdefault(key, (trial.number, scores_of(trial)))
            elif trial.state == TrialState.PRUNED and "duplicate_of" not in trial.user_attrs:
                reason = str(trial.user_attrs.get("reason", "pruned"))
                self._pruned.setdefault(key, (trial.number, reason))
        if retry_failed:
            for key, point in retried.items():
                if key not in self._settled and key not in self._failed and key not in stale:
                    self._queue.append((point, RETRY, []))
                    settled.append(point)
        for point, numbers in stale.values():
            self._queue.append((point, "rerun", numbers))
        failed = [
            trial.params
            for trial in trials
            if trial.state == TrialState.FAIL
            and not str(trial.user_attrs.get("reason", "")).startswith(INTERRUPTED)
        ]
        # A point that always fails must not block the others: they come first.
        for n_failures in range(MAX_ATTEMPTS):
            for point in self._space.start:
                if point not in settled and failed.count(point) == n_failures:
                    self._queue.append((dict(point), "start", []))

    def _counts(self, scores: Scores | None) -> TypeGuard[Scores]:
        """Whether a trial has scores and its objective is a finite number."""
        value = None if scores is None else scores[self._objective]
        return value is not None and math.isfinite(value)

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
        return sum(origin == "rerun" for _, origin, _ in self._queue)

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
            if not str(trial.user_attrs.get("reason", "")).startswith(INTERRUPTED)
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
        if not self._counts(scores):
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
