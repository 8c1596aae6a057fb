"""Normalisation constants of a fold, fitted on its training rows only.

Axes: B batch, P panel, F frequency, T time. NaN values are ignored. Equal windows in equal
batches give equal bits.
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
"""Called once per pass: iterates over the (B, P, F, T) windows of all training rows."""

N_BINS: Final = 2**16
"""Bins of the histogram for quartiles. Log power in a pack spans 12, so a bin is 0.0002, a
fifth of the float16 resolution at 1; signals span 64 by default, so a bin is 0.001."""
NORMAL_IQR: Final = 1.349
"""Interquartile range of a normal distribution with standard deviation 1."""


def fit_global(windows: Stream) -> Constants:
    """Mean and population standard deviation of all pixels.

    Args:
        windows: of training rows, of any shape. Overlapping windows count each.

    Returns:
        float64 constants.

    Raises:
        TrainingError: if all pixels are NaN.
    """
    return Constants(*_mean_and_std(windows))


def fit_per_frequency(windows: Stream) -> Constants:
    """Mean and population standard deviation of each frequency over panels and times.

    A constant frequency gets the standard deviation of all pixels, and one without any value
    also their mean, so that no division explodes for rows that differ.

    Args:
        windows: of training rows. Overlapping windows count each.

    Returns:
        float64 constants, F means and F deviations.

    Raises:
        TrainingError: if all pixels are NaN.
    """
    parts = [_moments(batch) for batch in windows()]
    count, mean, squares = _combine(*(torch.stack(column) for column in zip(*parts, strict=True)))
    all_count, all_mean, all_squares = _combine(count, mean, squares)
    if not all_count:
        raise _nothing_recorded("per_frequency")
    std, all_std = (squares / count.clamp(min=1)).sqrt(), (all_squares / all_count).sqrt()
    # Rounding gives a constant frequency a deviation of about 1e-16.
    std = torch.where(std > EPSILON, std, all_std if all_std > EPSILON else 1.0)
    mean = torch.where(count > 0, mean, all_mean)
    return Constants(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def fit_robust(windows: Stream) -> Constants:
    """Median and interquartile range / ``NORMAL_IQR`` of all pixels.

    Two passes: the range of the values, then their histogram with ``N_BINS`` equal bins.
    Counts are integers, so order and size of batches change no bit. A quantile differs from
    that of ``numpy.percentile`` by at most half a bin.

    Args:
        windows: of training rows, of any shape.

    Returns:
        float64 constants. If the middle half of all pixels lies in one bin, the population
        standard deviation replaces the interquartile range; if all are equal, 1.

    Raises:
        TrainingError: if all pixels are NaN.
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
"""Normalisation -> function that fits its constants."""


def _mean_and_std(windows: Stream) -> tuple[float, float]:
    count, total, squares = 0, 0.0, 0.0
    for batch in windows():
        # One pass over sums of squares is safe: log power lies in [-4, 8] and signals within
        # a few tens, so cancellation in float64 is negligible.
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
    """Count, mean and sum of squared deviations of each frequency."""
    values = batch.to(torch.float64, copy=True)
    missing = values.isnan()
    count = (~missing).sum((0, 1, 3))
    mean = values.masked_fill_(missing, 0.0).sum((0, 1, 3)) / count.clamp(min=1)
    values.sub_(mean[:, None]).masked_fill_(missing, 0.0)
    return count, mean, values.square_().sum((0, 1, 3))


def _combine(count: Tensor, mean: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Combines moments of parts along the first axis, without cancellation.

    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American
    Statistician 37 (1983).
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
    """(N_BINS,) number of pixels in each bin from ``low`` on."""
    # The largest value belongs to the last bin; NaN are counted in an extra one.
    place = ((batch.to(torch.float64) - low) / step).clamp_(max=N_BINS - 1)
    places = place.nan_to_num_(nan=N_BINS).to(torch.int64).flatten()
    return torch.bincount(places, minlength=N_BINS + 1)[:N_BINS]


def _quantile(up_to: NDArray[np.int64], share: float) -> float:
    """A quantile in units of bins, linear between ranks; ``up_to`` is the cumulative count."""
    rank = share * (int(up_to[-1]) - 1)
    below = math.floor(rank)
    lower, upper = np.searchsorted(up_to, [below, math.ceil(rank)], side="right") + 0.5
    return float(lower + (rank - below) * (upper - lower))


def _nothing_recorded(mode: Normalisation) -> TrainingError:
    return TrainingError(
        f"{mode} normalisation needs training rows with recorded values",
        got="NaN only",
        fix="Check the recordings with: hms-ray check DIR",
    )
