"""The part of the hardware that changes numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from hms_ray.config.experiment import Experiment
from hms_ray.config.space import ResourcesConfig
from hms_ray.errors import ConfigError

DeviceClass = Literal["cpu", "cuda"]

_TINY: Final = 1e-6
"""Ray counts in ten-thousandths; a sum of such floats may be slightly too small."""


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


def require_sync_batchnorm(sync_batchnorm: bool, device_class: DeviceClass, workers: int) -> None:
    """Checks that a worker group can share batch statistics.

    Raises:
        ConfigError: for several workers on CPUs, which torch's ``SyncBatchNorm`` lacks.
    """
    if sync_batchnorm and workers > 1 and device_class == "cpu":
        raise ConfigError(
            "training.sync_batchnorm needs GPUs in a group of several workers",
            got=f"{workers} workers on CPUs",
            fix="Set training.sync_batchnorm: false, or use one worker (resources.workers: 1) or "
            "GPUs (resources.gpus_per_worker: 1).",
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


def workers_that_fit(cpus: float, gpus: float, resources: ResourcesConfig) -> int:
    """How many workers fit on one machine at once.

    Args:
        cpus: logical CPUs of the machine.
        gpus: its GPUs.
        resources: of a worker.
    """
    available = cpus / resources.cpus_per_worker, math.inf
    if (share := resources.gpus_per_worker) > 0:
        # A fraction of a GPU must fit on one device.
        whole = math.floor(gpus + _TINY) * math.floor(1 / share + _TINY)
        available = available[0], whole if share < 1 else gpus / share
    return math.floor(min(available) + _TINY)
