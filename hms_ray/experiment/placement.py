"""Where folds are trained, as far as it changes their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hms_ray.config.experiment import Experiment


@dataclass(frozen=True)
class Placement:
    """Where folds are trained, as far as it changes their numbers.

    Attributes:
        world_size: workers of a group.
        device_class: ``cpu`` or ``cuda``.
        bfloat16: whether every device has bfloat16; decides what ``auto`` means.
    """

    world_size: int = 1
    device_class: Literal["cpu", "cuda"] = "cpu"
    bfloat16: bool = False

    def precision(self, experiment: Experiment) -> str:
        """The precision that an experiment is trained in here."""
        asked = experiment.training.precision
        if asked != "auto":
            return asked
        return "bfloat16" if self.device_class == "cuda" and self.bfloat16 else "float32"
