"""What can be packed: which files, by which recipe, to which positions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.file_errors import EmptyFileError, MissingFileError
from hms_ray.competition.read import (
    SPECTROGRAM_FORMAT,
    read_signal_footer,
    read_spectrogram,
)
from hms_ray.competition.schema import (
    N_FREQUENCIES,
    PANELS,
    SPECTROGRAM_COLUMNS,
    SPECTROGRAM_STEP_S,
    SPECTROGRAM_WINDOW_ROWS,
)
from hms_ray.config import digest
from hms_ray.errors import DataError, PackError

LOG_LOW: Final = -4.0
LOG_HIGH: Final = 8.0
"""Natural logs of the smallest and largest power kept (published: clip to [e^-4, e^8])."""


@dataclass(frozen=True)
class PackSource:
    """A source of packed values.

    Attributes:
        recipe: everything that decides the values, as plain data; its hash is
            part of a pack's name and fingerprint.
        directory: folder of the input files within a competition folder, one
            ``<recording id>.parquet`` a recording.
        panels: names of the P panels.
        n_frequencies: F, frequencies a panel.
        window: positions that a training row uses.
        step_s: seconds from one position to the next.
        length: input file -> number of positions, without reading the values.
        read: input file -> float16 (length, P * F).
    """

    recipe: dict[str, Any]
    directory: str
    panels: tuple[str, ...]
    n_frequencies: int
    window: int
    step_s: float
    length: Callable[[Path], int]
    read: Callable[[Path], NDArray[np.float16]]

    @property
    def n_values(self) -> int:
        """Values a position."""
        return len(self.panels) * self.n_frequencies


@dataclass(frozen=True)
class InputFile:
    """A file to pack.

    Attributes:
        number: id of the recording.
        path: where the file is.
        n_bytes: its size.
        mtime_ns: when it was changed last, nanoseconds.
    """

    number: int
    path: Path
    n_bytes: int
    mtime_ns: int


def log_power(power: NDArray[np.float32]) -> NDArray[np.float16]:
    """Log power as a pack stores it.

    Args:
        power: any shape; NaN kept, infinite values clipped like large ones.

    Returns:
        float16, same shape, natural log of power clipped to [e^-4, e^8].
    """
    # In float64, because logarithms of processors differ in the last digit: of
    # float32 that digit decides some float16 values, of float64 it does not, and
    # equal inputs must give equal fingerprints everywhere.
    values: NDArray[np.float64] = power.astype(np.float64)
    np.clip(values, np.exp(LOG_LOW), np.exp(LOG_HIGH), out=values)
    return np.log(values, out=values).astype(np.float16)


SOURCES: Final[dict[str, PackSource]] = {
    "kaggle": PackSource(
        recipe={
            "source": "kaggle",
            "version": 1,
            "values": "natural log of power clipped to [e^low, e^high], NaN kept",
            "low": LOG_LOW,
            "high": LOG_HIGH,
            "dtype": "float16",
            "columns": digest(list(SPECTROGRAM_COLUMNS)),
        },
        directory="train_spectrograms",
        panels=PANELS,
        n_frequencies=N_FREQUENCIES,
        window=SPECTROGRAM_WINDOW_ROWS,
        step_s=SPECTROGRAM_STEP_S,
        length=lambda path: read_signal_footer(path, SPECTROGRAM_FORMAT).n_rows,
        read=lambda path: log_power(read_spectrogram(path)),
    )
}


def source_named(name: str) -> PackSource:
    """A source by its name.

    Raises:
        PackError: there is none of that name.
    """
    if name not in SOURCES:
        raise PackError(f"a source must be one of {', '.join(SOURCES)}", got=name)
    return SOURCES[name]


def input_files(folder: Path, source: PackSource) -> list[InputFile]:
    """All files of a source in a competition folder, sorted by id.

    Raises:
        DataError: no such folder, nothing in it, or a name that is not an id.
    """
    directory = folder / source.directory
    if not directory.is_dir():
        rule = f"a competition folder must hold {source.directory}/"
        raise MissingFileError(rule, where=folder)
    files = []
    with os.scandir(directory) as entries:
        for entry in entries:
            name, _, suffix = entry.name.partition(".")
            if suffix != "parquet":
                continue
            if not name.isdecimal():
                raise DataError(
                    "a recording's file must be named by its id", got=entry.name, where=directory
                )
            status = entry.stat()
            path = directory / entry.name
            files.append(InputFile(int(name), path, status.st_size, status.st_mtime_ns))
    if not files:
        raise EmptyFileError("a folder of recordings must hold files", got="none", where=directory)
    return sorted(files, key=lambda file: file.number)


def input_signature(files: list[InputFile]) -> str:
    """A hash that changes whenever names, sizes or times of the files do."""
    return digest([[file.number, file.n_bytes, file.mtime_ns] for file in files])
