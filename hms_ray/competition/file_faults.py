"""Faults of EEG files and spectrogram files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hms_ray.competition.file_errors import fault_of
from hms_ray.competition.footer_cache import FooterKey, Footers
from hms_ray.competition.read import (
    EEG_FORMAT,
    OFFSET_COLUMNS,
    SPECTROGRAM_FORMAT,
    SignalFooter,
    SignalFormat,
    Split,
    read_signal,
    read_signal_footer,
)
from hms_ray.competition.schema import (
    EEG_RATE_HZ,
    EEG_WINDOW_S,
    SPECTROGRAM_STEP_S,
    SPECTROGRAM_WINDOW_S,
)
from hms_ray.errors import DataError, Fault

_MAX_THREADS: Final = 8
"""Footers are parsed by C++ code that lets other threads run, and disks serve a few readers
faster than one."""


@dataclass(frozen=True)
class SignalFiles:
    """The EEG files or the spectrogram files of training or test, and their rules.

    Attributes:
        name: such as ``eeg`` and ``test_spectrogram``, in the names of counts.
        form: what a file must contain.
        directory: the folder of the files.
        largest_offset: recording id -> largest label offset in seconds; 0 in test.
        window_s: length of a window.
        rows_per_s: rows of a file per second of recording.
        needed_rows: largest offset in seconds -> number of rows that its window needs.
        exact: whether a file must have no further rows, because they would leave open which
            window is meant.
    """

    name: str
    form: SignalFormat
    directory: Path
    largest_offset: pd.Series[float]
    window_s: int
    rows_per_s: float
    needed_rows: Callable[[float], int]
    exact: bool = False

    def has_sound_length(self, n_rows: int, largest_offset: float) -> bool:
        """Whether a file has the rows of its windows."""
        needed = self.needed_rows(largest_offset)
        return n_rows == needed if self.exact else n_rows >= needed


@dataclass(frozen=True)
class FilesReport:
    """What a check found in one folder of signal files.

    Attributes:
        faults: misnamed files first, then by recording id.
        footers: of the well-formed files.
        n_missing: files that the table lists and that do not exist.
        n_unlisted: files that exist and that the table does not list.
    """

    faults: tuple[Fault, ...]
    footers: Footers
    n_missing: int
    n_unlisted: int


def train_files(folder: Path, labels: pd.DataFrame) -> tuple[SignalFiles, SignalFiles]:
    """The EEG files and the spectrogram files that label rows list.

    Args:
        folder: the competition folder.
        labels: see ``read_labels``; offsets that are not finite are ignored.
    """

    def largest(key: str, offset: str) -> pd.Series[float]:
        finite = labels[offset].where(np.isfinite(labels[offset]), 0.0)
        return finite.groupby(labels[key]).max()

    eeg_offset, spectrogram_offset = OFFSET_COLUMNS
    offsets = largest("eeg_id", eeg_offset), largest("spectrogram_id", spectrogram_offset)
    return _signal_files(folder, "train", *offsets)


def files_to_predict(folder: Path, table: pd.DataFrame) -> tuple[SignalFiles, SignalFiles]:
    """The EEG files and the spectrogram files that ``test.csv`` lists.

    Args:
        folder: the competition folder.
        table: see ``read_test_table``.
    """
    eegs, spectrograms = (
        pd.Series(0.0, index=pd.unique(table[name])) for name in ("eeg_id", "spectrogram_id")
    )
    return _signal_files(folder, "test", eegs, spectrograms)


def _signal_files(
    folder: Path, split: Split, eegs: pd.Series[float], spectrograms: pd.Series[float]
) -> tuple[SignalFiles, SignalFiles]:
    """Files of a split; ``eegs`` and ``spectrograms`` are their largest offsets by id."""
    name, exact = ("", False) if split == "train" else ("test_", True)
    return (
        SignalFiles(
            f"{name}eeg",
            EEG_FORMAT,
            folder / f"{split}_eegs",
            eegs,
            EEG_WINDOW_S,
            EEG_RATE_HZ,
            # 64.4 * 200 is a little more than 12,880 in floating point.
            lambda offset: math.ceil(round((offset + EEG_WINDOW_S) * EEG_RATE_HZ, 6)),
            exact,
        ),
        SignalFiles(
            f"{name}spectrogram",
            SPECTROGRAM_FORMAT,
            folder / f"{split}_spectrograms",
            spectrograms,
            SPECTROGRAM_WINDOW_S,
            1 / SPECTROGRAM_STEP_S,
            # The real offsets can be odd; the window starts at the row before.
            lambda offset: int((offset + SPECTROGRAM_WINDOW_S) // SPECTROGRAM_STEP_S),
            exact,
        ),
    )


def check_files(files: SignalFiles, signals: bool, known: Footers) -> FilesReport:
    """Check all files of one folder.

    Unlisted files are packed like the others, so they must be well-formed too; their
    length and values are not checked.

    Args:
        files: the folder and its rules.
        signals: read the values of every file, not only of suspicious ones.
        known: footers read before; they are reused for files that did not change.
    """
    offsets = files.largest_offset
    listed = dict(zip(offsets.index.tolist(), offsets.tolist(), strict=True))
    if not files.directory.is_dir():
        name = f"{files.directory.name}/"
        message = f"a competition folder must contain the folder {name}"
        return FilesReport((Fault("missing_file", message, name),), {}, len(listed), 0)
    found, misnamed = _scan(files.directory)
    # Most checks find nothing new, and starting threads costs more than this loop.
    settled = {
        key: known[key]
        for number, key in found.items()
        if key in known and not signals and _is_sound(files, known[key], listed.get(number))
    }
    unsettled = sorted(
        number for number in listed.keys() | found.keys() if found.get(number) not in settled
    )

    def check(number: int) -> tuple[FooterKey | None, SignalFooter | None, Fault | None]:
        key = found.get(number)
        footer = None if key is None else known.get(key)
        return key, *_check_file(files, number, footer, listed.get(number), signals)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        checked = list(pool.map(check, unsettled))
    return FilesReport(
        faults=(*misnamed, *(fault for _, _, fault in checked if fault)),
        footers=settled | {key: footer for key, footer, _ in checked if key and footer},
        n_missing=len(listed.keys() - found.keys()),
        n_unlisted=len(found.keys() - listed.keys()),
    )


def _check_file(
    files: SignalFiles,
    number: int,
    footer: SignalFooter | None,
    largest_offset: float | None,
    signals: bool,
) -> tuple[SignalFooter | None, Fault | None]:
    """A file's footer (read if not given; None if malformed) and its fault.

    If the values are read, the footer is updated with what they show.
    """
    path = files.directory / f"{number}.parquet"
    file = f"{files.directory.name}/{path.name}"
    name = files.form.name
    try:
        footer = footer or read_signal_footer(path, files.form)
        if not signals and _is_sound(files, footer, largest_offset):
            return footer, None
        if largest_offset is not None and not files.has_sound_length(footer.n_rows, largest_offset):
            return footer, _length_fault(files, number, footer.n_rows, largest_offset)
        values = read_signal(path, files.form)[:, : files.form.n_brain_channels]
    except DataError as error:
        return None, fault_of(error, file, number)
    footer = replace(footer, has_numbers=bool(np.isfinite(values).any()))
    if largest_offset is None or footer.has_numbers:
        return footer, None
    message = f"{name} must contain numbers, got only NaN"
    return footer, Fault("no_numbers", message, file, str(number))


def _length_fault(files: SignalFiles, number: int, n_rows: int, largest_offset: float) -> Fault:
    file, name = f"{files.directory.name}/{number}.parquet", files.form.name
    needed = files.needed_rows(largest_offset)
    needed_s, found_s = needed / files.rows_per_s, n_rows / files.rows_per_s
    if files.exact:
        message = (
            f"{name} of test.csv must have the {needed:,} rows of one window, {needed_s:g} s, "
            f"got {n_rows:,}"
        )
        return Fault("wrong_length", message, file, str(number))
    message = (
        f"{name} must cover the {files.window_s} s after its largest offset, "
        f"{needed_s:g} s in all, got {found_s:g} s"
    )
    return Fault("too_short", message, file, str(number))


def _scan(directory: Path) -> tuple[dict[int, FooterKey], list[Fault]]:
    """Signal files by recording id, and faults of files that are not named by an id."""
    found, misnamed = {}, []
    with os.scandir(directory) as entries:
        for entry in entries:
            name, _, suffix = entry.name.partition(".")
            if suffix != "parquet":
                continue
            file = f"{directory.name}/{entry.name}"
            if not name.isdecimal() or str(int(name)) != name:
                message = "the name of a recording's file must be its id"
                misnamed.append(Fault("misnamed_file", message, file))
            elif entry.is_file():
                status = entry.stat()
                found[int(name)] = FooterKey(file, status.st_size, status.st_mtime_ns)
    return found, sorted(misnamed, key=str)


def _is_sound(files: SignalFiles, footer: SignalFooter, largest_offset: float | None) -> bool:
    """Whether the footer alone shows that a file has no fault."""
    if largest_offset is None:
        return True
    return footer.has_numbers and files.has_sound_length(footer.n_rows, largest_offset)
