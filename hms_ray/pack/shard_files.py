"""Where shards lie in a draft's files, and how any process of this machine writes them."""

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


class DraftGone(Exception):  # noqa: N818 - no error: another packer was quicker
    """The draft was published or removed by another packer."""


@dataclass(frozen=True)
class Place:
    """Where the shards of a column are in its file.

    Attributes:
        path: of the file.
        start: byte of the first row.
        row_bytes: bytes a row.
    """

    path: Path
    start: int
    row_bytes: int

    def write(self, fd: int, shard: Shard, values: NDArray[Any]) -> None:
        """Puts a shard's rows on the disk."""
        left = np.ascontiguousarray(values).data.cast("B")
        at = self.start + shard.first * self.row_bytes
        while left:
            n = os.pwrite(fd, left, at)
            left, at = left[n:], at + n
        # The record of a shard must not outlive its values in a power failure.
        os.fsync(fd)


class Column:
    """An open ``.npy`` file of its full size, written shard by shard.

    Args:
        fd: of the file, open for reading and writing.
        path: of the file.
        plan: says how many rows there are.
        dtype: of a value, as ``.npy`` headers have it.
        row: shape of a row.
    """

    def __init__(
        self, fd: int, path: Path, plan: PackPlan, dtype: str, row: tuple[int, ...]
    ) -> None:
        header = npy_header(dtype, (plan.n_positions, *row))
        row_bytes = np.dtype(dtype).itemsize * int(np.prod(row, dtype=np.int64))
        self.fd, self.place = fd, Place(path, len(header), row_bytes)
        # The same for every packer, so that whoever comes first does it.
        os.ftruncate(fd, len(header) + plan.n_positions * row_bytes)
        os.pwrite(fd, header, 0)

    def sha256(self, shard: Shard) -> str:
        """Checksum (hex) of the rows of a shard as they are on the disk."""
        size = shard.n_positions * self.place.row_bytes
        at = self.place.start + shard.first * self.place.row_bytes
        return hashlib.sha256(os.pread(self.fd, size, at)).hexdigest()


def record_file(draft: Path, number: int) -> Path:
    """The file that says that a shard is finished."""
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
    """Writes shards to a draft from any process of this machine. Pickles.

    Attributes:
        draft: the draft's folder.
        values: where the values go.
        missing: where the counts of missing values go, if there are any.
    """

    draft: Path
    values: Place
    missing: Place | None

    def __call__(self, shard: Shard, made: MadeShard) -> MadeShard:
        """Writes a shard to its place, unless it is recorded already.

        Returns:
            What was made, without what is written: little to send to the process
            that records it. Where there is a record already, all of it: that process
            decides whether the record is true.

        Raises:
            OSError: the disk is full or gone.
            DraftGone: another packer has published meanwhile.
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
