"""Layout, fingerprint, checksums and memory maps of packs.

A pack holds whole recordings of one source, made by one recipe, as one array::

    <source>-<first 12 digits of the recipe's hash>/
        values.npy           float16 (n_positions, P * F), recordings end to end
        recordings.parquet   recording_id, offset, length (int64), sorted by id
        manifest.json        format, recipe, fingerprint, sizes, checksums

A training row is (recording, start), so every row unit and every shift of a
window shares one pack.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from hms_ray.config import digest
from hms_ray.errors import PackError

FORMAT: Final = 1
"""Raised when the layout changes; packs of other formats are refused."""
VALUES_FILE: Final = "values.npy"
RECORDINGS_FILE: Final = "recordings.parquet"
MANIFEST_FILE: Final = "manifest.json"
BUILD: Final = "Build it with: hms-ray pack DIR"
BUILD_AGAIN: Final = "Build it again with: hms-ray pack DIR --rebuild"
_CHUNK_BYTES: Final = 1 << 22


@dataclass(frozen=True, eq=False)
class Pack:
    """An open pack. Pickles as its path: whoever receives it maps the file itself.

    Attributes:
        path: the pack's folder.
        source: name of the source, such as ``kaggle``.
        recipe: what was done to the source's values, as plain data.
        fingerprint: SHA-256 (hex) of recipe, recordings and values; the same
            for equal content, wherever and whenever it was packed.
        panels: names of the P panels.
        n_frequencies: F, frequencies a panel.
        window: positions that a training row uses.
        step_s: seconds from one position to the next.
        recordings: index ``recording_id`` (int64, sorted), columns ``offset``
            (first position) and ``length`` (positions), int64.
        values: float16 (n_positions, P * F), panel-major, NaN possible. Mapped
            copy-on-write: pages are shared between processes.
    """

    path: Path
    source: str
    recipe: dict[str, Any]
    fingerprint: str
    panels: tuple[str, ...]
    n_frequencies: int
    window: int
    step_s: float
    recordings: pd.DataFrame
    values: NDArray[np.float16]

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker gets the path, never a copy of the array.
        return open_pack, (self.path,)

    def locate(self, recording_ids: ArrayLike, starts: ArrayLike) -> NDArray[np.int64]:
        """First positions of windows in ``values``.

        Args:
            recording_ids: (N,) whole numbers.
            starts: (N,) first position of each window within its recording.

        Returns:
            int64 (N,).

        Raises:
            PackError: naming the first recording that is not in the pack, or
                the first window that leaves its recording.
        """
        ids = np.asarray(recording_ids, np.int64)
        first = np.asarray(starts, np.int64)
        if ids.shape != first.shape or ids.ndim != 1:
            raise ValueError(f"ids and starts must be two lists, got {ids.shape}, {first.shape}")
        rows = self.recordings.index.get_indexer(pd.Index(ids))
        if (rows < 0).any():
            unknown = ids[rows < 0]
            raise PackError(
                f"a row's recording must be in the pack of {self.source}",
                got=f"{unknown[0]}" + _and_more(np.unique(unknown).size - 1),
                where=self.path,
                fix=BUILD_AGAIN,
            )
        lengths = self.recordings["length"].to_numpy()[rows]
        outside = (first < 0) | (first + self.window > lengths)
        if outside.any():
            k = int(np.argmax(outside))
            raise PackError(
                "a row's window must lie within its recording",
                got=f"positions {first[k]} to {first[k] + self.window} of {lengths[k]}",
                where=f"{self.source} recording {ids[k]}",
                fix="See what is wrong with: hms-ray check DIR",
            )
        return np.asarray(self.recordings["offset"].to_numpy()[rows] + first, np.int64)


def open_pack(path: str | Path) -> Pack:
    """Opens a pack; its values stay on the disk until they are used.

    Raises:
        PackError: no pack there, one of another format, or a file that is
            missing or of another size than its manifest says.
    """
    path = Path(path)
    manifest = read_manifest(path)
    for name, file in manifest["files"].items():
        _check_size(path / name, file["bytes"])
    try:
        recordings = pd.read_parquet(path / RECORDINGS_FILE).set_index("recording_id")
        values = np.load(path / VALUES_FILE, mmap_mode="c")
    except (ValueError, KeyError, OSError, pa.ArrowException) as error:
        raise _damaged(path, str(error)) from error
    shape = (int(recordings["length"].sum()), len(manifest["panels"]) * manifest["n_frequencies"])
    if values.shape != shape or values.dtype != np.float16:
        raise _damaged(path, f"{values.dtype} {values.shape} where float16 {shape} belongs")
    return Pack(
        path=path,
        source=manifest["source"],
        recipe=manifest["recipe"],
        fingerprint=manifest["fingerprint"],
        panels=tuple(manifest["panels"]),
        n_frequencies=manifest["n_frequencies"],
        window=manifest["window"],
        step_s=manifest["step_s"],
        recordings=recordings,
        values=values,
    )


def verify_pack(path: str | Path) -> Pack:
    """Opens a pack after reading it whole and comparing it with its checksums.

    Raises:
        PackError: as for ``open_pack``, or naming the file whose content or the
            manifest whose fingerprint is not what was written.
    """
    path = Path(path)
    pack = open_pack(path)
    manifest = read_manifest(path)
    for name, file in manifest["files"].items():
        found = file_sha256(path / name)
        if found != file["sha256"]:
            raise PackError(
                "a pack's file must be as it was written",
                got=f"SHA-256 {found[:12]} instead of {file['sha256'][:12]}",
                where=path / name,
                fix=BUILD_AGAIN,
            )
    content = manifest["files"][VALUES_FILE]["sha256"]
    if pack_fingerprint(pack.recipe, pack.recordings, content) != pack.fingerprint:
        raise _damaged(path, "a fingerprint of other content")
    return pack


def pack_fingerprint(recipe: dict[str, Any], recordings: pd.DataFrame, values_sha256: str) -> str:
    """SHA-256 (hex) of a pack's content.

    Args:
        recipe: plain data.
        recordings: as of ``Pack``. Its numbers count, not its file: parquet
            files name the version of their writer.
        values_sha256: checksum of ``values.npy``.
    """
    index = hashlib.sha256()
    for numbers in (recordings.index, recordings["offset"], recordings["length"]):
        index.update(numbers.to_numpy().astype("<i8").tobytes())
    return digest({"recipe": recipe, "recordings": index.hexdigest(), "values": values_sha256})


def read_manifest(path: Path) -> dict[str, Any]:
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
        raise _damaged(file, str(error)) from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise PackError(
            f"a pack must be of format {FORMAT}", got=repr(found), where=file, fix=BUILD_AGAIN
        )
    missing = [key for key in MANIFEST_KEYS if key not in manifest]
    if missing:
        raise _damaged(file, f"no {', '.join(missing)}")
    return dict(manifest)


MANIFEST_KEYS: Final = (
    *("format", "source", "recipe", "fingerprint", "panels", "n_frequencies"),
    *("window", "step_s", "files", "input_signature"),
)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            content.update(piece)
    return content.hexdigest()


def _check_size(file: Path, expected: int) -> None:
    try:
        found = file.stat().st_size
    except FileNotFoundError:
        raise PackError("a pack's file must exist", where=file, fix=BUILD_AGAIN) from None
    if found != expected:
        raise PackError(
            f"a pack's file must have {expected:,} bytes",
            got=f"{found:,}",
            where=file,
            fix=BUILD_AGAIN,
        )


def _damaged(where: Path, got: str) -> PackError:
    return PackError("a pack must be whole", got=got, where=where, fix=BUILD_AGAIN)


def _and_more(n: int) -> str:
    return f" and {n} more" if n > 0 else ""
