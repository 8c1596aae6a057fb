"""Progress of a counted loop, such as packing."""

from __future__ import annotations

import logging
import time
from typing import Final

from hms_ray.display.notice import Event, Notice
from hms_ray.display.time_left import Clock, TimeLeft

TRUSTED_LOOP: Final = (0.05, 3.0)
"""Share of the work and seconds after which a counted loop shows its time left."""


class LoopProgress:
    """Progress of a counted loop.

    Its events are ``counted``, with ``done`` and ``total``, and ``ended``. What the first
    one counts as done was done before this run.

    Args:
        name: of the work, such as ``packing eeg``.
        unit: what is counted, in the plural.
        clock: seconds, monotonic.
    """

    def __init__(self, name: str, unit: str, clock: Clock = time.monotonic) -> None:
        self._name, self._unit = name, unit
        self._before: int | None = None
        self._done = self._total = 0
        self._left = TimeLeft(clock)

    def update(self, event: Event) -> Notice:
        """Takes an event; see the class."""
        if event["event"] == "ended":
            return Notice(f"{self._name}: {self._done:,} {self._unit} done")
        self._done, self._total = event["done"], event["total"]
        if self._before is None:
            self._before = self._done
        done, left = self._done - self._before, self._total - self._done
        share, seconds = TRUSTED_LOOP
        trusted = self._left.start() >= seconds and done >= share * (done + left)
        self._left.update(done, left, trusted=trusted)
        return Notice(self.summary(), passing=True, level=logging.DEBUG)

    def table(self) -> list[tuple[str, ...]]:
        """Nothing: the summary is all there is."""
        return []

    def summary(self) -> str:
        """Such as ``packing eeg: 120 of 300 windows, 1:05 left``."""
        count = f"{self._done:,} of {self._total:,} {self._unit}"
        return f"{self._name}: {count}{self._left.text()}"
