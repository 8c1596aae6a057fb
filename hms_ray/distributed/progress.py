"""A sweep's progress as lasting lines in the terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

import ray

from hms_ray.config.space import Objective
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.report.progress import clock_text, stamped

EPOCH_LINE_S = 5.0
"""At most one line on epochs in so many seconds; folds and trials always get theirs."""

POLL_S = 0.5
GOODBYE_S = 10.0


class ProgressLines:
    """Turns what happens in a study into lines of at most 80 characters.

    Args:
        n_trials: finished trials that the study ends with.
        n_finished: how many of them earlier runs finished.
        n_folds: folds of a trial.
        objective: the score shown.
        best: number and score of the best trial so far.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        n_trials: int,
        n_finished: int,
        n_folds: int,
        objective: Objective,
        best: tuple[int, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._n_trials, self._n_finished, self._n_folds = n_trials, n_finished, n_folds
        self._objective = objective
        self._best = best
        self._clock = clock
        self._start = self._last_line = clock()
        self._trained = 0.0
        self._partial: dict[tuple[int, int], float] = {}
        self._given: dict[tuple[int, int], float] = {}
        self._left_of: dict[int, int] = {}
        self._places: dict[int, int] = {}

    def lines(self, event: dict[str, Any]) -> list[str]:
        """Lines for one event; most records of an epoch give none.

        Args:
            event: ``event`` names it, ``trial`` its trial's number. ``trial_started``
                has ``text`` and ``reused`` (folds), ``trial_ended`` ``scores`` and
                ``minutes``, ``trial_failed`` ``reason``; ``fold_started``,
                ``fold_ended``, ``stages_reused`` and ``evaluation`` have ``fold``, the
                last two also a record of ``train_fold``; ``said`` has ``text``.
        """
        make = getattr(self, f"_{event['event']}")
        lines: list[str] = make(event)
        return [text for line in lines for text in self._stamped(line)]

    def _trial_started(self, event: dict[str, Any]) -> list[str]:
        trial, reused = event["trial"], list(event["reused"])
        self._places[trial] = self._n_finished + len(self._left_of) + 1
        self._left_of[trial] = self._n_folds - len(reused)
        lines = [f"{self._name(trial)}: {event['text']}"]
        if reused:
            folds = ", ".join(map(str, reused))
            lines.append(f"{self._name(trial)}: reused from the store: fold {folds}")
        return lines

    def _said(self, event: dict[str, Any]) -> list[str]:
        return [str(event["text"])]

    def _fold_started(self, event: dict[str, Any]) -> list[str]:
        return []

    def _stages_reused(self, event: dict[str, Any]) -> list[str]:
        place = event["trial"], event["fold"]
        self._partial[place] = self._given[place] = float(event["progress"])
        names = ", ".join(event["stages"])
        stages = f"stages {names}" if len(event["stages"]) > 1 else f"stage {names}"
        return [f"{self._fold(event)} {stages} from the store, {event['saved_s']:.0f} s saved"]

    def _evaluation(self, event: dict[str, Any]) -> list[str]:
        self._partial[event["trial"], event["fold"]] = float(event["progress"])
        if self._clock() - self._last_line < EPOCH_LINE_S:
            return []
        score = event.get(self._objective)
        text = f"KL {score:.4f}" if score is not None else ""
        stage = str(event["stage"])[:6]
        return [f"{self._fold(event)} {stage} {event['epoch']:g} {text}{self._tail()}"]

    def _fold_ended(self, event: dict[str, Any]) -> list[str]:
        place = event["trial"], event["fold"]
        self._partial.pop(place, None)
        self._trained += 1 - self._given.pop(place, 0.0)
        if event["trial"] in self._left_of:
            self._left_of[event["trial"]] -= 1
        return [f"{self._fold(event)} done{self._tail()}"]

    def _trial_ended(self, event: dict[str, Any]) -> list[str]:
        trial, score = event["trial"], event["scores"][self._objective]
        self._leave(trial)
        self._n_finished += 1
        new_best = self._best is None or score < self._best[1]
        if new_best:
            self._best = (trial, score)
        scores = "  ".join(
            f"{SCORE_NAMES[name]} {'-' if value is None else f'{value:.4f}'}"
            for name, value in event["scores"].items()
        )
        mark = "  best so far" if new_best else ""
        return [f"{self._name(trial)}: {scores}{mark}"]

    def _trial_failed(self, event: dict[str, Any]) -> list[str]:
        trial = event["trial"]
        name = self._name(trial)
        self._leave(trial)
        return [f"{name} failed: {event['reason']}"]

    def _leave(self, trial: int) -> None:
        self._left_of.pop(trial, None)
        for key in [key for key in self._partial if key[0] == trial]:
            del self._partial[key]
            self._given.pop(key, None)

    def _name(self, trial: int) -> str:
        place = self._places.get(trial, self._n_finished + 1)
        return f"trial {trial:04d} ({place}/{self._n_trials})"

    def _fold(self, event: dict[str, Any]) -> str:
        return f"trial {event['trial']:04d} fold {event['fold'] + 1}/{self._n_folds}"

    def _tail(self) -> str:
        best = f", best {self._best[1]:.4f}" if self._best else ""
        left = self.seconds_left()
        return best + (f", {clock_text(left)} left" if left is not None else "")

    def seconds_left(self) -> float | None:
        """Estimate from the folds trained in this run; None before there is any."""
        done = self._trained + sum(self._partial.values()) - sum(self._given.values())
        if done < 0.1:
            return None
        waiting = max(0, self._n_trials - self._n_finished - len(self._left_of))
        folds_left = (
            waiting * self._n_folds + sum(self._left_of.values()) - sum(self._partial.values())
        )
        return max(0.0, folds_left) * (self._clock() - self._start) / done

    def _stamped(self, line: str) -> list[str]:
        self._last_line = self._clock()
        return stamped(line, self._last_line - self._start)


class _Events:
    """An actor that collects events of all processes for the study's process."""

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any]) -> None:
        self._waiting.append(event)

    def take(self) -> list[dict[str, Any]]:
        """All events since the last call."""
        taken, self._waiting = self._waiting, []
        return taken


