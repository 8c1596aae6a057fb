"""Predictions of validation rows: each exactly once, whatever the world size."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hms_ray.competition.schema import N_CLASSES
from hms_ray.errors import TrainingError
from hms_ray.train.batches import Rows, chunks
from hms_ray.train.images import Images
from hms_ray.train.process import Process

Precision = Literal["float32", "bfloat16", "float64"]

MIN_SCORING_BATCH: Final = 64
"""Scoring keeps no activations, so its batches may be larger than training's."""


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """What a configured precision means on a device.

    Args:
        precision: ``training.precision``.
        device: where the fold is trained.

    Returns:
        ``auto`` becomes bfloat16 autocast on a GPU that has it and float32
        elsewhere; others stay. float64 trains the whole model in float64.
    """
    if precision != "auto":
        return cast("Precision", precision)
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; emulation is slower than float32.

    Args:
        device: a CPU never counts, nor does a GPU that is not there.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def storage_dtype(precision: Precision) -> torch.dtype:
    """The dtype of images, weights and losses; bfloat16 lives in autocast only."""
    return torch.float64 if precision == "float64" else torch.float32


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the model's forward pass runs."""
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def predict_rows(
    model: nn.Module,
    images: Images,
    rows: Rows,
    batch_size: int,
    precision: Precision,
    process: Process,
) -> NDArray[np.float64]:
    """Class probabilities of rows; the work is divided among the ranks.

    Args:
        model: not wrapped; left in training mode.
        images: makes the rows' images.
        rows: (n,) positions into the study's rows.
        batch_size: of training; smaller ones are raised to ``MIN_SCORING_BATCH``.
        precision: of the forward pass; the softmax is in float64.
        process: each rank predicts a slice, and all get the whole table.

    Returns:
        (n, 6) float64; not finite where the model's outputs are not.
    """
    process.broadcast_buffers_from_rank0(model)
    places = process.shard_rows(np.arange(len(rows)))
    own = chunks(places, max(batch_size, MIN_SCORING_BATCH))
    table = torch.zeros(len(rows), N_CLASSES, dtype=torch.float64, device=process.device)
    model.eval()
    with torch.inference_mode():
        for part, image in zip(own, images.of([rows[part] for part in own]), strict=True):
            with autocast(precision, process.device):
                logits = model(image)
            table[part[0] : part[-1] + 1] = torch.softmax(logits.double(), dim=1)
    model.train()
    result: NDArray[np.float64] = process.all_reduce_sum(table).cpu().numpy()
    return result


def check_finite(table: NDArray[np.float64], where: str) -> None:
    """Refuses predictions that are not finite.

    Raises:
        TrainingError: naming how many rows, and where in training.
    """
    bad = int((~np.isfinite(table)).any(axis=1).sum())
    if bad:
        raise TrainingError(
            "predictions must be finite",
            got=f"{bad} of {len(table)} rows that are not",
            where=where,
            fix="Try a smaller training.learning_rate.",
        )
