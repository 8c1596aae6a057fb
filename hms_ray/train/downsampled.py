"""Downsampled windows of rows, kept in memory where averaging is what takes the time.

Gathering and averaging a window of 240 kB costs a CPU a tenth of a small model's
step, and every epoch would do it again with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.train.windows import WindowSource
from hms_ray.transforms.downsample import downsample

Rows = NDArray[np.int64]

MAX_CACHE_SHARE: Final = 0.25
"""Largest share of the free memory that kept windows of a process may take."""
MAX_CACHE_BYTES: Final = 2**30
"""Most that they may take, whatever is free: other processes keep theirs."""


def cache_budget(device: torch.device) -> int:
    """Bytes that a process may keep windows in; none where averaging costs little.

    Args:
        device: only a CPU keeps windows.
    """
    if device.type != "cpu":
        return 0
    return min(int(MAX_CACHE_SHARE * _free_bytes()), MAX_CACHE_BYTES)


def _free_bytes() -> int:
    """Memory that is free or can be freed at once."""
    try:
        # The pages of a pack that was just read count as free here, unlike in sysconf.
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class DownsampledWindows:
    """Windows of rows with their blocks averaged, kept where that is worth it.

    A kept window was made as it would be made again, so keeping changes no bit.

    Args:
        source: the windows; those of a resident source may be kept.
        starts: (N,) first pack position of each row's window.
        block: block size over (frequency, time).
        dtype: of the downsampled windows: float32 or float64.
        capacity: rows to keep, the first ones asked for.
    """

    def __init__(
        self,
        source: WindowSource,
        starts: Rows,
        block: tuple[int, int],
        dtype: torch.dtype,
        capacity: int = 0,
    ) -> None:
        self._source, self._starts, self._block, self._dtype = source, starts, block, dtype
        keeping = block != (1, 1) and source.resident
        self._capacity = min(capacity, len(starts)) if keeping else 0
        self._slots = np.full(len(starts), -1, dtype=np.int64)
        self._kept: Tensor | None = None
        self.n_cached = 0

    def stream(
        self, batches: Sequence[Rows], starts: Sequence[Rows] | None = None
    ) -> Iterator[Tensor]:
        """(B, P, F / block[0], T / block[1]) of one batch of rows after another.

        Args:
            batches: rows.
            starts: first pack positions of their windows where those are moved; such
                windows are not kept, for they hardly come twice.
        """
        if starts is None and self._capacity:
            yield from map(self._remembered, batches)
            return
        if starts is None:
            starts = [self._starts[rows] for rows in batches]
        for windows in self._source.stream(starts):
            yield downsample(windows, self._block, self._dtype)

    def _remembered(self, rows: Rows) -> Tensor:
        new = np.unique(rows[self._slots[rows] < 0])
        if self._kept is not None and not len(new):
            return self._kept.index_select(0, torch.from_numpy(self._slots[rows]))
        made = downsample(self._source.windows(self._starts[new]), self._block, self._dtype)
        kept = self._keep(new, made)
        slots = self._slots[rows]
        known = slots >= 0
        batch = torch.empty((len(rows), *made.shape[1:]), dtype=self._dtype)
        batch[known] = kept[torch.from_numpy(slots[known])]
        batch[~known] = made[torch.from_numpy(np.searchsorted(new, rows[~known]))]
        return batch

    def _keep(self, rows: Rows, made: Tensor) -> Tensor:
        """Keeps as many of these rows as there is room for; returns all that is kept."""
        if self._kept is None:
            # Pages that no row has come to yet take no memory. Where scoring asks first, as
            # after a stage whose windows are shifted, training must be able to add to it.
            with torch.inference_mode(False):
                self._kept = torch.empty((self._capacity, *made.shape[1:]), dtype=self._dtype)
        n_new = min(len(rows), self._capacity - self.n_cached)
        self._kept[self.n_cached : self.n_cached + n_new] = made[:n_new]
        self._slots[rows[:n_new]] = np.arange(self.n_cached, self.n_cached + n_new)
        self.n_cached += n_new
        return self._kept
