"""Layout, manifest and fingerprint of packs.

A pack holds one source, made by one recipe, as one array::

    <source>-<first 12 digits of a hash of recipe and windows>/
        values.npy           float16 (n_positions, P * F), items end to end
        missing.npy          (recordings) uint16 (n_positions,), NaN among the values
        recordings.parquet   a line an item, see ``Pack.recordings``
        manifest.json        format, recipe, fingerprint, sizes, checksums by shard

An item is a whole recording or one window of an EEG. A training row is
(recording, start), so every row unit and every shift of a window shares one pack
of recordings; a pack of windows holds those that it was made for.

With a margin of m positions, a window of T positions is followed by its strip, T + 2 m
positions: what its EEG has from m positions before the window to m after it, NaN beyond
the ends of the EEG. A window moved by k positions begins at T + m + k of its item.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hms_ray.errors import PackError
from hms_ray.storage.hashing import digest

FORMAT: Final = 2
"""Raised when the layout changes; packs of other formats are refused."""
VALUES_FILE: Final = "values.npy"
MISSING_FILE: Final = "missing.npy"
RECORDINGS_FILE: Final = "recordings.parquet"
MANIFEST_FILE: Final = "manifest.json"
VERIFIED_FILE: Final = "verified.json"
"""Sizes and times of files when their content was last compared; no part of the pack."""
BUILD: Final = "Build it with: hms-ray pack DIR [--space FILE]"
BUILD_AGAIN: Final = "Build it again with: hms-ray pack DIR [--space FILE] --rebuild"
MANIFEST_KEYS: Final = (
    *("format", "source", "kind", "recipe", "fingerprint", "panels", "n_frequencies", "window"),
    *("step_s", "n_samples", "files", "shards", "input_signature"),
)


def pack_fingerprint(
    recipe: dict[str, Any], recordings: pd.DataFrame, shards: Sequence[dict[str, Any]]
) -> str:
    """SHA-256 (hex) of a pack's content.

    Args:
        recipe: plain data.
        recordings: as of ``Pack``. Its numbers count, not its file: parquet
            files name the version of their writer.
        shards: first position, length and checksums of each, as in the manifest.
    """
    index = hashlib.sha256()
    for numbers in (recordings.index, *(recordings[name] for name in recordings.columns)):
        index.update(numbers.to_numpy().astype("<i8").tobytes())
    return digest({"recipe": recipe, "recordings": index.hexdigest(), "shards": list(shards)})


def read_pack_manifest(path: Path) -> dict[str, Any]:
    """A pack's manifest.

    Raises:
        PackError: none there, not JSON, or of another format.
    """
    file = path / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackError("a pack must have been built", where=path, fix=BUILD) from None
    except (OSError, ValueError) as error:
        raise damaged_pack(file, str(error)) from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise PackError(
            f"a pack must be of format {FORMAT}", got=repr(found), where=file, fix=BUILD_AGAIN
        )
    missing = [key for key in MANIFEST_KEYS if key not in manifest]
    if missing:
        raise damaged_pack(file, f"no {', '.join(missing)}")
    return dict(manifest)


def damaged_pack(where: Path, got: str) -> PackError:
    """The error of a pack that is not what a packer wrote."""
    return PackError("a pack must be whole", got=got, where=where, fix=BUILD_AGAIN)


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """First bytes of an ``.npy`` file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
