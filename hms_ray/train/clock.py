"""Where the time of a fold's training went."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds of the parts of a fold's training, from when it is made.

    Attributes:
        started: when it was made.
        seconds: name of a part -> seconds spent in it.
        images: how many were trained.
        earlier: seconds up to the start of the first stage that is trained here, where
            they are not those here.
    """

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    earlier: float = 0.0

    def __post_init__(self) -> None:
        self.before = self.started

    def lap(self, name: str) -> None:
        """Adds the time since the lap before to a part."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.before
        self.before = now

    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self.started

    def timing(self) -> dict[str, float]:
        """``total_s``, each part, and ``images_per_s`` of the training."""
        rate = self.images / self.seconds["train_s"]
        return {"total_s": self.total(), **self.seconds, "images_per_s": rate}
