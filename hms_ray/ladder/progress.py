"""A ladder's progress as lasting lines in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from hms_ray.report.progress import clock_text, stamped

EVALUATION_LINE_S: Final = 30.0
"""A fold that takes longer says how it goes, at most so often."""


class LadderLines:
    """Turns what happens in a ladder into lines of at most 80 characters.

    Args:
        costs: key of each fold to be trained -> its share of the work.
        n_folds: folds of an experiment.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        costs: Mapping[str, float],
        n_folds: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._costs, self._n_folds, self._clock = dict(costs), n_folds, clock
        self._partial: dict[str, float] = {}
        self._given: dict[str, float] = {}
        self._done: set[str] = set()
        self._start = self._last_line = clock()

    def lines(self, event: dict[str, Any]) -> list[str]:
        """Lines for one event; most evaluations give none.

        Args:
            event: ``event`` is ``said`` (with ``text``), ``fold_started``,
                ``evaluation`` (with ``progress``, ``stage``, ``epoch`` and ``kl_all``),
                ``stages_reused`` (with ``progress``, ``stages`` and ``saved_s``),
                ``fold_ended`` or ``step_failed`` (with ``reason`` and the ``keys`` of its
                folds that were missing); all but the first have ``experiment``, the step's
                name, and but for ``step_failed`` ``fold`` and ``key``.
        """
        make = getattr(self, f"_{event['event']}")
        return [text for line in make(event) for text in self._stamped(line)]

    def _said(self, event: dict[str, Any]) -> list[str]:
        return [str(event["text"])]

    def _fold_started(self, event: dict[str, Any]) -> list[str]:
        self._partial[event["key"]] = 0.0
        return []

    def _evaluation(self, event: dict[str, Any]) -> list[str]:
        given = self._given.get(event["key"], 0.0)
        self._partial[event["key"]] = (float(event["progress"]) - given) / max(1 - given, 1e-9)
        if self._clock() - self._last_line < EVALUATION_LINE_S:
            return []
        score = event.get("kl_all")
        text = f"KL {score:.4f}" if score is not None else ""
        return [f"{self._fold(event)} {event['stage']} {event['epoch']:g} {text}{self._tail()}"]

    def _stages_reused(self, event: dict[str, Any]) -> list[str]:
        key, given = event["key"], float(event["progress"])
        # Work that nobody does again is none, for the estimate.
        self._costs[key] = self._costs.get(key, 0.0) * (1 - given)
        self._given[key] = given
        stages = f"stage{'s' if len(event['stages']) > 1 else ''} {', '.join(event['stages'])}"
        return [f"{self._fold(event)} {stages} from the store, {event['saved_s']:.0f} s saved"]

    def _fold_ended(self, event: dict[str, Any]) -> list[str]:
        self._partial.pop(event["key"], None)
        self._done.add(event["key"])
        return [f"{self._fold(event)} done{self._tail()}"]

    def _step_failed(self, event: dict[str, Any]) -> list[str]:
        # What it leaves undone is no work that waits; what it has done stays done.
        for key in set(event.get("keys", ())) - self._done:
            self._partial.pop(key, None)
            self._costs.pop(key, None)
        return [f"{event['experiment']} failed: {event['reason']}"]

    def _fold(self, event: dict[str, Any]) -> str:
        # Another group may end a fold of a step that has failed meanwhile.
        total = len(self._costs.keys() | self._done)
        place = f"{len(self._done):>{len(str(total))}}/{total}"
        return f"{place} {event['experiment']} fold {event['fold'] + 1}/{self._n_folds}"

    def _tail(self) -> str:
        left = self.seconds_left()
        return "" if left is None else f", {clock_text(left)} left"

    def seconds_left(self) -> float | None:
        """Estimate from the work done in this run; None before there is any."""
        total = sum(self._costs.values())
        done = sum(self._costs.get(key, 0.0) for key in self._done)
        done += sum(self._costs.get(key, 0.0) * part for key, part in self._partial.items())
        if total <= 0 or done < 0.005 * total:
            return None
        return max(0.0, total - done) * (self._clock() - self._start) / done

    def _stamped(self, line: str) -> list[str]:
        self._last_line = self._clock()
        return stamped(line, self._last_line - self._start)
