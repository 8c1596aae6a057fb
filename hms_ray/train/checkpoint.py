"""Weights of a fold's model on disk: written atomically, or exported as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hms_ray.errors import ModelError
from hms_ray.storage.atomic import whole_file

SAFETENSORS: Final = ".safetensors"


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
    """Reads weights that ``save_weights`` or ``export_weights`` wrote, to the CPU.

    Only tensors are read, so that a file cannot run code.

    Raises:
        ModelError: if the file is missing, damaged or has other content.
    """
    try:
        if Path(path).suffix == SAFETENSORS:
            return load_file(path)
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


def export_weights(source: str | Path, target: str | Path, *, half: bool = False) -> None:
    """Copies stored weights to a safetensors file.

    Args:
        source: file of ``save_weights``.
        target: file to write, ``.safetensors``.
        half: store kernels and matrices as float16. Biases and the vectors of normalisation
            layers keep their dtype: they take little space, and variances can exceed the
            range of float16.

    Raises:
        ModelError: see ``load_weights``; or if float16 cannot hold a value.
    """
    weights = load_weights(source)
    if half:
        weights = {name: _as_half(name, value, source) for name, value in weights.items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, target)


def _as_half(name: str, value: Tensor, source: str | Path) -> Tensor:
    if not value.is_floating_point() or value.ndim < 2:
        return value
    half = value.half()
    if not torch.isfinite(half).all():
        raise ModelError(
            "float16 must hold all weights",
            got=f"{value.abs().max().item():.3g} in {name}",
            where=source,
            fix="Export without --dtype float16.",
        )
    return half
