"""What is told of a ladder's run beside its figures."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hms_ray import __version__
from hms_ray.ladder.steps import Ladder

Floors = Mapping[str, Mapping[str, float | None]]
"""Floor -> score (``kl_all``, ``kl_4``, ``kl_10``) -> nats."""


def about_run(
    ladder: Ladder,
    data_dir: Path,
    simulator: Mapping[str, Any] | None,
    floors: Floors | None,
    *,
    scale: str,
    words: list[str],
) -> dict[str, Any]:
    """Plain data on where, how and when a ladder was run.

    Args:
        ladder: the steps.
        data_dir: competition folder.
        simulator: how the folder was simulated; None for others.
        floors: KL that the simulated votes leave; None where not known.
        scale: name of the overlay, or ``full``.
        words: the command line's, without the program.
    """
    experiment = next(iter(ladder.experiments().values()))
    return {
        "data": data_dir.name,
        "simulated": simulator is not None,
        "simulator": None if simulator is None else dict(simulator),
        "scale": scale,
        "command": shlex.join(["hms-ray", *words]),
        "seed": experiment.training.seed,
        "machine": {
            "cpus": os.cpu_count(),
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "hms_ray": __version__,
            **{name: version(name) for name in ("torch", "timm")},
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "floors": None if floors is None else {name: dict(of) for name, of in floors.items()},
        "rows": experiment.data.model_dump(mode="json"),
    }
