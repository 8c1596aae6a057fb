"""Signs of life of a rank that trains a fold."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


class Pulse:
    """Written by the training of one fold, and read by a thread that watches it.

    A step costs two calls, about 0.3 microseconds.

    Attributes:
        at: when the rank was last known to work, by ``time.monotonic``.
        position: how many places the rank has passed that all ranks pass in the same order. The
            others wait for a rank that is behind.
        begun: whether loading and compilation are over; before, nothing is expected.
        on_begin: called once when they are.
    """

    __slots__ = ("at", "begun", "on_begin", "position")

    def __init__(self) -> None:
        self.at, self.position, self.begun = 0.0, 0, False
        self.on_begin: Callable[[], None] | None = None

    def begin(self) -> None:
        """Loading and compilation are over: steps follow."""
        self.at, self.begun = time.monotonic(), True
        if self.on_begin is not None:
            self.on_begin()

    def beat(self) -> None:
        """This rank works, such as on a report that the others do not make."""
        self.at = time.monotonic()

    def advance(self) -> None:
        """Passes a place that all ranks pass, such as a batch or a collective."""
        self.position += 1
        self.at = time.monotonic()


@dataclass(frozen=True)
class RankPulse:
    """How far a rank is with a fold whose loading has ended.

    Attributes:
        place: of the job in the sequence of its seat.
        position: see ``Pulse``.
        age_s: seconds since its last sign of life.
        log: its log file.
    """

    place: int
    position: int
    age_s: float
    log: str
