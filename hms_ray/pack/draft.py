"""Drafts of packs. A packer can be killed at any moment; the next one resumes its draft.

::

    .<pack>.<key>/
        pack/             the future pack; values.npy has its full size from the start
        shards/00007.json record of a finished shard, written after its values are on disk
        claims/00007      a shard that a packer has started
        lock              held while a shard is written or the pack is published

The key depends on recipe, windows and input files, so all packers of the same content work in
the same folder. A finished shard is never written again. Claims only avoid duplicate work;
correctness does not depend on them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from hms_ray.pack.layout import FORMAT, MISSING_FILE, VALUES_FILE
from hms_ray.pack.make import MadeShard
from hms_ray.pack.plan import PackPlan, Shard
from hms_ray.pack.shard_files import (
    LOCK_FILE,
    Column,
    DraftGone,
    ShardWriter,
    record_file,
)
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.hashing import digest
from hms_ray.storage.locks import short_lock

CLAIM_AGE_S: Final = 120.0
"""Older claims belong to killed packers: a shard takes seconds."""


@dataclass(frozen=True)
class ShardRecord:
    """Record of a finished shard; plain data. For details see ``MadeShard``.

    Attributes:
        sha256: (hex) of its values.
        missing_sha256: (hex) of its missing counts; empty for windows.
        n_missing: one number per item.
        usable: one flag per item.
        room: (before, after) per window; None without a margin.
    """

    sha256: str
    missing_sha256: str
    n_missing: list[int]
    usable: list[bool]
    room: list[list[int]] | None = None


class Draft:
    """An open draft; close it, or use it as a context manager.

    Args:
        target: folder of the future pack.
        plan: content of the pack.

    Raises:
        OSError: if the folder cannot be created.
        DraftGone: if another packer removes it at the same time.
    """

    def __init__(self, target: Path, plan: PackPlan) -> None:
        self.path = draft_path(target, plan)
        self.pack = self.path / "pack"
        self._plan = plan
        self._fds: list[int] = []
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            for folder in (self.pack, self._shards, self._claims):
                folder.mkdir(parents=True, exist_ok=True)
            row = (plan.source.n_values,)
            self._values = self._column(VALUES_FILE, "<f2", row)
            self._missing: Column | None = None
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
        """Closes the files; the draft stays on disk."""
        while self._fds:
            os.close(self._fds.pop())

    def drop(self) -> None:
        """Deletes the draft."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _shards(self) -> Path:
        return self.path / "shards"

    @property
    def _claims(self) -> Path:
        return self.path / "claims"

    def writer(self) -> ShardWriter:
        """A picklable writer of shards for other processes of this machine."""
        missing = None if self._missing is None else self._missing.place
        return ShardWriter(self.path, self._values.place, missing)

    def n_finished(self) -> int:
        """Number of recorded shards; their content is not checked."""
        return len(list(self._shards.glob("*.json")))

    def unwritten_bytes(self) -> int:
        """Bytes of values of shards that are not recorded yet."""
        left = [shard for shard in self._plan.shards if not self._record(shard.number).exists()]
        return sum(shard.n_positions for shard in left) * self._values.place.row_bytes

    def finished(self, shard: Shard) -> ShardRecord | None:
        """The record of a finished shard whose bytes match its checksums, otherwise None."""
        record = self._read_record(shard)
        if (
            record is not None
            and self._values.sha256(shard) == record.sha256
            and (self._missing is None or self._missing.sha256(shard) == record.missing_sha256)
        ):
            return record
        return None

    def claim(self, shard: Shard) -> bool:
        """Claims a shard; False if another packer claimed it less than ``CLAIM_AGE_S`` ago."""
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
        """Writes a shard, then records it; does nothing if it is recorded already.

        A shard that ``writer`` has written is only recorded.

        Raises:
            OSError: if the disk is full or unavailable.
            DraftGone: if another packer has published the pack meanwhile.
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
                room=None if made.room is None else made.room.tolist(),
            )
            with whole_file(self._record(shard.number)) as draft:
                draft.write_text(json.dumps(asdict(record)), encoding="utf-8")
        return record

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Prevents other packers from writing to the draft or publishing it.

        Raises:
            DraftGone: if the draft has been published or removed.
        """
        try:
            with short_lock(self.path / LOCK_FILE):
                here = os.stat(self.pack / VALUES_FILE).st_ino
                if here != os.fstat(self._values.fd).st_ino:
                    raise DraftGone
                yield
        except FileNotFoundError as error:
            raise DraftGone from error

    def _column(self, name: str, dtype: str, row: tuple[int, ...]) -> Column:
        return Column(self._open(self.pack / name), self.pack / name, self._plan, dtype, row)

    def _open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._fds.append(fd)
        return fd

    def _record(self, number: int) -> Path:
        return record_file(self.path, number)

    def _read_record(self, shard: Shard) -> ShardRecord | None:
        try:
            return ShardRecord(**json.loads(self._record(shard.number).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def draft_path(target: Path, plan: PackPlan) -> Path:
    """The folder in which all packers of this content work."""
    lengths = [[item.start, item.length] for shard in plan.shards for item in shard.items]
    key = digest([FORMAT, plan.signature, len(plan.shards), lengths])
    return target.with_name(f".{target.name}.{key[:16]}")
