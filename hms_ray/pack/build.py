"""Builds the pack of a competition folder, or opens the existing one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from hms_ray.errors import PackError
from hms_ray.pack.draft import Draft, DraftGone, open_draft
from hms_ray.pack.inputs import ChangedFileError, input_files, input_signature
from hms_ray.pack.layout import read_pack_manifest
from hms_ray.pack.make import ShardRecord, make_shard
from hms_ray.pack.parallel import Mapper, default_workers, local_mapper
from hms_ray.pack.plan import PackPlan, Shard, plan_pack
from hms_ray.pack.sources import KAGGLE, PackSource
from hms_ray.pack.store import Pack, open_pack
from hms_ray.pack.windows import Recordings, Windows
from hms_ray.pack.write import write_tables
from hms_ray.storage.atomic import move_folder
from hms_ray.storage.drafts import DRAFT_PREFIX
from hms_ray.storage.hashing import digest

Progress = Callable[[int, int], None]

_DRAFT_AGE_S: Final = 24 * 3600.0
"""A draft without writes for this long is abandoned: a running packer writes every few
seconds."""
_MAX_THREADS: Final = 8
"""Threads that read footers: the parser releases the GIL, and disks serve a few readers well."""
_MAX_ATTEMPTS: Final = 3
_OTHER_DIR: Final = "Use another folder with --pack-dir DIR."


def default_pack_dir(folder: str | Path) -> Path:
    """The default folder for the packs of a competition folder."""
    return Path(folder) / "packed"


def pack_path(
    pack_dir: str | Path, source: PackSource = KAGGLE, part: Windows | Recordings | None = None
) -> Path:
    """The folder of a pack, named by its recipe and its part; it need not exist."""
    name = source.recipe if part is None else [source.recipe, part.digest]
    return Path(pack_dir) / f"{source.name}-{digest(name)[:12]}"


def find_pack(
    folder: str | Path,
    pack_dir: str | Path,
    source: PackSource = KAGGLE,
    part: Windows | Recordings | None = None,
) -> Pack | None:
    """The pack of a folder; None if it is absent, damaged or built from other files.

    For arguments see ``build_pack``.

    Raises:
        DataError: if the folder has no files of that source.
    """
    files = input_files(Path(folder), source.directory, _ids(part))
    return _current(pack_path(pack_dir, source, part), input_signature(files))


def _ids(part: Windows | Recordings | None) -> Sequence[int] | None:
    """The recordings of a part of a source; None for all."""
    match part:
        case Windows():
            ids: list[int] = part.eeg_ids.tolist()
            return ids
        case Recordings():
            return part.ids
    return None


def build_pack(
    folder: str | Path,
    pack_dir: str | Path,
    source: PackSource = KAGGLE,
    part: Windows | Recordings | None = None,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    mapper: Mapper | None = None,
    rebuild: bool = False,
) -> Pack:
    """Packs a source of a folder, or opens its existing pack.

    Values are written shard by shard to a draft folder, which is renamed when complete. The
    next packer reuses the finished shards of a killed one; packers that run at the same time
    share the work.

    Args:
        folder: competition folder.
        pack_dir: folder of packs; created if absent.
        source: source to pack.
        part: windows to pack, for a source of windows; for one of recordings, which are
            packed whole, those to pack. Default: all recordings.
        progress: called with (finished items, all items), first with those that an earlier
            packer finished; items are recordings or windows.
        workers: shards made at the same time on this machine, one core each. Default:
            number of cores. With 1 they are made in this thread.
        mapper: makes shards elsewhere, instead of ``workers``.
        rebuild: build even if the pack exists.

    Raises:
        DataError: if the folder or a file is missing, unreadable, malformed, too short, or
            changes during packing.
        PackError: if the disk is too full, or the folder of packs is not writable or belongs
            to another competition folder.
        ValueError: if windows are given for recordings, or missing for a source of windows.
    """
    windows = part if isinstance(part, Windows) else None
    if (source.kind == "windows") != (windows is not None):
        raise ValueError(f"windows must be given for sources of windows only, got {source.name}")
    target = pack_path(pack_dir, source, part)
    files = input_files(Path(folder), source.directory, _ids(part))
    signature = input_signature(files)
    if not rebuild and (pack := _current(target, signature)) is not None:
        return pack
    _require_own(target, Path(folder))
    workers = workers or default_workers()
    plan = plan_pack(source, files, windows, signature, min(_MAX_THREADS, workers))
    for _ in range(_MAX_ATTEMPTS):
        try:
            return _build(target, plan, mapper or workers, progress, rebuild)
        except DraftGone:
            if (pack := _current(target, signature)) is not None:
                return pack
    raise PackError(
        "a draft of a pack must not be removed while it is written",
        where=target.parent,
        fix="Run the command again.",
    )


def _build(
    target: Path, plan: PackPlan, makers: Mapper | int, progress: Progress | None, rebuild: bool
) -> Pack:
    try:
        draft = open_draft(target, plan)
        _drop_old_drafts(target, draft.path)
    except OSError as error:
        raise PackError(
            "the folder of packs must be writable",
            got=error.strerror,
            where=target.parent,
            fix=_OTHER_DIR,
        ) from error
    with draft.held() as held:
        # Another packer may have published since this one looked.
        if not rebuild and (pack := _current(target, plan.signature)) is not None:
            draft.drop()
            return pack
        try:
            _check_space(draft, plan, target.parent)
            mapper = makers
            if isinstance(mapper, int):
                mapper = local_mapper(mapper, len(plan.shards), draft.store)
            records = _fill(draft, plan, mapper, progress or (lambda done, total: None))
            return _publish(draft, held, plan, records, target)
        except OSError as error:
            raise PackError(
                "the disk must accept all files of a pack",
                got=error.strerror,
                where=target,
                fix=_OTHER_DIR,
            ) from error
        except ChangedFileError:
            # No later packer would use this draft: its name depends on the input files.
            draft.drop()
            raise
        finally:
            if draft.n_finished() == 0:
                draft.drop()


def _fill(draft: Draft, plan: PackPlan, mapper: Mapper, progress: Progress) -> list[ShardRecord]:
    """Makes all missing shards; returns the records of all shards."""
    records: dict[int, ShardRecord] = {}
    done = 0

    def adopt(shard: Shard) -> bool:
        nonlocal done
        record = draft.finished(shard)
        if record is not None:
            records[shard.number] = record
            done += len(shard.items)
        return record is not None

    def pending() -> Iterator[Shard]:
        later = []
        for shard in unfinished:
            if not draft.claim(shard):
                later.append(shard)
            else:
                yield shard
        # By now other packers have finished the shards that they claimed, or are gone.
        for shard in later:
            if adopt(shard):
                progress(done, plan.n_items)
            else:
                yield shard

    unfinished = [shard for shard in plan.shards if not adopt(shard)]
    progress(done, plan.n_items)
    for made in mapper(partial(make_shard, plan.source), pending()):
        shard = plan.shards[made.number]
        records[shard.number] = draft.store(shard, made).record
        done += len(shard.items)
        progress(done, plan.n_items)
    return [records[shard.number] for shard in plan.shards]


def _current(target: Path, signature: str) -> Pack | None:
    try:
        if read_pack_manifest(target)["input_signature"] != signature:
            return None
        return open_pack(target)
    except PackError:
        # Absent, of another format or damaged: it is (re)built.
        return None


def _require_own(target: Path, folder: Path) -> None:
    """Refuses to replace the pack of another existing competition folder.

    A study of that folder may be running; each would rebuild the other's pack.
    """
    own = folder.resolve()
    if target.resolve().is_relative_to(own):
        return  # the folder may have been copied with its packs
    try:
        owner = read_pack_manifest(target).get("folder")
    except PackError:
        return
    if owner is None or Path(owner) == own or not Path(owner).is_dir():
        return
    raise PackError(
        "a folder of packs must belong to one competition folder",
        got=f"packs of {owner}",
        where=target.parent,
        fix=_OTHER_DIR,
    )


def _drop_old_drafts(target: Path, own: Path) -> None:
    packs = target.parent
    for old in (*packs.glob(f".{target.name}.*"), *packs.glob(f"{DRAFT_PREFIX}*")):
        # Files come and go in the draft of a living packer.
        with suppress(FileNotFoundError):
            newest = max(path.stat().st_mtime for path in (old, *old.rglob("*")))
            if old != own and time.time() - newest > _DRAFT_AGE_S:
                shutil.rmtree(old, ignore_errors=True)


def _check_space(draft: Draft, plan: PackPlan, folder: Path) -> None:
    needed, free = draft.unwritten_bytes(plan.shards), shutil.disk_usage(folder).free
    if free < needed:
        raise PackError(
            f"a pack of these files needs {needed / 1e9:.2f} GB of free space",
            got=f"{free / 1e9:.2f} GB",
            where=folder,
            fix=_OTHER_DIR,
        )


def _publish(
    draft: Draft, held: int, plan: PackPlan, records: list[ShardRecord], target: Path
) -> Pack:
    """Completes a draft and renames it to the pack's folder."""
    with draft.locked():
        # Another packer may have published this draft and begun a new one.
        if not os.path.samestat(os.fstat(held), draft.values.path.stat()):
            raise DraftGone
        write_tables(draft.pack, plan, records)
        move_folder(draft.pack, target, "replace")
    draft.drop()
    return open_pack(target)
