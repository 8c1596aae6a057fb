"""Log power to numbers of mean 0 and deviation 1.

Axes: B batch, P panel, F frequency, T time. NaN marks power that was not
recorded: it enters no statistic and is 0, the mean, afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import torch
from torch import Tensor

from hms_ray.config.inputs import Normalisation
from hms_ray.errors import TrainingError

Scope = Literal["panel", "image"]

EPSILON: Final = 1e-6
"""Added to every deviation (published); an even image becomes 0."""
OWN: Final[tuple[Normalisation, ...]] = ("per_image", "per_panel")
"""What measures each image itself; all else but ``none`` is fitted."""


@dataclass(frozen=True)
class Constants:
    """A mean and a deviation for all images of a fold, in log power.

    Attributes:
        mean: one for all pixels, or one a frequency; in ``robust`` it is estimated by
            the median.
        std: as many; in ``robust`` it is estimated by the interquartile range.
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def plain(self) -> dict[str, float | list[float]]:
        """``mean`` and ``std`` as JSON holds them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in (("mean", self.mean), ("std", self.std))
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Constants:
        """What ``plain`` gave, bit for bit.

        Raises:
            KeyError: where one is not there.
            TypeError: where one is not made of numbers; ``ValueError`` likewise.
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
        mode: ``none``; ``per_image`` and ``per_panel`` (own mean and population
            deviation); others by the fold's constants.
        scope: what of an image is measured together in ``per_image``: each
            ``panel`` alone or the whole ``image``.
        constants: the fold's, for modes that are fitted.

    Returns:
        (B, P, F, T), ``(x - mean) / (std + EPSILON)``, without NaN. An image or
        panel that is NaN throughout is 0.

    Raises:
        TrainingError: where a mode that is fitted has no constants.
    """
    if mode == "none":
        return x.nan_to_num(nan=0.0)
    if mode in OWN:
        return _by_own(x, (2, 3) if scope == "panel" or mode == "per_panel" else (1, 2, 3))
    if constants is None:
        raise TrainingError(f"{mode} normalisation must be fitted before it is used")
    mean, divisor = _operands(constants, x.dtype, x.device)
    return (x - mean).div_(divisor).nan_to_num_(nan=0.0)


def _by_own(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """``x`` by its own mean and deviation over ``dims``."""
    count = _n_recorded(x, dims)
    centred = x - x.nansum(dims, keepdim=True) / count
    if isinstance(count, Tensor):
        centred.nan_to_num_(nan=0.0)
    std = torch.linalg.vector_norm(centred, dim=dims, keepdim=True) / count**0.5
    # The gradient of a norm needs what it was taken of.
    return centred / (std + EPSILON) if centred.requires_grad else centred.div_(std + EPSILON)


def _n_recorded(x: Tensor, dims: tuple[int, ...]) -> Tensor | int:
    """How many values are not NaN, at least 1, for division, in the precision of ``x``.

    A number where no value is NaN, as far as can be known at once.
    """
    if x.is_cuda:
        # Asking whether there is any NaN would make the device wait.
        # The root of a whole number would be float32, whatever x is.
        return (~x.isnan()).sum(dims, keepdim=True).clamp_(min=1).to(x.dtype)
    n_values = math.prod(x.shape[dim] for dim in dims)
    gaps = ~x.detach().sum(dims).isfinite()
    if not gaps.any():
        return n_values
    # Counting takes longer than all the rest, so only where something is missing.
    count = x.new_full(gaps.shape, n_values)
    count[gaps] = (~x[gaps].isnan()).flatten(1).sum(1).clamp_(min=1).to(x.dtype)
    return count.reshape(*gaps.shape, *(1 for _ in dims))


def _operands(
    constants: Constants, dtype: torch.dtype, device: torch.device
) -> tuple[float | Tensor, float | Tensor]:
    """What is subtracted and what is divided by: numbers, or (F, 1) tensors."""
    if isinstance(constants.mean, float) and isinstance(constants.std, float):
        return constants.mean, constants.std + EPSILON
    return _columns(constants, dtype, device)


# A copy to a GPU for every batch would make the host wait for the device.
@lru_cache(maxsize=16)
def _columns(
    constants: Constants, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    # What is made while scoring must serve in training too.
    with torch.inference_mode(False):
        mean, std = (
            torch.tensor(values, dtype=torch.float64).unsqueeze(-1)
            for values in (constants.mean, constants.std)
        )
        return mean.to(device, dtype), (std + EPSILON).to(device, dtype)
