"""Values of EEG windows; the one module of packing that computes with torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from hms_ray.config import EegRecipe, RawRecipe
from hms_ray.signal.recipes import make_windows


def make_values(recipe: EegRecipe | RawRecipe, eeg: NDArray[np.float32]) -> NDArray[np.float16]:
    """What a pack stores of some windows, computed by one thread.

    Args:
        recipe: what is made of a window.
        eeg: float32 (B, 10000, 20), microvolts at 200 Hz, NaN where missing.

    Returns:
        float16 (B, T, P * F), panel-major.
    """
    with _one_thread(), torch.inference_mode():
        made = make_windows(torch.from_numpy(eeg), recipe)
        # Position by position, so that a window is one span of the pack.
        positions = made.permute(0, 3, 1, 2).to(torch.float16).contiguous()
    values: NDArray[np.float16] = positions.flatten(2).numpy()
    return values


@contextmanager
def _one_thread() -> Iterator[None]:
    # Sums split over threads round otherwise, and equal windows must give equal
    # bytes; the cores are shared out between processes.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
