"""Log power to numbers of mean 0 and deviation 1; fitted on training rows only.

Axes: B batch, P panel, F frequency, T time. NaN marks power that was not
recorded: it enters no statistic and is 0, the mean, afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from hms_ray.config_input import Normalisation
from hms_ray.errors import TrainingError

Scope = Literal["panel", "image"]

EPSILON: Final = 1e-6
"""Added to every deviation (published); an even image becomes 0."""


@dataclass(frozen=True)
class Constants:
    """One mean and one deviation for all images of a fold, in log power."""

    mean: float
    std: float


def fit_global(batches: Iterable[Tensor]) -> Constants:
    """Pools mean and population deviation over all finite pixels.

    Args:
        batches: tensors of log power of any shape, NaN where nothing was recorded;
            the same images in the same batches give the same bits.

    Returns:
        float64 statistics. A pixel counts as often as rows hold it.

    Raises:
        TrainingError: where no pixel is finite.
    """
    count, total, squares = 0, 0.0, 0.0
    for batch in batches:
        # One pass over sums of squares is safe here: log power is within [-4, 8],
        # so float64 loses nothing that matters to cancellation.
        values = batch.to(torch.float64, copy=True)
        missing = values.isnan()
        values.masked_fill_(missing, 0.0)
        count += values.numel() - int(missing.sum())
        total += float(values.sum())
        squares += float(values.square_().sum())
    if count == 0:
        raise TrainingError(
            "global normalisation needs training rows with recorded power",
            got="no finite pixel",
            fix="Check the recordings with: hms-ray check DIR",
        )
    mean = total / count
    return Constants(mean=mean, std=math.sqrt(max(squares / count - mean * mean, 0.0)))


def normalise(
    x: Tensor, mode: Normalisation, scope: Scope, constants: Constants | None = None
) -> Tensor:
    """Normalises log power; NaN becomes 0.

    Args:
        x: (B, P, F, T) float32 or float64, NaN allowed.
        mode: ``none``; ``per_image`` (own mean and population deviation);
            ``global`` (the fold's constants).
        scope: what of an image is measured together in ``per_image``: each
            ``panel`` alone or the whole ``image``.
        constants: the fold's, for ``global``.

    Returns:
        (B, P, F, T), ``(x - mean) / (std + EPSILON)``, without NaN. An image or
        panel that is NaN throughout is 0.

    Raises:
        TrainingError: where ``global`` is asked for without constants.
    """
    if mode == "none":
        return x.nan_to_num(nan=0.0)
    if mode == "global":
        if constants is None:
            raise TrainingError("global normalisation must be fitted before it is used")
        scaled = (x - constants.mean) / (constants.std + EPSILON)
        return scaled.nan_to_num_(nan=0.0)
    dims = (2, 3) if scope == "panel" else (1, 2, 3)
    count = _n_recorded(x, dims)
    centred = (x - x.nansum(dims, keepdim=True) / count).nan_to_num_(nan=0.0)
    std = torch.linalg.vector_norm(centred, dim=dims, keepdim=True) / count**0.5
    return centred.div_(std + EPSILON)


def _n_recorded(x: Tensor, dims: tuple[int, ...]) -> Tensor | int:
    """How many values are not NaN, at least 1, for division, in the precision of ``x``."""
    if not x.is_cuda and not x.sum(dims).isnan().any():
        # Looking for NaN one by one takes longer than all the rest on a CPU; asking
        # first would make a GPU wait.
        return math.prod(x.shape[dim] for dim in dims)
    # The root of a whole number would be float32, whatever x is.
    return (~x.isnan()).sum(dims, keepdim=True).clamp_(min=1).to(x.dtype)
