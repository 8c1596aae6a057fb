"""Weights of a fold's model on disk, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hms_ray.errors import ModelError
from hms_ray.storage.atomic import whole_file


def cpu_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's parameters and buffers on the CPU, in their own dtypes."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }


def save_weights(path: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Writes weights atomically."""
    # Through a stream, because torch rejects the name of the draft file.
    with whole_file(path) as draft, draft.open("wb") as file:
        torch.save(dict(weights), file)


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads weights that ``save_weights`` wrote, to the CPU.

    Only tensors are unpickled, so that a file cannot run code.

    Raises:
        ModelError: if the file is missing, damaged or has other content.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError("a weights file must exist", where=path) from None
    except Exception as error:
        # A damaged archive fails in the unpickler, the zip reader or the storage.
        raise ModelError(
            "a weights file must be readable", got=type(error).__name__, where=path
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelError(
            "a weights file must contain named tensors", got=type(weights).__name__, where=path
        )
    return weights
