"""What the trials of earlier runs of a study leave to be done."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

from optuna.trial import FrozenTrial, TrialState

from hms_ray.config.space import Space
from hms_ray.errors import ConfigError
from hms_ray.search.distributions import Point, resolve, trial_key
from hms_ray.search.journal import Journal, Scores, scores_of
from hms_ray.search.outcomes import STOP_REASON, Pruned, RecoverScores

INTERRUPTED: Final = "the study was stopped"
"""Beginning of the reason of trials that did not fail by themselves."""
RETRY: Final = "retry"
"""Origin of points that failed in an earlier run and are tried again on request."""
RERUN: Final = "rerun"
"""Origin of points whose trials were interrupted."""
MAX_ATTEMPTS: Final = 2
"""Attempts at a start point that fails by itself, over all runs."""

Queued = tuple[Point, str, list[int]]
"""A point, its origin, and the interrupted trials that it replaces."""


def counts(scores: Scores | None, objective: str) -> TypeGuard[Scores]:
    """Whether a trial has scores and its objective is a finite number."""
    value = None if scores is None else scores[objective]
    return value is not None and math.isfinite(value)


class EarlierTrials:
    """The trials of a journal, by the digest of what they trained.

    Results that were stored but not recorded are recorded; so are interrupted draws, as FAIL.

    Args:
        space: search space with its study's settings.
        journal: the trials.
        recover: returns the outcome of a trial that was stored but not recorded, or None.

    Attributes:
        finished: digest of the experiment -> number and scores of its first trial.
        pruned: the same with the reason, of pruned and diverged trials.
        failed: number of the trial, of experiments that a user has stopped.
        n_draws: draws of the sampler so far.
    """

    def __init__(self, space: Space, journal: Journal, recover: RecoverScores) -> None:
        self._space, self._journal, self._recover = space, journal, recover
        self.finished: dict[str, tuple[int, Scores]] = {}
        self.pruned: dict[str, tuple[int, str]] = {}
        self.failed: dict[str, int] = {}
        self._stale: dict[str, tuple[Point, list[int]]] = {}
        self._retried: dict[str, Point] = {}
        self._invalid: list[Point] = []
        self._trials = journal.trials()
        self.n_draws = sum(trial.user_attrs.get("origin") == "sampler" for trial in self._trials)
        for trial in self._trials:
            key = self._key(trial)
            if key is not None:
                self._add(key, trial)

    def _key(self, trial: FrozenTrial) -> str | None:
        """The digest of what a trial trains; None if it has no valid point."""
        running = trial.state == TrialState.RUNNING
        if not self._journal.has_point(trial):
            if running:
                # Killed while drawing: the same draw is made again.
                self._journal.fail(trial.number, f"{INTERRUPTED} while drawing")
            return None
        try:
            return trial_key(resolve(self._space, trial.params))
        except ConfigError as error:
            # It is invalid in every later run too.
            self._invalid.append(trial.params)
            if running:
                self._journal.fail(trial.number, str(error))
            return None

    def _add(self, key: str, trial: FrozenTrial) -> None:
        if trial.state in (TrialState.RUNNING, TrialState.FAIL):
            self._add_without_result(key, trial)
        elif "duplicate_of" in trial.user_attrs:
            return
        elif trial.state == TrialState.COMPLETE:
            self.finished.setdefault(key, (trial.number, scores_of(trial)))
        elif trial.state == TrialState.PRUNED:
            reason = str(trial.user_attrs.get("reason", "pruned"))
            self.pruned.setdefault(key, (trial.number, reason))

    def _add_without_result(self, key: str, trial: FrozenTrial) -> None:
        number, running = trial.number, trial.state == TrialState.RUNNING
        # Of a failed trial too: its process was lost, and its result seen too late.
        outcome = self._recover(number)
        if isinstance(outcome, Pruned):
            if running:
                self._journal.prune(number, outcome.reason)
            self.pruned.setdefault(key, (number, outcome.reason))
        elif counts(outcome, self._space.objective):
            if running:
                self._journal.complete(number, outcome, self._space.objective)
            self.finished.setdefault(key, (number, outcome))
        elif running:
            self._stale.setdefault(key, (trial.params, []))[1].append(number)
        elif trial.user_attrs.get("reason") == STOP_REASON:
            self.failed[key] = number
        else:
            self._retried[key] = trial.params

    def queue(self, retry_failed: bool) -> Iterator[Queued]:
        """Points to propose before any other, first to last: see ``Proposals``.

        Args:
            retry_failed: whether failed experiments are tried again.
        """
        settled = self._invalid + [
            trial.params
            for trial in self._trials
            if trial.state != TrialState.FAIL or trial.user_attrs.get("reason") == STOP_REASON
        ]
        known: set[str] = {*self.finished, *self.pruned, *self.failed, *self._stale}
        for key, point in self._retried.items():
            if retry_failed and key not in known:
                settled.append(point)
                yield point, RETRY, []
        for point, numbers in self._stale.values():
            yield point, RERUN, numbers
        failed = [
            trial.params
            for trial in self._trials
            if trial.state == TrialState.FAIL and not was_interrupted(trial.user_attrs)
        ]
        # A point that always fails must not block the others: they come first.
        for n_failures in range(MAX_ATTEMPTS):
            for point in self._space.start:
                if point not in settled and failed.count(point) == n_failures:
                    yield dict(point), "start", []


def was_interrupted(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial with these attributes of Optuna ended with its study."""
    return str(attributes.get("reason", "")).startswith(INTERRUPTED)
