"""Normalisation of log power to mean 0 and standard deviation 1.

Axes: B batch, P panel, F frequency, T time. NaN marks missing values: they are ignored in
statistics and become 0, the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from hms_ray.config.inputs import Normalisation
from hms_ray.errors import TrainingError
from hms_ray.signal.on_device import on_device

Scope = Literal["panel", "image"]

EPSILON: Final = 1e-6
"""Added to every standard deviation (published); a constant image becomes 0."""
OWN: Final[tuple[Normalisation, ...]] = ("per_image", "per_panel")
"""Modes that use each image's own statistics; all others except ``none`` are fitted."""


@dataclass(frozen=True)
class Constants:
    """Mean and standard deviation for all images of a fold, in units of the windows.

    Attributes:
        mean: one number, or one per frequency; for ``robust`` the median.
        std: as many numbers; for ``robust`` estimated from the interquartile range.
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def plain(self) -> dict[str, float | list[float]]:
        """``mean`` and ``std`` as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in (("mean", self.mean), ("std", self.std))
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Constants:
        """The constants of ``plain()``, bit for bit.

        Raises:
            KeyError: if ``mean`` or ``std`` is missing.
            TypeError, ValueError: if one of them is not numeric.
        """
        mean, std = (
            tuple(map(float, data[name])) if isinstance(data[name], list) else float(data[name])
            for name in ("mean", "std")
        )
        return cls(mean, std)


def normalise(
    x: Tensor, mode: Normalisation, scope: Scope, constants: Constants | None = None
) -> Tensor:
    """Normalises log power; NaN becomes 0.

    Args:
        x: (B, P, F, T) float32 or float64, NaN allowed.
        mode: ``none``; ``per_image`` and ``per_panel`` use own mean and population standard
            deviation; the others use ``constants``.
        scope: statistics of ``per_image`` are over each ``panel`` or the whole ``image``.
        constants: of the fold, for fitted modes.

    Returns:
        (B, P, F, T), ``(x - mean) / (std + EPSILON)`` without NaN. An image or panel of NaN
        only is 0.

    Raises:
        TrainingError: if a fitted mode has no constants.
    """
    if mode == "none":
        return x.nan_to_num(nan=0.0)
    if mode in OWN:
        return _normalise_by_own(
            x, (2, 3) if scope == "panel" or mode == "per_panel" else (1, 2, 3)
        )
    if constants is None:
        raise TrainingError(f"{mode} normalisation must be fitted before it is used")
    mean: float | Tensor
    divisor: float | Tensor
    if isinstance(constants.mean, float) and isinstance(constants.std, float):
        mean, divisor = constants.mean, constants.std + EPSILON
    else:
        mean, divisor = _columns(constants, x.dtype, x.device)
    return (x - mean).div_(divisor).nan_to_num_(nan=0.0)


def _normalise_by_own(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Normalises by own mean and standard deviation over ``dims``."""
    count = _n_recorded(x, dims)
    centred = x - x.nansum(dims, keepdim=True) / count
    if isinstance(count, Tensor):
        centred.nan_to_num_(nan=0.0)
    std = torch.linalg.vector_norm(centred, dim=dims, keepdim=True) / count**0.5
    # The gradient of the norm needs its input unchanged.
    return centred / (std + EPSILON) if centred.requires_grad else centred.div_(std + EPSILON)


def _n_recorded(x: Tensor, dims: tuple[int, ...]) -> Tensor | int:
    """Number of values that are not NaN, at least 1, in the dtype of ``x``.

    A plain integer if no value is NaN and that can be tested without a device sync.
    """
    if x.is_cuda:
        # Testing for NaN on the host would make the device wait.
        # The root of an integer tensor would be float32 for any x.
        return (~x.isnan()).sum(dims, keepdim=True).clamp_(min=1).to(x.dtype)
    n_values = math.prod(x.shape[dim] for dim in dims)
    gaps = ~x.detach().sum(dims).isfinite()
    if not gaps.any():
        return n_values
    # Counting takes longer than all the rest, so it is done only for gaps.
    count = x.new_full(gaps.shape, n_values)
    count[gaps] = (~x[gaps].isnan()).flatten(1).sum(1).clamp_(min=1).to(x.dtype)
    return count.reshape(*gaps.shape, *(1 for _ in dims))


# A copy to a GPU for every batch would make the host wait for the device.
@lru_cache(maxsize=16)
def _columns(
    constants: Constants, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Means and divisors of frequencies, (F, 1)."""
    # A tensor created while scoring must be usable in training.
    with torch.inference_mode(False):
        mean, std = (np.array(values)[:, None] for values in (constants.mean, constants.std))
        return on_device(mean, device, dtype), on_device(std + EPSILON, device, dtype)
