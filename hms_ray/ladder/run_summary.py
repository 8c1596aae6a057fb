"""Facts of a ladder's run: data, command, seed, machine, date."""

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

OracleScores = Mapping[str, Mapping[str, float | None]]
"""Oracle -> score (``kl_all``, ``kl_4``, ``kl_10``) -> nats."""


def run_facts(
    ladder: Ladder,
    data_dir: Path,
    simulator: Mapping[str, Any] | None,
    oracles: OracleScores | None,
    *,
    scale: str,
    argv: list[str],
) -> dict[str, Any]:
    """Plain data on where, how and when a ladder was run (``steps_file.ABOUT_KEYS``).

    Args:
        ladder: the steps.
        data_dir: competition folder.
        simulator: how the folder was simulated; None for others.
        oracles: KL of the oracles; None if unknown.
        scale: name of the overlay, or ``full``.
        argv: command line without the program.
    """
    experiment = next(iter(ladder.experiments().values()))
    return {
        "data": data_dir.name,
        "simulated": simulator is not None,
        "simulator": None if simulator is None else dict(simulator),
        "scale": scale,
        "command": shlex.join(["hms-ray", *argv]),
        "seed": experiment.training.seed,
        "machine": {
            "cpus": os.cpu_count(),
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "hms_ray": __version__,
            **{name: version(name) for name in ("torch", "timm")},
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "floors": None if oracles is None else {name: dict(of) for name, of in oracles.items()},
        "rows": experiment.data.model_dump(mode="json"),
    }
