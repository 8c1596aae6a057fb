"""A pack in the making: killed at any moment, the next packer goes on with it.

::

    .<pack>.<key>/
        pack/             what will be the pack; values.npy has its full size at once
        shards/00007.json a finished shard: written after its values are on the disk
        claims/00007      a shard that some packer has begun
        lock              held while a shard is written or the pack is published

The key follows from recipe, windows and input files, so every packer of the
same content works in the same folder. A finished shard is never written again;
claims only keep packers from doing the same work, nothing depends on them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from hms_ray.config import digest
from hms_ray.pack.layout import FORMAT, MISSING_FILE, VALUES_FILE, npy_header
from hms_ray.pack.make import MadeShard
from hms_ray.pack.plan import Plan, Shard

LOCK_FILE: Final = "lock"
CLAIM_AGE_S: Final = 120.0
"""An older claim is a killed packer's: a shard takes seconds."""


class DraftGone(Exception):  # noqa: N818 - no error: another packer was quicker
    """The draft was published or removed by another packer."""


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard; plain data.

    Attributes:
        sha256: (hex) of its values.
        missing_sha256: (hex) of its missing counts; empty where there are none.
        n_missing: of each item, see ``MadeShard``.
        usable: of each item.
    """

    sha256: str
    missing_sha256: str
    n_missing: list[int]
    usable: list[bool]


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards to a draft from any process of this machine. Pickles.

    Attributes:
        draft: the draft's folder.
        values: where the values go.
        missing: where the counts of missing values go, if there are any.
    """

    draft: Path
    values: _Place
    missing: _Place | None

    def __call__(self, shard: Shard, made: MadeShard) -> MadeShard:
        """Writes a shard to its place, unless it is recorded already.

        Returns:
            What was made, without what is written: little to send to the process
            that records it.

        Raises:
            OSError: the disk is full or gone.
            DraftGone: another packer has published meanwhile.
        """
        try:
            with _opened(self.draft / LOCK_FILE) as lock, _held(lock):
                if not _record_file(self.draft, shard.number).exists():
                    for place, part in ((self.values, made.values), (self.missing, made.missing)):
                        if place is not None and part is not None:
                            with _opened(place.path) as fd:
                                place.write(fd, shard, part)
        except FileNotFoundError as error:
            raise DraftGone from error
        return replace(made, values=None, missing=None)


