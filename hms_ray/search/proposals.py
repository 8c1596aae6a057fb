"""Which point to try next, told by Optuna; duplicates and resumption are settled here."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import optuna
from optuna.trial import TrialState

from hms_ray.config.experiment import Experiment
from hms_ray.config.space import Space
from hms_ray.errors import ConfigError
from hms_ray.search.distributions import (
    Point,
    distributions,
    make_sampler,
    n_points,
    points,
    resolve,
    trial_key,
)
from hms_ray.search.journal import Journal, Scores, scores_of

MOST_DUPLICATES = 20
"""Draws in a row that may come to nothing new before other means are taken."""

MOST_POINTS = 2_000
"""Largest space that is listed point by point; each takes about a millisecond."""

Recover = Callable[[int], Scores | None]


STOPPED: Final = "the study was stopped"
"""How the reason of a trial begins that did not fail by itself."""
MOST_TRIES: Final = 2
"""Times that a start point is tried which fails by itself."""


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
    """No further point is worth training.

    Attributes:
        reason: one sentence for the user.
    """

    reason: str


Next = Proposal | Exhausted | Literal["wait"]


class Proposals:
    """Ask and tell over an Optuna study that lives in a journal file.

    Results are told truly: a finished trial COMPLETE with its value, a failed
    one FAIL. A point that repeats a finished experiment is not trained again:
    Optuna hears the known value (attribute ``duplicate_of``) and is asked again.
    So it is after a point whose values do not fit together, which is told FAIL.

    Trials that a killed study left RUNNING are proposed again, before anything
    new, and then marked FAIL; start points come next, last of them those that failed
    in an earlier run (tried twice in all), then the sampler's draws.

    Args:
        space: search space with its study's settings.
        journal: file of Optuna's journal; made where absent.
        recover: gives the scores of a trial whose result was stored although
            Optuna never heard of it, or None.
        on_duplicate: called with (trial, the finished trial that it repeats).

    Raises:
        StudyError: where the journal cannot be read.
    """

    def __init__(
        self,
        space: Space,
        journal: Path,
        *,
        recover: Recover = lambda number: None,
        on_duplicate: Callable[[int, int], None] = lambda number, original: None,
    ) -> None:
        self._space = space
        self._on_duplicate = on_duplicate
        self._objective = space.study.objective
        self._journal = Journal(journal, distributions(space))
        self._finished: dict[str, tuple[int, Scores]] = {}
        self._failed: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._followers: dict[int, list[int]] = {}
        self._queue: deque[tuple[Point, str, list[int]]] = deque()
        self._keys: list[tuple[Point, str]] | None = None
        self._circling = False
        self._misfit: str | None = None
        self._draws = 0
        self._load(recover)

    def _load(self, recover: Recover) -> None:
        trials = self._journal.trials()
        self._draws = sum(trial.user_attrs.get("origin") == "sampler" for trial in trials)
        stale: dict[str, tuple[Point, list[int]]] = {}
        settled = [trial.params for trial in trials if trial.state != TrialState.FAIL]
        for trial in trials:
            if not self._journal.drawn_whole(trial):
                if trial.state == TrialState.RUNNING:
                    # A kill while it was being drawn: the same draw comes again.
                    self._journal.tell_failed(trial.number, f"{STOPPED} while drawing")
                continue
            try:
                key = trial_key(resolve(self._space, trial.params))
            except ConfigError as error:
                # It will fit in no later run either.
                settled.append(trial.params)
                if trial.state == TrialState.RUNNING:
                    self._journal.tell_failed(trial.number, str(error))
                continue
            if trial.state == TrialState.RUNNING:
                scores = recover(trial.number)
                if scores is None:
                    stale.setdefault(key, (trial.params, []))[1].append(trial.number)
                else:
                    self._journal.tell_complete(trial.number, scores, self._objective)
                    self._finished.setdefault(key, (trial.number, scores))
            elif trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs:
                self._finished.setdefault(key, (trial.number, scores_of(trial)))
        for point, numbers in stale.values():
            self._queue.append((point, "rerun", numbers))
        failed = [
            trial.params
            for trial in trials
            if trial.state == TrialState.FAIL
            and not str(trial.user_attrs.get("reason", "")).startswith(STOPPED)
        ]
        # A point that fails every time must not keep a study from its other points:
        # the others come first, and it is tried a second time only.
        for n_failures in range(MOST_TRIES):
            for point in self._space.start:
                if point not in settled and failed.count(point) == n_failures:
                    self._queue.append((dict(point), "start", []))

    @property
    def n_finished(self) -> int:
        """Experiments that are finished; duplicates do not count."""
        return len(self._finished)

    @property
    def n_running(self) -> int:
        """Proposals that were neither completed, failed nor pruned yet."""
        return len(self._running)

    @property
    def n_interrupted(self) -> int:
        """Points left over from a killed study that are still to be proposed again."""
        return sum(origin == "rerun" for _, origin, _ in self._queue)

    def next(self) -> Next:
        """The next point to train, ``wait`` while running ones decide, or the end."""
        while self._queue:
            found = self._settle(self._ask_queued())
            if found is not None:
                return found
        for _ in range(MOST_DUPLICATES):
            if self._circling or not self._untried():
                return self._nothing_left()
            found = self._settle(self._draw())
            if found is not None:
                return found
        if self._keys is None:
            self._circling = True
            return self._nothing_left()
        # The sampler keeps to its favourites: the rest is few and can be listed.
        point = next(point for point, key in self._keys if not self._tried(key))
        return self._settle(self._journal.ask_for("listed", point)) or "wait"

    def complete(self, number: int, scores: Scores) -> None:
        """Tells that a trial finished.

        Args:
            number: the proposal's.
            scores: ``kl_all``, ``kl_4``, ``kl_10``; the study's objective is the value.
        """
        value = scores[self._objective]
        if value is None or not math.isfinite(value):
            self.fail(number, f"{self._objective} is {value}")
            return
        self._finished[self._end(number)] = (number, scores)
        self._journal.tell_complete(number, scores, self._objective)
        for follower in self._followers.pop(number, []):
            self._tell_duplicate(follower, number, scores)

    def fail(self, number: int, reason: str) -> None:
        """Tells that a trial failed; its experiment is not proposed again in this run."""
        self._failed[self._end(number)] = number
        for failed in (number, *self._followers.pop(number, [])):
            self._journal.tell_failed(failed, reason)

    def prune(self, number: int, values: Mapping[int, float]) -> None:
        """Tells that a trial was stopped early.

        Args:
            number: the proposal's.
            values: objective after so many folds, reported before the state is told.
        """
        self._failed[self._end(number)] = number
        for pruned in (number, *self._followers.pop(number, [])):
            self._journal.tell_pruned(pruned, values)

    def _end(self, number: int) -> str:
        key = next(key for key, running in self._running.items() if running == number)
        del self._running[key]
        return key

    def _settle(self, trial: optuna.Trial) -> Proposal | None:
        """A proposal, or None where the point does not need training; Optuna is told then."""
        try:
            experiment = resolve(self._space, trial.params)
        except ConfigError as error:
            self._misfit = str(error)
            self._journal.tell_failed(trial.number, self._misfit)
            return None
        key = trial_key(experiment)
        if key in self._finished:
            self._tell_duplicate(trial.number, *self._finished[key])
        elif key in self._running:
            self._followers.setdefault(self._running[key], []).append(trial.number)
        elif key in self._failed:
            self._journal.tell_failed(trial.number, f"failed before as trial {self._failed[key]}")
        else:
            self._running[key] = trial.number
            return Proposal(trial.number, dict(trial.params), experiment)
        return None

    def _tried(self, key: str) -> bool:
        return key in self._finished or key in self._running or key in self._failed

    def _untried(self) -> bool:
        """Whether the space may hold an experiment that was not tried."""
        count = n_points(self._space)
        if count is None or count > MOST_POINTS:
            return True
        if self._keys is None:
            self._keys = list(self._listed())
        return not all(self._tried(key) for _, key in self._keys)

    def _listed(self) -> Iterator[tuple[Point, str]]:
        """Every point whose values fit together, with its key."""
        for point in points(self._space):
            try:
                yield point, trial_key(resolve(self._space, point))
            except ConfigError as error:
                self._misfit = str(error)

    def _nothing_left(self) -> Next:
        if self._running:
            return "wait"
        reason = "every experiment of the space was tried"
        if self._circling:
            reason = f"{MOST_DUPLICATES} draws in a row repeated experiments already tried"
        if self._misfit is None:
            return Exhausted(reason)
        if self._circling:
            reason += " or did not fit together"
        return Exhausted(f"{reason}; a point that does not fit together: {self._misfit}")

    def _ask_queued(self) -> optuna.Trial:
        point, origin, replaced = self._queue.popleft()
        trial = self._journal.ask_for(origin, point)
        for number in replaced:
            self._journal.tell_failed(number, f"{STOPPED}; again as trial {trial.number}")
        return trial

    def _draw(self) -> optuna.Trial:
        sampler = make_sampler(self._space, self._draws)
        self._draws += 1
        return self._journal.ask_sampler(sampler)

    def _tell_duplicate(self, number: int, original: int, scores: Scores) -> None:
        self._journal.tell_duplicate(number, original, scores, self._objective)
        self._on_duplicate(number, original)
