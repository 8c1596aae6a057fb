"""Times the parts of a fold's training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Clock:
    """Seconds per part of a fold's training, counted from construction.

    Attributes:
        started: time of construction.
        seconds: name of a part -> seconds spent in it.
        images: number of images trained.
        offset_s: seconds to add to ``total`` so that resumed stages count as they took.
        earlier_s: seconds of the processes that trained the fold up to its checkpoint.
    """

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    offset_s: float = 0.0
    earlier_s: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.started
        self._counted = 0, 0.0

    def lap(self, name: str) -> None:
        """Adds the time since the previous lap to a part."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def total(self) -> float:
        """Seconds since construction."""
        return time.perf_counter() - self.started

    def recent_rate(self) -> float:
        """Images per second of training since the previous call."""
        images, seconds = self.images, self.seconds.get("train_s", 0.0)
        earlier, self._counted = self._counted, (images, seconds)
        return (images - earlier[0]) / max(seconds - earlier[1], 1e-9)

    def timing(self) -> dict[str, float]:
        """``total_s``, the seconds of each part, and ``images_per_s`` of training."""
        rate = self.images / self.seconds["train_s"]
        return {"total_s": self.earlier_s + self.total(), **self.seconds, "images_per_s": rate}

    def state(self) -> dict[str, Any]:
        """What ``resume`` continues from; plain data."""
        total_s = self.earlier_s + self.total()
        return {"total_s": total_s, "seconds": dict(self.seconds), "images": self.images}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Adds what an earlier process had timed by its last checkpoint."""
        self.earlier_s = state["total_s"]
        self.images += state["images"]
        for name, seconds in state["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._counted = self.images, self.seconds.get("train_s", 0.0)
