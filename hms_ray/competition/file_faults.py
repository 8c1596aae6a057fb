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
    """The EEG files or the spectrogram files of a competition folder, and their rules.

    Attributes:
        form: what a file must contain.
        directory: the folder of the files.
        largest_offset: recording id -> largest label offset in seconds.
        window_s: length of a window.
        rows_per_s: rows of a file per second of recording.
        needed_rows: largest offset in seconds -> number of rows that its window needs.
    """

    form: SignalFormat
    directory: Path
    largest_offset: pd.Series[float]
    window_s: int
    rows_per_s: float
    needed_rows: Callable[[float], int]


@dataclass(frozen=True)
class FilesReport:
    """What a check found in one folder of signal files.

    Attributes:
        faults: misnamed files first, then by recording id.
        footers: of the well-formed files.
        n_missing: files that the label table lists and that do not exist.
        n_unlisted: files that exist and that the label table does not list.
    """

    faults: tuple[Fault, ...]
    footers: Footers
    n_missing: int
    n_unlisted: int


def listed_files(folder: Path, labels: pd.DataFrame) -> tuple[SignalFiles, SignalFiles]:
    """The EEG files and the spectrogram files that label rows list.

    Args:
        folder: the competition folder.
        labels: see ``read_labels``; offsets that are not finite are ignored.
    """

    def largest(key: str, offset: str) -> pd.Series[float]:
        finite = labels[offset].where(np.isfinite(labels[offset]), 0.0)
        return finite.groupby(labels[key]).max()

    eeg_offset, spectrogram_offset = OFFSET_COLUMNS
    return (
        SignalFiles(
            EEG_FORMAT,
            folder / "train_eegs",
            largest("eeg_id", eeg_offset),
            EEG_WINDOW_S,
            EEG_RATE_HZ,
            # 64.4 * 200 is a little more than 12,880 in floating point.
            lambda offset: math.ceil(round((offset + EEG_WINDOW_S) * EEG_RATE_HZ, 6)),
        ),
        SignalFiles(
            SPECTROGRAM_FORMAT,
            folder / "train_spectrograms",
            largest("spectrogram_id", spectrogram_offset),
            SPECTROGRAM_WINDOW_S,
            1 / SPECTROGRAM_STEP_S,
            # The real offsets can be odd; the window starts at the row before.
            lambda offset: int((offset + SPECTROGRAM_WINDOW_S) // SPECTROGRAM_STEP_S),
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
        needed = 0 if largest_offset is None else files.needed_rows(largest_offset)
        if footer.n_rows < needed:
            needed_s, found_s = needed / files.rows_per_s, footer.n_rows / files.rows_per_s
            message = (
                f"{name} must cover the {files.window_s} s after its largest offset, "
                f"{needed_s:g} s in all, got {found_s:g} s"
            )
            return footer, Fault("too_short", message, file, str(number))
        values = read_signal(path, files.form)[:, : files.form.n_brain_channels]
    except DataError as error:
        return None, fault_of(error, file, number)
    footer = replace(footer, has_numbers=bool(np.isfinite(values).any()))
    if largest_offset is None or footer.has_numbers:
        return footer, None
    message = f"{name} must contain numbers, got only NaN"
    return footer, Fault("no_numbers", message, file, str(number))


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
    return footer.has_numbers and footer.n_rows >= files.needed_rows(largest_offset)
