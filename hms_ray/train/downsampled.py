"""Downsampled windows of rows, with a cache in main memory for training on a CPU.

Gathering and averaging a window of 240 kB takes a CPU a tenth of a small model's step, and
every epoch would do it again with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hms_ray.train.batches import RowIndices
from hms_ray.train.windows import WindowSource
from hms_ray.transforms.downsample import downsample

MAX_CACHE_SHARE: Final = 0.25
"""Largest share of the free memory that the cache of a process may take."""
MAX_CACHE_BYTES: Final = 2**30
"""Upper limit for any amount of free memory: other processes have caches too."""


def cache_budget(device: torch.device) -> int:
    """Bytes that a process may use for its cache; 0 on a GPU, where averaging costs little."""
    if device.type != "cpu":
        return 0
    return min(int(MAX_CACHE_SHARE * _free_bytes()), MAX_CACHE_BYTES)


def _free_bytes() -> int:
    """Memory that is free or can be freed immediately."""
    try:
        # Unlike sysconf, MemAvailable counts cached pages, such as those of a pack.
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class DownsampledWindows:
    """Downsampled windows of rows, with a cache.

    A cached window has the bits of one that is computed again.

    Args:
        source: the windows; only those of a resident source are cached.
        starts: (N,) first pack position of each row's window.
        block: block size over (frequency, time); for (1, 1) nothing is cached.
        dtype: of the downsampled windows: float32 or float64.
        capacity: number of rows to cache, the first ones requested.

    Attributes:
        capacity: number of rows that fit into the cache; 0 if nothing is cached.
        n_cached: number of rows in the cache.
    """

    def __init__(
        self,
        source: WindowSource,
        starts: RowIndices,
        block: tuple[int, int],
        dtype: torch.dtype,
        capacity: int = 0,
    ) -> None:
        self._source, self._starts, self._block, self._dtype = source, starts, block, dtype
        caching = block != (1, 1) and source.resident
        self.capacity = min(capacity, len(starts)) if caching else 0
        self._slots = np.full(len(starts), -1, dtype=np.int64)
        self._cache: Tensor | None = None
        self.n_cached = 0

    def stream(
        self, batches: Sequence[RowIndices], starts: Sequence[RowIndices] | None = None
    ) -> Iterator[Tensor]:
        """Yields (B, P, F / block[0], T / block[1]) for each batch of rows.

        Args:
            batches: rows.
            starts: first pack positions of shifted windows or of label rows; these are not
                cached, because the same one rarely comes twice. Default: the rows' own windows.
        """
        if starts is None and self.capacity:
            yield from map(self._through_cache, batches)
            return
        if starts is None:
            starts = [self._starts[rows] for rows in batches]
        for windows in self._source.stream(starts):
            yield downsample(windows, self._block, self._dtype)

    def _through_cache(self, rows: RowIndices) -> Tensor:
        new = np.unique(rows[self._slots[rows] < 0])
        if self._cache is not None and not len(new):
            return self._cache.index_select(0, torch.from_numpy(self._slots[rows]))
        computed = downsample(self._source.windows(self._starts[new]), self._block, self._dtype)
        cache = self._add_to_cache(new, computed)
        slots = self._slots[rows]
        cached = slots >= 0
        batch = torch.empty((len(rows), *computed.shape[1:]), dtype=self._dtype)
        batch[cached] = cache[torch.from_numpy(slots[cached])]
        batch[~cached] = computed[torch.from_numpy(np.searchsorted(new, rows[~cached]))]
        return batch

    def _add_to_cache(self, rows: RowIndices, computed: Tensor) -> Tensor:
        """Caches as many of these rows as fit and returns the cache."""
        if self._cache is None:
            # Untouched pages take no memory. If scoring is first, as after a stage with
            # shifted windows, training must still be able to write to this tensor.
            with torch.inference_mode(False):
                self._cache = torch.empty((self.capacity, *computed.shape[1:]), dtype=self._dtype)
        n_new = min(len(rows), self.capacity - self.n_cached)
        self._cache[self.n_cached : self.n_cached + n_new] = computed[:n_new]
        self._slots[rows[:n_new]] = np.arange(self.n_cached, self.n_cached + n_new)
        self.n_cached += n_new
        return self._cache
