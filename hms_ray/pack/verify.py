"""Compares the content of a pack with its checksums, shard by shard."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_ray.errors import PackError
from hms_ray.pack.layout import (
    BUILD_AGAIN,
    MANIFEST_FILE,
    MISSING_FILE,
    RECORDINGS_FILE,
    VALUES_FILE,
    VERIFIED_FILE,
    damaged_pack,
    npy_header,
    pack_fingerprint,
    read_pack_manifest,
)
from hms_ray.pack.store import Pack, open_pack
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.hashing import file_sha256
from hms_ray.text import counted, shortened_list


def verify_pack(path: str | Path) -> Pack:
    """Reads a whole pack, compares it with its checksums and opens it.

    Raises:
        PackError: see ``open_pack``; also if the content of a file differs from its checksum
            (the file, shard and recordings are named) or the fingerprint does not match.
    """
    path = Path(path)
    pack = open_pack(path)
    manifest = read_pack_manifest(path)
    table = path / RECORDINGS_FILE
    _compare(table, file_sha256(table), manifest["files"][RECORDINGS_FILE]["sha256"])
    _verify_array(pack, VALUES_FILE, pack.values, manifest["shards"], "sha256")
    if pack.missing is not None:
        _verify_array(pack, MISSING_FILE, pack.missing, manifest["shards"], "missing_sha256")
    if pack_fingerprint(pack.recipe, pack.recordings, manifest["shards"]) != pack.fingerprint:
        raise damaged_pack(path, "a fingerprint of other content")
    return pack


def require_verified(path: str | Path) -> None:
    """Verifies a pack unless it was verified since its last change.

    Sizes and times of verified files are stored with them, so that only a new, copied or
    changed pack is read.

    Args:
        path: folder of the pack.

    Raises:
        PackError: see ``verify_pack``.
    """
    path = Path(path)
    seen = _file_states(path)
    with suppress(OSError, ValueError):
        if json.loads((path / VERIFIED_FILE).read_text(encoding="utf-8")) == seen:
            return
    verify_pack(path)
    # A shared pack may be read-only; it is then verified each time.
    with suppress(OSError), whole_file(path / VERIFIED_FILE, fsync=False) as draft:
        draft.write_text(json.dumps(seen) + "\n", encoding="utf-8")


def _file_states(path: Path) -> dict[str, list[int]]:
    files = (MANIFEST_FILE, *read_pack_manifest(path)["files"])
    states = {name: (path / name).stat() for name in files if (path / name).exists()}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}


def _verify_array(
    pack: Pack, name: str, values: NDArray[Any], shards: list[dict[str, Any]], key: str
) -> None:
    file = pack.path / name
    expected = npy_header(values.dtype.newbyteorder("<").str, values.shape)
    with file.open("rb") as stream:
        if stream.read(len(expected)) != expected:
            raise damaged_pack(file, "another header")
    for number, shard in enumerate(shards):
        part = values[shard["first"] : shard["first"] + shard["n"]]
        found = hashlib.sha256(np.ascontiguousarray(part).data).hexdigest()
        _compare(file, found, shard[key], f", shard {number}: {_items(pack, shard)}")
    if sum(shard["n"] for shard in shards) != len(values):
        raise damaged_pack(pack.path, "shards of another length")


def _items(pack: Pack, shard: dict[str, Any]) -> str:
    """The recordings or windows of a shard, for error messages."""
    offsets = pack.recordings["offset"]
    inside = (offsets >= shard["first"]) & (offsets < shard["first"] + shard["n"])
    held = pack.recordings[inside]
    if pack.kind == "recordings":
        return f"recordings {shortened_list(held.index.tolist(), 3)}"
    return (
        f"{counted(len(held), 'window')} of EEGs {shortened_list(held.index.unique().tolist(), 3)}"
    )


def _compare(file: Path, found: str, expected: str, part: str = "") -> None:
    if found != expected:
        raise PackError(
            "a pack's file must match its checksum",
            got=f"SHA-256 {found[:12]} instead of {expected[:12]}",
            where=f"{file}{part}",
            fix=BUILD_AGAIN,
        )
