"""Positions of shards in a draft's files, and writing them from any process of a machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.pack.layout import npy_header
from hms_ray.pack.make import MadeShard
from hms_ray.pack.plan import PackPlan, Shard
from hms_ray.storage.locks import short_lock

LOCK_FILE: Final = "lock"


class DraftGone(Exception):  # noqa: N818 - not an error: another packer was faster
    """Another packer has published or removed the draft."""


@dataclass(frozen=True)
class Place:
    """The place of a column's rows in its file.

    Attributes:
        path: of the file.
        start: byte offset of the first row.
        row_bytes: bytes per row.
    """

    path: Path
    start: int
    row_bytes: int

    def write(self, fd: int, shard: Shard, values: NDArray[Any]) -> None:
        """Writes the rows of a shard and syncs them to disk."""
        left = np.ascontiguousarray(values).data.cast("B")
        at = self.start + shard.first * self.row_bytes
        while left:
            n = os.pwrite(fd, left, at)
            left, at = left[n:], at + n
        # After a power failure there must be no record of a shard without its values.
        os.fsync(fd)


class Column:
    """An open ``.npy`` file that has its full size and is written shard by shard.

    Args:
        fd: of the file, open for reading and writing.
        path: of the file.
        plan: its ``n_positions`` is the number of rows.
        dtype: as in ``.npy`` headers.
        row: shape of a row.
    """

    def __init__(
        self, fd: int, path: Path, plan: PackPlan, dtype: str, row: tuple[int, ...]
    ) -> None:
        header = npy_header(dtype, (plan.n_positions, *row))
        row_bytes = np.dtype(dtype).itemsize * int(np.prod(row, dtype=np.int64))
        self.fd, self.place = fd, Place(path, len(header), row_bytes)
        # Every packer writes the same bytes here, so concurrent writes do no harm.
        os.ftruncate(fd, len(header) + plan.n_positions * row_bytes)
        os.pwrite(fd, header, 0)

    def sha256(self, shard: Shard) -> str:
        """SHA-256 (hex) of the rows of a shard on disk."""
        size = shard.n_positions * self.place.row_bytes
        at = self.place.start + shard.first * self.place.row_bytes
        return hashlib.sha256(os.pread(self.fd, size, at)).hexdigest()


def record_file(draft: Path, number: int) -> Path:
    """The file with the record of a finished shard."""
    return draft / "shards" / f"{number:05d}.json"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A file descriptor for reading and writing."""
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards to a draft from any process of this machine; picklable.

    Attributes:
        draft: folder of the draft.
        values: place of the values.
        missing: place of the counts of missing values; None for windows.
    """

    draft: Path
    values: Place
    missing: Place | None

    def __call__(self, shard: Shard, made: MadeShard) -> MadeShard:
        """Writes a shard, unless it is recorded already.

        Returns:
            ``made`` without the written arrays, which is small to send to the process that
            records it. If a record exists, ``made`` with its arrays: the recording process
            checks that record.

        Raises:
            OSError: if the disk is full or unavailable.
            DraftGone: if another packer has published the pack meanwhile.
        """
        try:
            # Without locks, packers rely on writing equal bytes.
            with short_lock(self.draft / LOCK_FILE):
                if record_file(self.draft, shard.number).exists():
                    return made
                for place, part in ((self.values, made.values), (self.missing, made.missing)):
                    if place is not None and part is not None:
                        with opened(place.path) as fd:
                            place.write(fd, shard, part)
        except FileNotFoundError as error:
            raise DraftGone from error
        return replace(made, values=None, missing=None)
