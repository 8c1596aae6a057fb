"""Weights of a fold's model on disk: whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hms_ray.errors import ModelError
from hms_ray.storage.atomic import whole_file


def cpu_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's parameters and buffers on the CPU, at their own dtypes."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }


def save_weights(path: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Writes weights beside their final place, then moves them there at once."""
    # As a stream: torch refuses names like a draft's.
    with whole_file(path) as draft, draft.open("wb") as file:
        torch.save(dict(weights), file)


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights as ``save_weights`` wrote them, on the CPU.

    Only tensors are read: a file cannot run code.

    Raises:
        ModelError: where the file is missing, damaged or holds anything else.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError("a file of weights must exist", where=path) from None
    except Exception as error:
        # A damaged archive fails in the unpickler, the zip reader or the storage.
        raise ModelError(
            "a file of weights must be whole", got=type(error).__name__, where=path
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelError(
            "a file of weights must hold named tensors", got=type(weights).__name__, where=path
        )
    return weights
