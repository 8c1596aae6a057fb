"""The part of the hardware that changes numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hms_ray.config.experiment import Experiment
from hms_ray.errors import ConfigError

DeviceClass = Literal["cpu", "cuda"]


def require_precision(precision: str, device_class: DeviceClass) -> None:
    """Checks that a device class can train in a precision.

    Raises:
        ConfigError: for float16 on a CPU.
    """
    if precision == "float16" and device_class == "cpu":
        raise ConfigError(
            "training.precision: float16 needs a GPU",
            got="training on a CPU",
            fix="Use training.precision: auto, or a GPU (resources.gpus_per_worker: 1).",
        )


@dataclass(frozen=True)
class Placement:
    """Number and kind of devices that train a fold.

    Attributes:
        world_size: number of workers.
        device_class: ``cpu`` or ``cuda``.
        bfloat16: whether every device supports bfloat16; see ``training.precision``.
    """

    world_size: int = 1
    device_class: DeviceClass = "cpu"
    bfloat16: bool = False

    def precision(self, experiment: Experiment) -> str:
        """The precision of an experiment, with ``auto`` resolved.

        Raises:
            ConfigError: see ``require_precision``.
        """
        precision = experiment.training.precision
        require_precision(precision, self.device_class)
        if precision != "auto":
            return precision
        if self.device_class == "cpu":
            return "float32"
        return "bfloat16" if self.bfloat16 else "float16"
