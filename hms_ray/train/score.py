"""Predictions of validation rows, each exactly once for any world size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hms_ray.competition.schema import N_CLASSES
from hms_ray.config.prediction import AS_THEY_ARE, RowVariant
from hms_ray.errors import DivergedError
from hms_ray.train.batches import RowIndices, chunks
from hms_ray.train.cancel import cancellable
from hms_ray.train.images import Images
from hms_ray.train.process import Process

Precision = Literal["float32", "bfloat16", "float16", "float64"]

MIN_SCORING_BATCH: Final = 64
"""Scoring stores no activations, so its batches can be larger than those of training."""


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """The precision that a configured one means on a device.

    Args:
        precision: ``training.precision``.
        device: device of the training.

    Returns:
        For ``auto`` bfloat16 (autocast) on a GPU that supports it, float16 (autocast) on
        another GPU, float32 on a CPU; any other precision unchanged. float64 trains the whole
        model in float64.
    """
    if precision != "auto":
        return cast("Precision", precision)
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if has_bfloat16(device) else "float16"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU computes in bfloat16 natively; emulation is slower than float32.

    False for a CPU or if CUDA is not available.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def storage_dtype(precision: Precision) -> torch.dtype:
    """The dtype of images, weights and losses; 16-bit ones are used in autocast only."""
    return torch.float64 if precision == "float64" else torch.float32


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context manager for the model's forward pass."""
    if precision not in ("bfloat16", "float16"):
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def predict_rows(
    model: nn.Module,
    images: Images,
    rows: RowIndices,
    batch_size: int,
    precision: Precision,
    process: Process,
    variants: Sequence[RowVariant] = (AS_THEY_ARE,),
) -> NDArray[np.float64]:
    """Class probabilities of rows, computed by all ranks together.

    Args:
        model: not wrapped; in training mode afterwards.
        images: makes the rows' images.
        rows: (n,) positions in the study's rows.
        batch_size: of training; at least ``MIN_SCORING_BATCH`` is used.
        precision: of the forward pass; the softmax is computed in float64.
        process: each rank predicts its shard and receives the whole table.
        variants: each row is predicted in all of them; the result is the mean of these
            probabilities.

    Returns:
        (n, 6) float64; not finite if the model's outputs are not.

    Raises:
        FoldCancelled: see ``cancellable``; the model is then in evaluation mode.
    """
    process.broadcast_buffers(model)
    places = process.shard_rows(np.arange(len(rows)))
    size = max(batch_size, MIN_SCORING_BATCH)
    own = chunks(places, size)
    # The first rank has the largest shard.
    n_batches = math.ceil(math.ceil(len(rows) / process.world_size) / size)
    table = torch.zeros(len(rows), N_CLASSES, dtype=torch.float64, device=process.device)
    model.eval()
    with torch.inference_mode():
        for variant in variants:
            made = zip(own, images.for_rows([rows[part] for part in own], variant), strict=True)
            for part, image in cancellable(made, process, n_batches):
                with autocast(precision, process.device):
                    logits = model(image)
                table[part[0] : part[-1] + 1] += torch.softmax(logits.double(), dim=1)
    table /= len(variants)
    model.train()
    result: NDArray[np.float64] = process.all_reduce_sum(table).cpu().numpy()
    return result


def remedy_for_overflow(precision: str) -> str:
    """What helps if a loss or a prediction is not finite."""
    rate = "a smaller training.learning_rate."
    return (
        f"Try training.precision: float32, or {rate}" if precision == "float16" else f"Try {rate}"
    )


def check_finite(table: NDArray[np.float64], where: str, precision: str = "float32") -> None:
    """Checks that all predictions, made in a precision, are finite.

    Raises:
        TrainingError: with the number of faulty rows and ``where``.
    """
    bad = int((~np.isfinite(table)).any(axis=1).sum())
    if bad:
        raise DivergedError(
            "predictions must be finite",
            got=f"{bad} of {len(table)} rows that are not",
            where=where,
            fix=remedy_for_overflow(precision),
        )
