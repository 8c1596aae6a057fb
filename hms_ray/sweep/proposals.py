"""Which point to try next, told by Optuna; duplicates and resumption are settled here."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from hms_ray.config import Experiment, Space
from hms_ray.errors import ConfigError, StudyError
from hms_ray.sweep.space import (
    Point,
    distributions,
    make_sampler,
    n_points,
    points,
    resolve,
    trial_key,
)

STUDY_NAME = "study"
"""Name inside the journal, which holds one study."""

MOST_DUPLICATES = 20
"""Draws in a row that may come to nothing new before other means are taken."""

MOST_POINTS = 2_000
"""Largest space that is listed point by point; each takes about a millisecond."""

Scores = Mapping[str, float | None]
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
        self._distributions = distributions(space)
        self._study, self._storage = _open_study(journal)
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
        for _ in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            # A kill between enqueueing and asking; asking makes it RUNNING.
            self._study.ask(self._distributions)
        trials = self._study.get_trials(deepcopy=False)
        self._draws = sum(trial.user_attrs.get("origin") == "sampler" for trial in trials)
        stale: dict[str, tuple[Point, list[int]]] = {}
        settled = [trial.params for trial in trials if trial.state != TrialState.FAIL]
        for trial in trials:
            if trial.params.keys() != self._distributions.keys():
                if trial.state == TrialState.RUNNING:
                    # A kill while it was being drawn: the same draw comes again.
                    self._tell_failed(trial.number, f"{STOPPED} while drawing")
                continue
            try:
                key = trial_key(resolve(self._space, trial.params))
            except ConfigError as error:
                # It will fit in no later run either.
                settled.append(trial.params)
                if trial.state == TrialState.RUNNING:
                    self._tell_failed(trial.number, str(error))
                continue
            if trial.state == TrialState.RUNNING:
                scores = recover(trial.number)
                if scores is None:
                    stale.setdefault(key, (trial.params, []))[1].append(trial.number)
                else:
                    self._tell_complete(trial.number, scores)
                    self._finished.setdefault(key, (trial.number, scores))
            elif trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs:
                self._finished.setdefault(key, (trial.number, _scores(trial)))
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
            found = self._settle(self._ask("sampler"))
            if found is not None:
                return found
        if self._keys is None:
            self._circling = True
            return self._nothing_left()
        # The sampler keeps to its favourites: the rest is few and can be listed.
        point = next(point for point, key in self._keys if not self._tried(key))
        return self._settle(self._ask("listed", point)) or "wait"

    def complete(self, number: int, scores: Scores) -> None:
        """Tells that a trial finished.

        Args:
            number: the proposal's.
            scores: ``kl_all``, ``kl_4``, ``kl_10``; the study's objective is the value.
        """
        value = scores[self._space.study.objective]
        if value is None or not math.isfinite(value):
            self.fail(number, f"{self._space.study.objective} is {value}")
            return
        self._finished[self._end(number)] = (number, scores)
        self._tell_complete(number, scores)
        for follower in self._followers.pop(number, []):
            self._tell_duplicate(follower, number, scores)

    def fail(self, number: int, reason: str) -> None:
        """Tells that a trial failed; its experiment is not proposed again in this run."""
        self._failed[self._end(number)] = number
        for failed in (number, *self._followers.pop(number, [])):
            self._tell_failed(failed, reason)

    def prune(self, number: int, values: Mapping[int, float]) -> None:
        """Tells that a trial was stopped early.

        Args:
            number: the proposal's.
            values: objective after so many folds, reported before the state is told.
        """
        self._failed[self._end(number)] = number
        for pruned in (number, *self._followers.pop(number, [])):
            for step, value in values.items():
                self._storage.set_trial_intermediate_value(self._id(pruned), step, value)
            self._study.tell(pruned, state=TrialState.PRUNED)

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
            self._tell_failed(trial.number, self._misfit)
            return None
        key = trial_key(experiment)
        if key in self._finished:
            self._tell_duplicate(trial.number, *self._finished[key])
        elif key in self._running:
            self._followers.setdefault(self._running[key], []).append(trial.number)
        elif key in self._failed:
            self._tell_failed(trial.number, f"failed before as trial {self._failed[key]}")
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
        trial = self._ask(origin, point)
        for number in replaced:
            self._tell_failed(number, f"{STOPPED}; again as trial {trial.number}")
        return trial

    def _ask(self, origin: str, point: Point | None = None) -> optuna.Trial:
        if point is not None:
            self._study.enqueue_trial(point)
        else:
            self._study.sampler = make_sampler(self._space, self._draws)
            self._draws += 1
        trial = self._study.ask(self._distributions)
        trial.set_user_attr("origin", origin)
        return trial

    def _tell_complete(self, number: int, scores: Scores) -> None:
        for name, score in scores.items():
            self._set(number, name, score)
        self._study.tell(number, scores[self._space.study.objective])

    def _tell_duplicate(self, number: int, original: int, scores: Scores) -> None:
        self._set(number, "duplicate_of", original)
        self._tell_complete(number, scores)
        self._on_duplicate(number, original)

    def _tell_failed(self, number: int, reason: str) -> None:
        self._set(number, "reason", reason)
        self._study.tell(number, state=TrialState.FAIL)

    def _set(self, number: int, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._id(number), name, value)

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(STUDY_NAME)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)


def _scores(trial: FrozenTrial) -> Scores:
    return {name: trial.user_attrs.get(name) for name in ("kl_all", "kl_4", "kl_10")}


def _drop_torn_line(journal: Path) -> None:
    """Cuts off a last line that was not written whole, before another is joined to it.

    A full disk or a lost machine leaves one; what it told is told again.
    """
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if 0 < whole < len(content):
        os.truncate(journal, whole)


def _open_study(journal: Path) -> tuple[optuna.Study, JournalStorage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        _drop_torn_line(journal)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(
            storage=storage, study_name=STUDY_NAME, direction="minimize", load_if_exists=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            "Optuna's journal must be readable",
            got=f"{type(error).__name__}: {error}",
            where=journal,
            fix="Move the journal away to search anew; finished folds stay in the store.",
        ) from None
    return study, storage
