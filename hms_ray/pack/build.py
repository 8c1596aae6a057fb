"""Competition folder to a pack: built once, reused at once."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from hms_ray.config import digest
from hms_ray.errors import PackError
from hms_ray.pack.sources import input_files, input_signature, source_named
from hms_ray.pack.store import Pack, open_pack, read_manifest
from hms_ray.pack.write import Progress, write_pack

_DRAFT_AGE_S: Final = 24 * 3600.0
"""A draft untouched for this long is a killed builder's: a living one writes all the time."""
_MAX_THREADS: Final = 8
"""Threads share one interpreter for part of the work; more bring nothing."""
_OTHER_DIR: Final = "Name another folder with --pack-dir DIR."


def default_pack_dir(folder: str | Path) -> Path:
    """Where the packs of a competition folder are kept unless told otherwise."""
    return Path(folder) / "packed"


def pack_path(pack_dir: str | Path, source: str = "kaggle") -> Path:
    """The folder of a source's pack, by its present recipe; it need not exist.

    Raises:
        PackError: an unknown source.
    """
    return Path(pack_dir) / f"{source}-{digest(source_named(source).recipe)[:12]}"


def find_pack(folder: str | Path, pack_dir: str | Path, source: str = "kaggle") -> Pack | None:
    """The pack of a folder if it is there, whole, and made of the folder's present files.

    Args:
        folder: competition folder.
        pack_dir: where packs are kept.
        source: what is packed.

    Raises:
        DataError: the folder has no files of that source.
        PackError: an unknown source.
    """
    files = input_files(Path(folder), source_named(source))
    return _current(pack_path(pack_dir, source), input_signature(files))


def build_pack(
    folder: str | Path,
    pack_dir: str | Path,
    source: str = "kaggle",
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    rebuild: bool = False,
) -> Pack:
    """Packs all train recordings of a folder, or opens the pack made of them before.

    The pack is written to a draft folder and renamed when it is whole. Two
    builders do no harm: the second finds the first's pack and drops its own.

    Args:
        folder: competition folder.
        pack_dir: where packs are kept; made where absent.
        source: what is packed; ``kaggle``: the competition's own spectrograms.
        progress: called with (recordings done, recordings in all).
        workers: threads that read at once; as many as cores, at most 8, where absent.
        rebuild: build even if a pack of these files is there.

    Returns:
        The open pack.

    Raises:
        DataError: the folder or a file is missing, unreadable or malformed.
        PackError: an unknown source, too little space, or a folder of packs
            that cannot be written.
    """
    form = source_named(source)
    target = pack_path(pack_dir, source)
    files = input_files(Path(folder), form)
    signature = input_signature(files)
    if not rebuild and (pack := _current(target, signature)) is not None:
        return pack
    workers = workers or min(_MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        lengths = list(pool.map(form.length, [file.path for file in files]))
    draft = _make_draft(target)
    try:
        _check_space(draft, sum(lengths) * form.n_values * 2)
        write_pack(
            draft, form, files, lengths, signature=signature, progress=progress, workers=workers
        )
        return _publish(draft, target, signature, rebuild)
    except OSError as error:
        raise PackError(
            "a pack must be written whole", got=error.strerror, where=target, fix=_OTHER_DIR
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _current(target: Path, signature: str) -> Pack | None:
    try:
        if read_manifest(target)["input_signature"] != signature:
            return None
        return open_pack(target)
    except PackError:
        # Absent, of another format or damaged: it is built (again).
        return None


def _make_draft(target: Path) -> Path:
    draft = _draft_name(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        for old in target.parent.glob(f".{target.name}.*"):
            newest = max((path.stat().st_mtime for path in (old, *old.glob("*"))), default=0)
            if time.time() - newest > _DRAFT_AGE_S:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise PackError(
            "the folder of packs must be writable",
            got=error.strerror,
            where=target.parent,
            fix=_OTHER_DIR,
        ) from error
    return draft


def _draft_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PackError(
            f"a pack of these files needs {needed / 1e9:.2f} GB of free space",
            got=f"{free / 1e9:.2f} GB",
            where=folder.parent,
            fix=_OTHER_DIR,
        )


def _publish(draft: Path, target: Path, signature: str, rebuild: bool) -> Pack:
    """Moves a whole draft to its place."""
    if not rebuild and (other := _current(target, signature)) is not None:
        return other
    # A folder cannot be renamed onto a full one. Whoever has the old pack open
    # keeps its mapped pages.
    old = _draft_name(target)
    try:
        if target.exists():
            target.rename(old)
        draft.rename(target)
    except OSError:
        if old.exists() and not target.exists():
            old.rename(target)
        # Another builder was quicker by a moment.
        if not rebuild and (other := _current(target, signature)) is not None:
            return other
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    return open_pack(target)
