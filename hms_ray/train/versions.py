"""Versions of the software that trains a fold: in its cache key, and in full in its record."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import hms_ray

if TYPE_CHECKING:
    import torch


def key_versions(device_class: str) -> dict[str, str]:
    """Versions that may change numbers, as ``major.minor``: torch, timm and, on GPUs, CUDA.

    Args:
        device_class: ``cpu`` or ``cuda``.
    """
    # Not ``torch.__version__``: importing torch and timm takes seconds.
    found = {name: version(name) for name in ("torch", "timm")}
    if device_class == "cuda":
        import torch

        found["cuda"] = torch.version.cuda or "none"
    return {name: ".".join(text.split("+")[0].split(".")[:2]) for name, text in found.items()}


def version_record(device: torch.device) -> dict[str, Any]:
    """Full versions and the kind of machine that trains a fold, as plain data."""
    import torch

    on_gpu = device.type == "cuda"
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "hms_ray": hms_ray.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("timm", "numpy")},
        # With the build, such as 2.11.0+cu128.
        "torch": torch.__version__,
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": cudnn if on_gpu else None,
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
    }