class TrialReport:
    """Sends a trial's events to the terminal, from any process; never waits.

    Args:
        events: handle of the actor that collects them.
        trial: the trial's number, added to every event.
    """

    def __init__(self, events: Any, trial: int) -> None:
        self._events = events
        self._trial = trial

    def __call__(self, event: dict[str, Any]) -> None:
        """Sends one event."""
        self._events.put.remote({**event, "trial": self._trial})


class Lines(Protocol):
    """Turns events into lines to be printed."""

    def lines(self, event: dict[str, Any]) -> list[str]:
        """Lines for one event, none for most."""


class ProgressPrinter:
    """Prints events as they come, from a thread, while a block runs.

    Args:
        lines: makes lines of events.
        stream: where they go; standard output where absent.
    """

    def __init__(self, lines: Lines, stream: TextIO | None = None) -> None:
        self._lines = lines
        self._stream = stream or sys.stdout
        self._stopping = threading.Event()
        self.events = ray.remote(num_cpus=0)(_Events).remote()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> ProgressPrinter:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=GOODBYE_S)

    def show(self, event: dict[str, Any]) -> None:
        """Sends an event of this process the way that all others take."""
        self.events.put.remote(event)

    def say(self, text: str) -> None:
        """Prints a line of its own, in its turn."""
        self.show({"event": "said", "text": text})

    def _follow(self) -> None:
        stopping = False
        asked = None
        while not stopping:
            # Once more after the end, for what was sent before it.
            stopping = self._stopping.wait(POLL_S)
            asked = asked or self.events.take.remote()
            try:
                events = ray.get(asked, timeout=GOODBYE_S)
            except ray.exceptions.GetTimeoutError:
                # A busy machine; the answer comes yet, and holds what was sent before.
                continue
            except ray.exceptions.RayError:
                return
            asked = None
            for event in events:
                for line in self._lines.lines(event):
                    print(line, file=self._stream, flush=True)
