"""Versions and machines of a run, for ``environment.json``."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import hms_ray
from hms_ray.distributed.cluster import Cluster

PACKAGES = (
    *("ray", "torch", "timm", "optuna", "numpy", "pandas", "pyarrow"),
    *("scikit-learn", "scipy", "pydantic", "tensorboard"),
)


def environment_record(cluster: Cluster) -> dict[str, Any]:
    """Versions, this machine and the cluster, as plain data.

    Args:
        cluster: where the study runs.
    """
    import torch

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "hms_ray": hms_ray.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "command": sys.argv,
        "cluster": asdict(cluster),
    }
