"""Writes a pack's three files, recording by recording."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.errors import DataError
from hms_ray.pack.sources import InputFile, PackSource
from hms_ray.pack.store import (
    FORMAT,
    MANIFEST_FILE,
    RECORDINGS_FILE,
    VALUES_FILE,
    file_sha256,
    pack_fingerprint,
)

Progress = Callable[[int, int], None]


def write_pack(
    folder: Path,
    source: PackSource,
    files: Sequence[InputFile],
    lengths: Sequence[int],
    *,
    signature: str,
    progress: Progress | None,
    workers: int,
) -> None:
    """Writes a pack into an empty folder; memory stays at a few recordings.

    Args:
        folder: where the three files go.
        source: what is packed.
        files: the recordings' files, sorted by id.
        lengths: positions of each.
        signature: kept in the manifest, to know the inputs again.
        progress: called with (recordings done, recordings in all).
        workers: threads that read at once.

    Raises:
        DataError: a file is unreadable or malformed, or has changed meanwhile.
        OSError: the folder cannot be written or is full.
    """
    sha256 = _write_values(folder / VALUES_FILE, source, files, lengths, progress, workers)
    index = pd.Index([file.number for file in files], dtype="int64", name="recording_id")
    recordings = pd.DataFrame({"length": lengths}, index=index, dtype="int64")
    recordings.insert(0, "offset", recordings["length"].cumsum() - recordings["length"])
    recordings.reset_index().to_parquet(folder / RECORDINGS_FILE, index=False)
    checksums = {VALUES_FILE: sha256, RECORDINGS_FILE: file_sha256(folder / RECORDINGS_FILE)}
    manifest = {
        "format": FORMAT,
        "source": source.recipe["source"],
        "recipe": source.recipe,
        "fingerprint": pack_fingerprint(source.recipe, recordings, sha256),
        "panels": source.panels,
        "n_frequencies": source.n_frequencies,
        "window": source.window,
        "step_s": source.step_s,
        "n_recordings": len(files),
        "n_positions": sum(lengths),
        "input_signature": signature,
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": checksum}
            for name, checksum in checksums.items()
        },
    }
    _write_text(folder / MANIFEST_FILE, json.dumps(manifest, indent=2) + "\n")


def _write_values(
    path: Path,
    source: PackSource,
    files: Sequence[InputFile],
    lengths: Sequence[int],
    progress: Progress | None,
    workers: int,
) -> str:
    """Writes ``values.npy``; returns its SHA-256, taken while writing."""
    header = io.BytesIO()
    shape = (sum(lengths), source.n_values)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f2", "fortran_order": False, "shape": shape}
    )
    content = hashlib.sha256(header.getvalue())
    with path.open("wb") as out:
        out.write(header.getvalue())
        parts = _in_order(lambda file: source.read(file.path), files, workers)
        for done, (file, length, part) in enumerate(zip(files, lengths, parts, strict=True), 1):
            if part.shape != (length, source.n_values):
                raise DataError("a file must not change while it is packed", where=file.path)
            data = np.ascontiguousarray(part, "<f2").data
            content.update(data)
            out.write(data)
            if progress is not None:
                progress(done, len(files))
        _flush(out)
    return content.hexdigest()


def _in_order(
    read: Callable[[InputFile], NDArray[np.float16]], files: Sequence[InputFile], workers: int
) -> Iterator[NDArray[np.float16]]:
    """Results in the order of the files, at most two a worker in memory."""
    if workers <= 1:
        yield from map(read, files)
        return
    todo = iter(files)
    # Arrow and numpy let other threads run while they decode and compute.
    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[Future[NDArray[np.float16]]] = deque(
            pool.submit(read, file) for file in itertools.islice(todo, 2 * workers)
        )
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(read, file) for file in itertools.islice(todo, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _write_text(path: Path, text: str) -> None:
    with path.open("wb") as out:
        out.write(text.encode())
        _flush(out)


def _flush(file: Any) -> None:
    # A pack that is renamed to its place before its content is on the disk would
    # be an empty pack after a power failure.
    file.flush()
    os.fsync(file.fileno())
