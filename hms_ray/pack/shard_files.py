"""The arrays of a draft on disk, written shard by shard from any process of a machine."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_ray.pack.layout import npy_header
from hms_ray.pack.plan import Shard


@dataclass(frozen=True)
class ShardFile:
    """An ``.npy`` file that has its full size and is written shard by shard.

    Attributes:
        path: of the file.
        dtype: as in ``.npy`` headers.
        shape: of the array; one row per position.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes per position."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape[1:])

    def create(self) -> None:
        """Creates the file; does not change the shards of an existing one."""
        header = npy_header(self.dtype, self.shape)
        # Every packer writes the same bytes here, so concurrent writes do no harm.
        with _opened(self.path, os.O_RDWR | os.O_CREAT) as fd:
            os.ftruncate(fd, len(header) + self.shape[0] * self.row_bytes)
            os.pwrite(fd, header, 0)

    def write(self, shard: Shard, values: NDArray[Any]) -> None:
        """Writes a shard and syncs it to disk."""
        left = np.ascontiguousarray(values).data.cast("B")
        at = self._start(shard)
        with _opened(self.path, os.O_RDWR) as fd:
            while left:
                n = os.pwrite(fd, left, at)
                left, at = left[n:], at + n
            # After a power failure there must be no record of a shard without its values.
            os.fsync(fd)

    def sha256(self, shard: Shard) -> str:
        """SHA-256 (hex) of a shard on disk."""
        with _opened(self.path, os.O_RDONLY) as fd:
            values = os.pread(fd, shard.n_positions * self.row_bytes, self._start(shard))
        return hashlib.sha256(values).hexdigest()

    def _start(self, shard: Shard) -> int:
        return len(npy_header(self.dtype, self.shape)) + shard.first * self.row_bytes


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags, 0o666)
    try:
        yield fd
    finally:
        os.close(fd)
