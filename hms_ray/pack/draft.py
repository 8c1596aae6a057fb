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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from hms_ray.pack.layout import FORMAT, MISSING_FILE, VALUES_FILE
from hms_ray.pack.make import MadeShard, ShardRecord
from hms_ray.pack.plan import PackPlan, Shard
from hms_ray.pack.shard_files import ShardFile
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.hashing import digest
from hms_ray.storage.locks import short_lock

CLAIM_AGE_S: Final = 120.0
"""Older claims belong to killed packers: a shard takes seconds."""


class DraftGone(Exception):  # noqa: N818 - not an error: another packer was faster
    """Another packer has published or removed the draft."""


@dataclass(frozen=True)
class Draft:
    """A draft; picklable, so that any process of this machine can write its shards.

    Attributes:
        path: its folder.
        values: file of the values.
        missing: file of the counts of missing values; None for windows.
    """

    path: Path
    values: ShardFile
    missing: ShardFile | None

    @property
    def pack(self) -> Path:
        """Folder that is published."""
        return self.path / "pack"

    def drop(self) -> None:
        """Deletes the draft."""
        shutil.rmtree(self.path, ignore_errors=True)

    def n_finished(self) -> int:
        """Number of recorded shards; their content is not checked."""
        return len(list((self.path / "shards").glob("*.json")))

    def unwritten_bytes(self, shards: Sequence[Shard]) -> int:
        """Bytes of values of those shards that are not recorded yet."""
        left = [shard.n_positions for shard in shards if not self._record_file(shard).exists()]
        return sum(left) * self.values.row_bytes

    @contextmanager
    def held(self) -> Iterator[int]:
        """A descriptor of the values: until it is closed, no other file is that file.

        Raises:
            DraftGone: if the draft has been published or removed.
        """
        try:
            values = self.values.path.open("rb")
        except FileNotFoundError as error:
            raise DraftGone from error
        with values:
            yield values.fileno()

    def finished(self, shard: Shard) -> ShardRecord | None:
        """The record of a finished shard whose bytes match its checksums, otherwise None."""
        with suppress(OSError, ValueError, TypeError):
            record = ShardRecord(**json.loads(self._record_file(shard).read_text("utf-8")))
            if self.values.sha256(shard) == record.sha256 and (
                self.missing is None or self.missing.sha256(shard) == record.missing_sha256
            ):
                return record
        return None

    def claim(self, shard: Shard) -> bool:
        """Claims a shard; False if another packer claimed it less than ``CLAIM_AGE_S`` ago."""
        claim = self.path / "claims" / f"{shard.number:05d}"
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time.time() - claim.stat().st_mtime < CLAIM_AGE_S:
                    return False
                os.utime(claim)
        except FileNotFoundError as error:
            raise DraftGone from error
        return True

    def store(self, shard: Shard, made: MadeShard) -> MadeShard:
        """Writes a shard, then records it, unless it is finished or was stored already.

        Returns:
            The shard without its arrays, which is small to send to another process.

        Raises:
            OSError: if the disk is full or unavailable.
            DraftGone: if another packer has published the pack meanwhile.
        """
        if made.values is None:
            return made
        with self.locked():
            record = self.finished(shard)
            if record is None:
                record = made.record
                self.values.write(shard, made.values)
                if self.missing is not None and made.missing is not None:
                    self.missing.write(shard, made.missing)
                with whole_file(self._record_file(shard)) as draft:
                    draft.write_text(json.dumps(asdict(record)), encoding="utf-8")
        return MadeShard(made.number, record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Prevents other packers from writing to the draft or publishing it.

        Without locks of the file system, packers rely on writing equal bytes.

        Raises:
            DraftGone: if the draft has been published or removed.
        """
        try:
            with short_lock(self.path / "lock"):
                yield
        except FileNotFoundError as error:
            raise DraftGone from error

    def _record_file(self, shard: Shard) -> Path:
        return self.path / "shards" / f"{shard.number:05d}.json"


def open_draft(target: Path, plan: PackPlan) -> Draft:
    """Opens the draft of a pack; creates it if there is none.

    Args:
        target: folder of the future pack.
        plan: content of the pack.

    Raises:
        OSError: if the folder cannot be created.
        DraftGone: if another packer removes it at the same time.
    """
    lengths = [[item.start, item.length] for shard in plan.shards for item in shard.items]
    key = digest([FORMAT, plan.signature, len(plan.shards), lengths])
    path = target.with_name(f".{target.name}.{key[:16]}")
    n, source = plan.n_positions, plan.source
    values = ShardFile(path / "pack" / VALUES_FILE, "<f2", (n, source.n_values))
    missing = None
    if source.kind == "recordings":
        missing = ShardFile(path / "pack" / MISSING_FILE, "<u2", (n,))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        for name in ("pack", "shards", "claims"):
            (path / name).mkdir(parents=True, exist_ok=True)
        values.create()
        if missing is not None:
            missing.create()
    except FileNotFoundError as error:
        raise DraftGone from error
    return Draft(path, values, missing)
