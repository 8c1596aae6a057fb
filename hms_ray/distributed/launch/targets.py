"""The kinds of launch files, by the words of the command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hms_ray.distributed.launch.kubernetes import raycluster, rayjob
from hms_ray.distributed.launch.plan import Plan, make_plan
from hms_ray.distributed.launch.ray_up import aws, gcp, machines
from hms_ray.distributed.launch.slurm import slurm

TARGETS: Final[dict[str, Callable[[Plan], str]]] = {
    "kuberay": rayjob,
    "raycluster": raycluster,
    "slurm": slurm,
    "aws": aws,
    "gcp": gcp,
    "machines": machines,
}


def launch_file(target: str, **options: Any) -> str:
    """The text of a launch file.

    Args:
        target: one of ``TARGETS``.
        options: see ``make_plan``.

    Raises:
        ConfigError: see ``make_plan``; also if a cloud has no such machines.
    """
    return TARGETS[target](make_plan(target, **options))