class Draft:
    """An open draft. Close it, or use it as a context.

    Args:
        target: the folder that the pack will have.
        plan: what it will hold.

    Raises:
        OSError: the folder cannot be made.
        DraftGone: another packer removed it in that moment.
    """

    def __init__(self, target: Path, plan: Plan) -> None:
        self.path = draft_path(target, plan)
        self.pack = self.path / "pack"
        self._plan = plan
        self._fds: list[int] = []
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            for folder in (self.pack, self._shards, self._claims):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._open(self.path / LOCK_FILE)
            row = (plan.source.n_values,)
            self._values = self._column(VALUES_FILE, "<f2", row)
            self._missing: _Column | None = None
            if plan.source.kind == "recordings":
                self._missing = self._column(MISSING_FILE, "<u2", ())
        except FileNotFoundError as error:
            self.close()
            raise DraftGone from error
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files; the draft stays."""
        while self._fds:
            os.close(self._fds.pop())

    def drop(self) -> None:
        """Removes the draft."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _shards(self) -> Path:
        return self.path / "shards"

    @property
    def _claims(self) -> Path:
        return self.path / "claims"

    def writer(self) -> ShardWriter:
        """Writes shards from other processes of this machine."""
        missing = None if self._missing is None else self._missing.place
        return ShardWriter(self.path, self._values.place, missing)

    def n_finished(self) -> int:
        """Shards that are recorded, their content not looked at."""
        return len(list(self._shards.glob("*.json")))

    def unwritten_bytes(self) -> int:
        """Bytes of values that are not yet recorded."""
        left = [shard for shard in self._plan.shards if not self._record(shard.number).exists()]
        return sum(shard.n_positions for shard in left) * self._values.place.row_bytes

    def finished(self, shard: Shard) -> ShardRecord | None:
        """A finished shard's record if its bytes are still those that were written."""
        record = self._read_record(shard)
        if record is None or self._values.sha256(shard) != record.sha256:
            return None
        if self._missing is not None and self._missing.sha256(shard) != record.missing_sha256:
            return None
        return record

    def claim(self, shard: Shard) -> bool:
        """Takes a shard, unless another packer took it a short while ago."""
        claim = self._claims / f"{shard.number:05d}"
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time.time() - claim.stat().st_mtime < CLAIM_AGE_S:
                    return False
                os.utime(claim)
        except FileNotFoundError as error:
            raise DraftGone from error
        return True

    def commit(self, shard: Shard, made: MadeShard) -> ShardRecord:
        """Writes a shard to its place, then records it, unless it is recorded already.

        A shard that was written by ``writer`` is only recorded.

        Raises:
            OSError: the disk is full or gone.
            DraftGone: another packer has published meanwhile.
        """
        with self.locked():
            if (record := self.finished(shard)) is not None:
                return record
            for column, part in ((self._values, made.values), (self._missing, made.missing)):
                if column is not None and part is not None:
                    column.place.write(column.fd, shard, part)
            record = ShardRecord(
                sha256=made.sha256,
                missing_sha256=made.missing_sha256,
                n_missing=made.n_missing.tolist(),
                usable=made.usable.tolist(),
            )
            write_whole(self._record(shard.number), json.dumps(asdict(record)))
        return record

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other packer writes to the draft or publishes it meanwhile.

        Raises:
            DraftGone: it was published or removed before.
        """
        with _held(self._lock):
            try:
                here = os.stat(self.pack / VALUES_FILE).st_ino
                if here != os.fstat(self._values.fd).st_ino:
                    raise DraftGone
                yield
            except FileNotFoundError as error:
                raise DraftGone from error

    def _column(self, name: str, dtype: str, row: tuple[int, ...]) -> _Column:
        return _Column(self._open(self.pack / name), self.pack / name, self._plan, dtype, row)

    def _open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._fds.append(fd)
        return fd

    def _record(self, number: int) -> Path:
        return _record_file(self.path, number)

    def _read_record(self, shard: Shard) -> ShardRecord | None:
        try:
            return ShardRecord(**json.loads(self._record(shard.number).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class _Place:
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
        left = np.ascontiguousarray(values).data.cast("B")
        at = self.start + shard.first * self.row_bytes
        while left:
            n = os.pwrite(fd, left, at)
            left, at = left[n:], at + n
        # The record of a shard must not outlive its values in a power failure.
        os.fsync(fd)


class _Column:
    """An open ``.npy`` file of its full size, written shard by shard."""

    def __init__(self, fd: int, path: Path, plan: Plan, dtype: str, row: tuple[int, ...]) -> None:
        header = npy_header(dtype, (plan.n_positions, *row))
        row_bytes = np.dtype(dtype).itemsize * int(np.prod(row, dtype=np.int64))
        self.fd, self.place = fd, _Place(path, len(header), row_bytes)
        # The same for every packer, so that whoever comes first does it.
        os.ftruncate(fd, len(header) + plan.n_positions * row_bytes)
        os.pwrite(fd, header, 0)

    def sha256(self, shard: Shard) -> str:
        size = shard.n_positions * self.place.row_bytes
        at = self.place.start + shard.first * self.place.row_bytes
        return hashlib.sha256(os.pread(self.fd, size, at)).hexdigest()


def _record_file(draft: Path, number: int) -> Path:
    return draft / "shards" / f"{number:05d}.json"


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _held(lock: int) -> Iterator[None]:
    # Some network file systems have no locks. There packers rest on writing equal bytes.
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)


def draft_path(target: Path, plan: Plan) -> Path:
    """The folder in which every packer of this content works."""
    lengths = [[item.start, item.length] for shard in plan.shards for item in shard.items]
    key = digest([FORMAT, plan.signature, len(plan.shards), lengths])
    return target.with_name(f".{target.name}.{key[:16]}")


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is, whatever happens, whole or as it was."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with draft.open("wb") as out:
        out.write(text.encode())
        out.flush()
        os.fsync(out.fileno())
    os.replace(draft, path)
