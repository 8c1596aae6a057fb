"""The time left of a run, estimated from the work that it has done."""

from __future__ import annotations

from collections.abc import Callable

from hms_ray.text import clock_text

Clock = Callable[[], float]
"""Returns seconds; monotonic."""


class TimeLeft:
    """Time left, estimated from the work done in this run; counts down between updates.

    Args:
        clock: seconds, monotonic.

    Attributes:
        first_total_s: seconds from the beginning of work to its end, as the first trusted
            estimate had it; None before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started: float | None = None
        self._end: float | None = None
        self.first_total_s: float | None = None

    def start(self) -> float:
        """Marks the beginning of work at the first call; returns the seconds since then."""
        if self._started is None:
            self._started = self._clock()
        return self._clock() - self._started

    def update(self, done: float, left: float, *, trusted: bool) -> None:
        """Estimates anew.

        Args:
            done: work done in this run.
            left: work left, in the same unit.
            trusted: whether enough is done for an estimate.
        """
        known = trusted and done > 0 and left > 0
        self._end = self._clock() + left * self.start() / done if known else None
        if known and self.first_total_s is None:
            self.first_total_s = self.start() * (1 + left / done)

    def text(self) -> str:
        """Such as ``, 4:05 left``; empty until the estimate can be trusted."""
        if self._end is None:
            return ""
        return f", {clock_text(max(0.0, self._end - self._clock()))} left"
