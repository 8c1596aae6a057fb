"""Constants of a fold, fitted on training rows only.

Axes: B batch, P panel, F frequency, T time. NaN enters no statistic. The same
windows in the same batches give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.config.inputs import Normalisation
from hms_ray.errors import TrainingError
from hms_ray.transforms.normalise import EPSILON, Constants

Stream = Callable[[], Iterable[Tensor]]
"""Gives the (B, P, F, T) windows of all training rows from the start, at every call."""

N_BINS: Final = 2**16
"""Of the histogram in which quartiles are looked up. The 12 that log power spans in a pack
are steps of 0.0002, a fifth of what float16 tells apart at 1; signals, 64 by default,
steps of 0.001."""
NORMAL_IQR: Final = 1.349
"""Interquartile range of a normal distribution of deviation 1."""


def fit_global(windows: Stream) -> Constants:
    """Pools mean and population deviation over all finite pixels.

    Args:
        windows: of training rows; any shape will do.

    Returns:
        float64 statistics. A pixel counts as often as rows hold it.

    Raises:
        TrainingError: where no pixel is finite.
    """
    return Constants(*_mean_and_std(windows))


def fit_per_frequency(windows: Stream) -> Constants:
    """Pools mean and population deviation of each frequency over panels and times.

    A frequency that is constant takes the deviation of all pixels, and one that was
    never recorded their mean too, so that neither blows up in rows that differ.

    Args:
        windows: of training rows.

    Returns:
        float64 statistics, F of each. A pixel counts as often as rows hold it.

    Raises:
        TrainingError: where no pixel is finite.
    """
    parts = [_moments(batch) for batch in windows()]
    count, mean, squares = _pooled(*(torch.stack(column) for column in zip(*parts, strict=True)))
    all_count, all_mean, all_squares = _pooled(count, mean, squares)
    if not all_count:
        raise _nothing_recorded("per_frequency")
    std, all_std = (squares / count.clamp(min=1)).sqrt(), (all_squares / all_count).sqrt()
    # Rounding leaves a constant frequency a deviation of about 1e-16.
    std = torch.where(std > EPSILON, std, all_std if all_std > EPSILON else 1.0)
    mean = torch.where(count > 0, mean, all_mean)
    return Constants(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def fit_robust(windows: Stream) -> Constants:
    """Median and interquartile range / ``NORMAL_IQR`` of all finite pixels.

    Two passes: the range of the values, then how many there are in each of ``N_BINS``
    equal steps of it. Counts are whole, so neither the order nor the size of batches
    changes a bit. A quantile is within half a step of the one between ranks
    (``numpy.percentile``).

    Args:
        windows: of training rows; any shape will do.

    Returns:
        float64 statistics. Where the middle half of all pixels lies in one step, so that
        the quartiles cannot be told apart, the deviation of all pixels stands in; where all
        are equal, 1.

    Raises:
        TrainingError: where no pixel is finite.
    """
    low, high = _range(windows)
    step = (high - low) / N_BINS
    if step == 0:
        return Constants(low, 1.0)
    counts = torch.zeros(N_BINS, dtype=torch.int64)
    for batch in windows():
        counts += _histogram(batch, low, step).cpu()
    first, median, third = (
        low + step * _quantile(counts.cumsum(0).numpy(), share) for share in (0.25, 0.5, 0.75)
    )
    iqr = third - first
    return Constants(median, iqr / NORMAL_IQR if iqr > step else _mean_and_std(windows)[1])


FITS: Final[dict[Normalisation, Callable[[Stream], Constants]]] = {
    "global": fit_global,
    "per_frequency": fit_per_frequency,
    "robust": fit_robust,
}
"""Normalisation -> how its constants are found."""


def _mean_and_std(windows: Stream) -> tuple[float, float]:
    count, total, squares = 0, 0.0, 0.0
    for batch in windows():
        # One pass over sums of squares is safe here: log power is within [-4, 8] and
        # signals within a few tens, so float64 loses nothing that matters to cancellation.
        values = batch.to(torch.float64, copy=True)
        missing = values.isnan()
        values.masked_fill_(missing, 0.0)
        count += values.numel() - int(missing.sum())
        total += float(values.sum())
        squares += float(values.square_().sum())
    if count == 0:
        raise _nothing_recorded("global")
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean * mean, 0.0))


def _moments(batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared differences from it of each frequency."""
    values = batch.to(torch.float64, copy=True)
    missing = values.isnan()
    count = (~missing).sum((0, 1, 3))
    mean = values.masked_fill_(missing, 0.0).sum((0, 1, 3)) / count.clamp(min=1)
    values.sub_(mean[:, None]).masked_fill_(missing, 0.0)
    return count, mean, values.square_().sum((0, 1, 3))


def _pooled(count: Tensor, mean: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of all parts, along the first axis, taken together.

    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American
    Statistician 37 (1983): nothing is lost to cancellation.
    """
    total = count.sum(0)
    centre = (count * mean).sum(0) / total.clamp(min=1)
    return total, centre, (squares + count * (mean - centre).square()).sum(0)


def _range(windows: Stream) -> tuple[float, float]:
    """Smallest and largest finite pixel."""
    low, high = math.inf, -math.inf
    for batch in windows():
        low = min(low, float(batch.nan_to_num(nan=math.inf).amin()))
        high = max(high, float(batch.nan_to_num(nan=-math.inf).amax()))
    if low > high:
        raise _nothing_recorded("robust")
    return low, high


def _histogram(batch: Tensor, low: float, step: float) -> Tensor:
    """(N_BINS,) how many pixels lie in each step from ``low`` on."""
    # The largest value of all belongs to the last step; NaN go to one of their own.
    place = ((batch.to(torch.float64) - low) / step).clamp_(max=N_BINS - 1)
    places = place.nan_to_num_(nan=N_BINS).to(torch.int64).flatten()
    return torch.bincount(places, minlength=N_BINS + 1)[:N_BINS]


def _quantile(up_to: NDArray[np.int64], share: float) -> float:
    """A quantile in steps, linear between ranks; ``up_to`` counts to each step's end."""
    rank = share * (int(up_to[-1]) - 1)
    below = math.floor(rank)
    lower, upper = np.searchsorted(up_to, [below, math.ceil(rank)], side="right") + 0.5
    return float(lower + (rank - below) * (upper - lower))


def _nothing_recorded(mode: Normalisation) -> TrainingError:
    return TrainingError(
        f"{mode} normalisation needs training rows with recorded power",
        got="no finite pixel",
        fix="Check the recordings with: hms-ray check DIR",
    )
