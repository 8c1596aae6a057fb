"""Packed values of EEG windows; the only module of ``pack`` that computes with torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.config.pair_recipes import SignalRecipe
from hms_ray.signal.strip import make_strip
from hms_ray.signal.windows import make_windows


def make_values(recipe: SignalRecipe, eeg: NDArray[np.float32]) -> NDArray[np.float16]:
    """The packed values of windows, computed by one thread.

    Args:
        recipe: recipe of the values.
        eeg: float32 (B, 10000, 20), microvolts at 200 Hz, NaN if missing.

    Returns:
        float16 (B, T, P * F), panel-major.
    """
    with _one_thread(), torch.inference_mode():
        return _stored(make_windows(torch.from_numpy(eeg), recipe))


def make_strip_values(
    recipe: SignalRecipe, eeg: NDArray[np.float32], start: int
) -> tuple[NDArray[np.float16], tuple[int, int]]:
    """The packed strip of a window, computed by one thread.

    Args:
        recipe: recipe of the values, with a margin.
        eeg: float32 (n, 20), the whole EEG, microvolts at 200 Hz, NaN if missing.
        start: first sample of the window.

    Returns:
        float16 (T + 2 margin, P * F), NaN beyond the ends of the EEG; and the positions, at
        most the margin, by which the window can be moved to an earlier and to a later time.
    """
    with _one_thread(), torch.inference_mode():
        strip = make_strip(torch.from_numpy(eeg), start, recipe)
        (made,) = _stored(strip.values[None])
    skipped = recipe.margin - strip.before
    n_positions = len(made) + skipped + recipe.margin - strip.after
    values = np.full((n_positions, made.shape[1]), np.nan, np.float16)
    values[skipped : skipped + len(made)] = made
    return values, (strip.before, strip.after)


def _stored(made: Tensor) -> NDArray[np.float16]:
    """(B, P, F, T) as (B, T, P * F), so that a window is one span of the pack."""
    positions = made.permute(0, 3, 1, 2).to(torch.float16).contiguous()
    values: NDArray[np.float16] = positions.flatten(2).numpy()
    return values


@contextmanager
def _one_thread() -> Iterator[None]:
    # The rounding of sums depends on the number of threads, and equal windows must give equal
    # bytes. Cores are used by processes instead.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
