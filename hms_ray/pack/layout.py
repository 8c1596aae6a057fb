"""Layout, manifest and fingerprint of packs.

A pack is one source by one recipe, as one array::

    <source>-<first 12 digits of a hash of recipe and windows>/
        values.npy           float16 (n_positions, P * F), all items one after another
        missing.npy          (recordings) uint16 (n_positions,), number of NaN values
        recordings.parquet   one row per item, see ``Pack.recordings``
        manifest.json        format, recipe, fingerprint, sizes, checksums by shard

An item is a whole recording or one window of an EEG. A training row is (recording, start), so
all row units and all shifts of windows share one pack of recordings. A pack of windows
contains only the windows for which it was built.

With a margin of m positions, a window of T positions is followed by its strip of T + 2 m
positions: its EEG from m positions before the window to m after it, NaN beyond the ends of
the EEG. A window shifted by k positions starts at position T + m + k of its item.
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
"""Incremented when the layout changes; packs of other formats are refused."""
VALUES_FILE: Final = "values.npy"
MISSING_FILE: Final = "missing.npy"
RECORDINGS_FILE: Final = "recordings.parquet"
MANIFEST_FILE: Final = "manifest.json"
VERIFIED_FILE: Final = "verified.json"
"""Sizes and times of the files at their last verification; not part of the pack."""
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
        recordings: as in ``Pack``. Its values are hashed, not its file: parquet files contain
            the version of their writer.
        shards: first position, length and checksums of each, as in the manifest.
    """
    index = hashlib.sha256()
    for numbers in (recordings.index, *(recordings[name] for name in recordings.columns)):
        index.update(numbers.to_numpy().astype("<i8").tobytes())
    return digest({"recipe": recipe, "recordings": index.hexdigest(), "shards": list(shards)})


def read_pack_manifest(path: Path) -> dict[str, Any]:
    """Reads the manifest of a pack.

    Raises:
        PackError: if it is missing, not JSON, or of another format.
    """
    file = path / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackError("a pack must exist", where=path, fix=BUILD) from None
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
    """The error for a pack that differs from what was written."""
    return PackError("a pack must be complete and unchanged", got=got, where=where, fix=BUILD_AGAIN)


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of an ``.npy`` file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
