"""Progress of a run: its events become state, and state becomes short texts.

A run reports events, plain dictionaries, to one model: ``TrainingProgress`` for sweeps,
ladders and local training, ``LoopProgress`` for counted loops such as packing.
``report.live`` shows a model in a terminal or a pipe.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hms_ray.config.space import Objective
from hms_ray.display.loop_progress import LoopProgress
from hms_ray.display.notice import Event, Notice
from hms_ray.display.time_left import Clock, TimeLeft
from hms_ray.evaluate.metric import named_scores
from hms_ray.text import counted

FoldId = tuple[str, int]
"""(name of the trial or experiment, number of the fold)."""

TRUSTED_SHARE: Final = 0.25
"""Share of the work after which the time left is shown, however few folds are whole."""
TRUSTED_FOLDS: Final = 2
"""Whole folds after which it is shown; at least as many as are trained at once."""


@dataclass
class RunningFold:
    """A fold in training.

    Attributes:
        stage: name of the stage; empty before the first evaluation.
        epoch: epochs done in the stage.
        score: latest score with its name.
        progress: share of the fold's steps that is done.
        reused: share of its steps that the fold store gave.
        place: shown instead of its number.
    """

    stage: str = ""
    epoch: float = 0.0
    score: str = ""
    progress: float = 0.0
    reused: float = 0.0
    place: str = ""

    @property
    def trained(self) -> float:
        """Share of the steps to be trained here that is done."""
        return (self.progress - self.reused) / max(1 - self.reused, 1e-9)


class TrainingProgress:
    """Progress of trials or experiments that are trained fold by fold.

    Events are named by ``event``. Those of a trial have its number, ``trial``; others the
    name of their ``experiment``:

    - ``message``: ``text``.
    - ``trial_started``: ``text``, the trial's point. ``trial_ended``: ``scores``.
    - ``trial_pruned``, ``trial_stopped``: ``reason``.
    - ``trial_failed``, ``trial_diverged``, ``step_failed``: ``reason``, and ``traceback``, which
      is logged.
    - ``folds_reused``: ``keys``, fold -> cache key.
    - ``folds_not_reused``: ``text``, how many and why.
    - ``fold_started``, ``fold_ended``: ``fold``.
    - ``fold_waits``: ``fold``; ``writer``, the process that trains it, in parentheses.
    - ``stages_reused``, ``fold_resumed``, ``evaluation``: ``fold``, and a record of
      ``train_fold``; the first two with the ``history`` so far.

    Args:
        n_folds: folds of a trial.
        n_trials: finished trials that the study ends with; 0 if there are no trials.
        n_finished: how many of them earlier runs finished.
        objective: the score shown.
        best: number and score of the best trial so far.
        work: work of each fold to be trained, in any unit, if known from the start.
        on_event: gets every event as well.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        n_folds: int,
        *,
        n_trials: int = 0,
        n_finished: int = 0,
        objective: Objective = "kl_all",
        best: tuple[int, float] | None = None,
        work: Mapping[FoldId, float] | None = None,
        on_event: Callable[[Event], object] = lambda event: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._n_folds, self._n_trials, self._n_finished = n_folds, n_trials, n_finished
        self._objective, self._best = objective, best
        self._waiting = dict(work or {})
        self._running: dict[FoldId, RunningFold] = {}
        self._trials: set[str] = set()
        self._not_reused: set[str] = set()
        self._n_failed = self._n_trained = self._n_at_once = 0
        self._n_pruned = self._n_diverged = self._n_stopped = 0
        self._done = 0.0
        self._left = TimeLeft(clock)
        self._on_event = on_event

    @property
    def first_estimate_s(self) -> float | None:
        """Seconds of the whole work as first estimated, see ``TimeLeft``."""
        return self._left.first_total_s

    def update(self, event: Event) -> Notice:
        """Takes an event and returns its text; see the class for its fields."""
        self._on_event(event)
        name = f"trial {event['trial']:04d}" if "trial" in event else event.get("experiment")
        notice: Notice = getattr(self, f"_{event['event']}")(name, event)
        return notice

    def table(self) -> list[tuple[str, ...]]:
        """Headings, one row per running fold, one per trial without; or nothing."""
        rows = [
            (name, run.place or str(fold), run.stage or "starting", f"{run.epoch:g}", run.score)
            for (name, fold), run in self._running.items()
        ]
        busy = {name for name, _ in self._running}
        rows += [(name, "-", "starting", "0", "") for name in sorted(self._trials - busy)]
        return [("running", "fold", "stage", "epoch", "score"), *rows] if rows else []

    def summary(self) -> str:
        """Finished and failed, the best trial, and the time left once it can be trusted."""
        if self._n_trials:
            text = f"{self._n_finished} of {counted(self._n_trials, 'trial')} finished"
        else:
            text = f"{self._n_trained} of {counted(self._n_known, 'fold')} trained"
        ended = {"pruned": self._n_pruned, "diverged": self._n_diverged}
        ended |= {"stopped": self._n_stopped, "failed": self._n_failed}
        text += "".join(f", {n} {state}" for state, n in ended.items() if n)
        if self._best is not None:
            number, score = self._best
            text += f", best {named_scores({self._objective: score})} (trial {number:04d})"
        return text + self._left.text()

    @property
    def _n_known(self) -> int:
        return self._n_trained + len(self._waiting)

    def _message(self, name: str, event: Event) -> Notice:
        return Notice(str(event["text"]))

    def _trial_started(self, name: str, event: Event) -> Notice:
        self._trials.add(name)
        self._left.start()
        self._waiting.update({(name, fold): 1.0 for fold in range(self._n_folds)})
        place = self._n_finished + len(self._trials)
        return Notice(f"{name} ({place} of {self._n_trials}): {event['text']}")

    def _folds_reused(self, name: str, event: Event) -> Notice:
        keys = event["keys"]
        for fold in keys:
            self._waiting.pop((name, fold), None)
        return Notice(
            f"{name}: reused from the fold store: fold {', '.join(map(str, keys))}",
            details="\n".join(f"cache key of fold {fold}: {key}" for fold, key in keys.items()),
        )

    def _folds_not_reused(self, name: str, event: Event) -> Notice:
        reason = event["text"].partition(": ")[2]
        again, self._not_reused = reason in self._not_reused, {*self._not_reused, reason}
        # For each trial the same: once is enough on the screen.
        return Notice(f"{name}: {event['text']}", passing=again)

    def _fold_started(self, name: str, event: Event) -> Notice:
        self._fold(name, event)
        return Notice(f"{_place(name, event)} started", passing=True)

    def _stages_reused(self, name: str, event: Event) -> Notice:
        self._skip_done(name, event)
        stages = f"stage{'s' if len(event['stages']) > 1 else ''} {', '.join(event['stages'])}"
        text = f"{stages} reused from the fold store, {event['saved_s']:.0f} s saved"
        return Notice(f"{_place(name, event)}: {text}")

    def _fold_resumed(self, name: str, event: Event) -> Notice:
        fold = self._skip_done(name, event)
        fold.stage, fold.epoch = str(event["stage"]), float(event["epoch"])
        place = f"stage {fold.stage}, epoch {fold.epoch:g}"
        return Notice(f"{_place(name, event)} resumed at {place}")

    def _fold_waits(self, name: str, event: Event) -> Notice:
        self._fold(name, event)
        text = f"waits for its result from another process{event['writer']}"
        return Notice(f"{_place(name, event)} {text}")

    def _skip_done(self, name: str, event: Event) -> RunningFold:
        """Takes what was trained before out of the work of this run."""
        fold, place = self._fold(name, event), (name, event["fold"])
        if place in self._waiting:
            # A fold may resume more than once in a run.
            self._waiting[place] /= max(1 - fold.reused, 1e-9)
        fold.progress = fold.reused = float(event["progress"])
        if place in self._waiting:
            self._waiting[place] *= 1 - fold.reused
        return fold

    def _evaluation(self, name: str, event: Event) -> Notice:
        fold = self._fold(name, event)
        fold.progress = float(event["progress"])
        fold.stage, fold.epoch = str(event["stage"]), float(event["epoch"])
        # A fold may have no row that counts for the objective.
        shown = self._objective if event.get(self._objective) is not None else "kl_all"
        fold.score = named_scores({shown: event.get(shown)})
        self._estimate()
        text = f"{_place(name, event)} stage {fold.stage} epoch {fold.epoch:g}: {fold.score}"
        return Notice(text.rstrip(": ") + self._left.text(), passing=True, level=logging.DEBUG)

    def _fold_ended(self, name: str, event: Event) -> Notice:
        place = name, event["fold"]
        fold = self._running.pop(place, RunningFold())
        self._done += self._waiting.pop(place, 0.0)
        self._n_trained += 1
        self._estimate()
        score = f", last evaluation {fold.score}" if fold.score else ""
        count = "" if self._n_trials else f" ({self._n_trained} of {self._n_known})"
        return Notice(f"{_place(name, event)} done{count}{score}{self._left.text()}")

    def _trial_ended(self, name: str, event: Event) -> Notice:
        number, scores = event["trial"], event["scores"]
        self._leave(name)
        self._n_finished += 1
        score, mark = scores[self._objective], ""
        if score is not None and (self._best is None or score < self._best[1]):
            self._best, mark = (number, score), ", best so far"
        return Notice(f"{name}: {named_scores(scores)}{mark}")

    def _trial_pruned(self, name: str, event: Event) -> Notice:
        self._leave(name)
        self._n_finished += 1
        self._n_pruned += 1
        return Notice(f"{name} pruned {event['reason']}")

    def _trial_stopped(self, name: str, event: Event) -> Notice:
        self._leave(name)
        self._n_stopped += 1
        return Notice(f"{name} {event['reason']}")

    def _trial_diverged(self, name: str, event: Event) -> Notice:
        self._leave(name)
        self._n_finished += 1
        self._n_diverged += 1
        text, details = f"{name} diverged: {event['reason']}", event.get("traceback", "")
        return Notice(text, level=logging.WARNING, details=details)

    def _trial_failed(self, name: str, event: Event) -> Notice:
        self._leave(name)
        self._n_failed += 1
        text, details = f"{name} failed: {event['reason']}", event.get("traceback", "")
        return Notice(text, level=logging.ERROR, details=details)

    _step_failed = _trial_failed

    def _leave(self, name: str) -> None:
        """Forgets the folds of a trial or experiment that has ended."""
        self._trials.discard(name)
        self._waiting = {fold: work for fold, work in self._waiting.items() if fold[0] != name}
        self._running = {fold: run for fold, run in self._running.items() if fold[0] != name}

    def _fold(self, name: str, event: Event) -> RunningFold:
        self._left.start()
        place = "all" if event.get("all_rows") else ""
        fold = self._running.setdefault((name, event["fold"]), RunningFold(place=place))
        self._n_at_once = max(self._n_at_once, len(self._running))
        return fold

    def _estimate(self) -> None:
        running = sum(
            self._waiting.get(place, 0.0) * fold.trained for place, fold in self._running.items()
        )
        n_trials = max(0, self._n_trials - self._n_finished - len(self._trials))
        done = self._done + running
        left = n_trials * self._n_folds + sum(self._waiting.values()) - running
        enough = self._n_trained >= max(TRUSTED_FOLDS, self._n_at_once)
        # Before the first whole fold of a study, most of the time was the start of workers.
        share = done >= TRUSTED_SHARE * (done + left) and (self._n_trained or not self._n_trials)
        self._left.update(done, left, trusted=enough or bool(share))


def _place(name: str, event: Event) -> str:
    return f"{name} on all rows" if event.get("all_rows") else f"{name} fold {event['fold']}"


Progress = TrainingProgress | LoopProgress
