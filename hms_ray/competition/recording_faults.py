"""What can be wrong with the files of EEGs and spectrograms."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.file_errors import fault_of
from hms_ray.competition.read import (
    EEG_FORMAT,
    OFFSET_COLUMNS,
    SPECTROGRAM_FORMAT,
    SignalFormat,
    eeg_path,
    read_eeg,
    read_signal_footer,
    read_spectrogram,
    spectrogram_path,
)
from hms_ray.competition.schema import (
    EEG_RATE_HZ,
    EEG_WINDOW_S,
    SPECTROGRAM_STEP_S,
    SPECTROGRAM_WINDOW_S,
)
from hms_ray.errors import DataError, Fault

_MAX_THREADS: Final = 8
"""Footers are parsed by C++ code that lets other threads run; disks like a few readers."""


@dataclass(frozen=True)
class Recordings:
    """One kind of recording: what its files must be like.

    Attributes:
        name: with its article.
        folder: the competition folder.
        directory: the folder of the files, within it.
        largest_offset: recording id -> largest label offset in seconds.
        window_s: length of a window.
        n_channels: leading columns, one of which must hold a number.
        needed_rows: largest offset in seconds -> rows that its window needs.
        row_s: seconds a row.
    """

    name: str
    form: SignalFormat
    folder: Path
    directory: str
    largest_offset: pd.Series[float]
    path: Callable[[Path, int], Path]
    read: Callable[[Path], NDArray[np.float32]]
    window_s: int
    n_channels: int
    needed_rows: Callable[[float], int]
    row_s: float

    def listed(self) -> set[str]:
        """Names of the files that the table asks for."""
        return {f"{number}.parquet" for number in self.largest_offset.index}

    def found(self) -> set[str]:
        """Names of the files that are there."""
        directory = self.folder / self.directory
        return {file.name for file in os.scandir(directory)} if directory.is_dir() else set()


def recordings_of(folder: Path, labels: pd.DataFrame) -> tuple[Recordings, Recordings]:
    """The EEGs and the spectrograms that label rows name.

    Args:
        folder: the competition folder.
        labels: as of ``read_labels``; offsets that are not finite do not count.
    """

    def largest(key: str, offset: str) -> pd.Series[float]:
        sound = labels[offset].where(np.isfinite(labels[offset]), 0.0)
        return sound.groupby(labels[key]).max()

    return (
        Recordings(
            name="an EEG",
            form=EEG_FORMAT,
            folder=folder,
            directory="train_eegs",
            largest_offset=largest("eeg_id", OFFSET_COLUMNS[0]),
            path=eeg_path,
            read=read_eeg,
            window_s=EEG_WINDOW_S,
            n_channels=len(EEG_FORMAT.columns) - 1,  # the last is the EKG
            needed_rows=lambda offset: math.ceil((offset + EEG_WINDOW_S) * EEG_RATE_HZ),
            row_s=1 / EEG_RATE_HZ,
        ),
        Recordings(
            name="a spectrogram",
            form=SPECTROGRAM_FORMAT,
            folder=folder,
            directory="train_spectrograms",
            largest_offset=largest("spectrogram_id", OFFSET_COLUMNS[1]),
            path=spectrogram_path,
            read=read_spectrogram,
            window_s=SPECTROGRAM_WINDOW_S,
            n_channels=len(SPECTROGRAM_FORMAT.columns),
            # The real offsets can be odd; the window starts at the row before.
            needed_rows=lambda offset: int((offset + SPECTROGRAM_WINDOW_S) // SPECTROGRAM_STEP_S),
            row_s=SPECTROGRAM_STEP_S,
        ),
    )


def file_faults(kind: Recordings, signals: bool) -> list[Fault]:
    """Faults of all files of a kind, in the order of their ids.

    Args:
        kind: the recordings whose files are checked.
        signals: read every file's values, not only those of suspicious ones.
    """
    if not (kind.folder / kind.directory).is_dir():
        message = f"a competition folder must hold the folder {kind.directory}/"
        return [Fault("missing_file", message, file=f"{kind.directory}/")]

    def check(number: int, largest_offset: float) -> Fault | None:
        path = kind.path(kind.folder, number)
        file = str(path.relative_to(kind.folder))
        try:
            found = _recording_fault(kind, path, largest_offset, signals)
        except DataError as error:
            return fault_of(error, file, number)
        return found and Fault(*found, file, str(number))

    offsets = kind.largest_offset
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        found = pool.map(check, offsets.index.tolist(), offsets.tolist())
        return [fault for fault in found if fault is not None]


def _recording_fault(
    kind: Recordings, path: Path, largest_offset: float, signals: bool
) -> tuple[str, str] | None:
    """Kind and message of the fault of a file that is well-formed."""
    footer = read_signal_footer(path, kind.form)
    needed = kind.needed_rows(largest_offset)
    if footer.n_rows < needed:
        return "too_short", (
            f"{kind.name} must last {kind.window_s} s beyond its largest offset, "
            f"{needed * kind.row_s:g} s in all, got {footer.n_rows * kind.row_s:g} s"
        )
    if signals or not footer.has_numbers:
        values = kind.read(path)[:, : kind.n_channels]
        if not np.isfinite(values).any():
            return "no_numbers", f"{kind.name} must hold numbers, got only NaN"
    return None
