"""What a worker group needs and how it affects numbers; light, since every process imports it."""

from __future__ import annotations

from hms_ray.config.space import ResourcesConfig
from hms_ray.experiment.placement import Placement


def placement(resources: ResourcesConfig, bfloat16: bool = False) -> Placement:
    """The part of a group's resources that affects its numbers."""
    return Placement(
        world_size=resources.workers,
        device_class=resources.device_class,
        bfloat16=bfloat16,
    )


def worker_resources(resources: ResourcesConfig) -> dict[str, float]:
    """One worker's resources by Ray's names."""
    needed = {"CPU": float(resources.cpus_per_worker), "GPU": float(resources.gpus_per_worker)}
    return {name: amount for name, amount in needed.items() if amount > 0}
