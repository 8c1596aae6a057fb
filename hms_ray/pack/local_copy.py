"""Copies of packs on a machine's own disk: made once per machine, compared with their checksums.

A copy is made as a draft under a lock, so that the first worker of a machine makes it and the
others wait. It is opened only after its content was compared with its checksums; later workers
compare sizes and times. Copies stay until someone removes the folder: two studies of the same
packs share them.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path
from typing import Final

from filelock import FileLock

from hms_ray.errors import PackError
from hms_ray.pack.layout import MANIFEST_FILE, read_pack_manifest
from hms_ray.pack.verify import require_verified
from hms_ray.storage.atomic import whole_folder
from hms_ray.storage.drafts import remove_leftovers

logger = logging.getLogger(__name__)

_DIGITS: Final = 16
_LABEL: Final = "pack-copy-"
_PRIVATE: Final = 0o700

_without_cache: set[Path] = set()
"""Folders that failed, of which this process has warned."""


def local_copy(pack: Path, fingerprint: str, cache: Path) -> Path:
    """The folder of a pack's copy on this machine, made if it is missing or damaged.

    Args:
        pack: folder of the pack.
        fingerprint: of its content, see ``Pack.fingerprint``.
        cache: folder on a local disk; made if missing, for this user alone.

    Returns:
        Folder of the copy; ``pack`` itself, with one warning per process and folder, if the
        copy cannot be made, for example because the disk is full.

    Raises:
        PackError: if the pack itself is damaged.
    """
    if cache in _without_cache:
        return pack
    try:
        return _made(pack, fingerprint, cache / f"{pack.name}-{fingerprint[:_DIGITS]}")
    except OSError as error:
        _without_cache.add(cache)
        logger.warning(
            "packs are read from %s: no local copies in %s (%s)",
            pack.parent,
            cache,
            error.strerror or type(error).__name__,
        )
        return pack


def _made(pack: Path, fingerprint: str, copy: Path) -> Path:
    """The copy, checked; made if it is missing or damaged."""
    _make_private(copy.parent)
    with FileLock(copy.parent / f".{copy.name}.lock", fallback_to_soft=False):
        if _is_sound(copy):
            return copy
        manifest = read_pack_manifest(pack)
        if manifest["fingerprint"] != fingerprint:
            # Built again from other data: whoever opens the pack reports it.
            return pack
        remove_leftovers(copy.parent, _LABEL)
        with whole_folder(copy, if_exists="replace", label=_LABEL) as draft:
            for name in (MANIFEST_FILE, *manifest["files"]):
                shutil.copyfile(pack / name, draft / name)
            try:
                require_verified(draft)
            except PackError as error:
                require_verified(pack)
                raise OSError(errno.EIO, f"the copy differs from the pack, {error.got}") from None
        logger.info("pack copied to %s", copy)
    return copy


def _is_sound(copy: Path) -> bool:
    """Whether there is a copy whose content matches its checksums; a damaged one is removed."""
    if not (copy / MANIFEST_FILE).is_file():
        return False
    try:
        require_verified(copy)
    except PackError as error:
        logger.warning("a local copy of a pack is made again: %s", error)
        shutil.rmtree(copy)
        return False
    return True


def _make_private(folder: Path) -> None:
    """Makes a folder that only this user can read; recordings are patients' data.

    Raises:
        PermissionError: if it belongs to another user, who could change what is trained on.
    """
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "the folder belongs to another user", str(folder))
