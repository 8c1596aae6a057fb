"""The part of the hardware that changes numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hms_ray.config.experiment import Experiment


@dataclass(frozen=True)
class Placement:
    """Number and kind of devices that train a fold.

    Attributes:
        world_size: number of workers.
        device_class: ``cpu`` or ``cuda``.
        bfloat16: whether every device supports bfloat16; see ``training.precision``.
    """

    world_size: int = 1
    device_class: Literal["cpu", "cuda"] = "cpu"
    bfloat16: bool = False

    def precision(self, experiment: Experiment) -> str:
        """The precision of an experiment, with ``auto`` resolved."""
        precision = experiment.training.precision
        if precision != "auto":
            return precision
        return "bfloat16" if self.device_class == "cuda" and self.bfloat16 else "float32"
