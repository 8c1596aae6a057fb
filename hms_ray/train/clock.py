"""Times the parts of a fold's training."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds per part of a fold's training, counted from construction.

    Attributes:
        started: time of construction.
        seconds: name of a part -> seconds spent in it.
        images: number of images trained.
        offset_s: seconds to add to ``total`` so that resumed stages count as they took.
    """

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    offset_s: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.started

    def lap(self, name: str) -> None:
        """Adds the time since the previous lap to a part."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def total(self) -> float:
        """Seconds since construction."""
        return time.perf_counter() - self.started

    def timing(self) -> dict[str, float]:
        """``total_s``, the seconds of each part, and ``images_per_s`` of training."""
        rate = self.images / self.seconds["train_s"]
        return {"total_s": self.total(), **self.seconds, "images_per_s": rate}
