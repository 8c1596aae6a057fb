"""What can be wrong with the files of EEGs and spectrograms."""

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
from numpy.typing import NDArray

from hms_ray.competition.file_errors import fault_of
from hms_ray.competition.footer_cache import FooterKey, Footers
from hms_ray.competition.read import (
    EEG_FORMAT,
    OFFSET_COLUMNS,
    SPECTROGRAM_FORMAT,
    SignalFooter,
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


@dataclass(frozen=True)
class FilesReport:
    """What was found in one folder of recordings.

    Attributes:
        faults: in the order of the recordings' ids; misnamed files come first.
        footers: of the well-formed files.
        n_missing: files that the table asks for and that are not there.
        n_unlisted: files that are there and not asked for.
    """

    faults: tuple[Fault, ...]
    footers: Footers
    n_missing: int
    n_unlisted: int


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
            needed_rows=lambda offset: math.ceil(
                # Of 64.4 s times 200 Hz a product of floats is a little more than 12,880.
                round((offset + EEG_WINDOW_S) * EEG_RATE_HZ, 6)
            ),
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


def check_files(kind: Recordings, signals: bool, known: Footers) -> FilesReport:
    """Checks all files of a kind.

    Files that the table does not ask for are packed like the others, so they
    must be well-formed too; what they hold does not matter.

    Args:
        kind: the recordings whose files are checked.
        signals: read every file's values, not only those of suspicious ones.
        known: footers read before, which stand for files unchanged since.
    """
    offsets = kind.largest_offset
    listed = dict(zip(offsets.index.tolist(), offsets.tolist(), strict=True))
    directory = kind.folder / kind.directory
    if not directory.is_dir():
        message = f"a competition folder must hold the folder {kind.directory}/"
        fault = Fault("missing_file", message, f"{kind.directory}/")
        return FilesReport((fault,), {}, len(listed), 0)
    found, misnamed = _scan(directory)
    # Most checks find nothing new, and asking threads costs more than the answer.
    settled = {
        key: known[key]
        for number, key in found.items()
        if key in known and not signals and _is_sound(kind, known[key], listed.get(number))
    }
    open_ones = sorted(
        number for number in listed.keys() | found.keys() if found.get(number) not in settled
    )

    def check(number: int) -> tuple[FooterKey | None, SignalFooter | None, Fault | None]:
        key = found.get(number)
        footer = None if key is None else known.get(key)
        return key, *_check_file(kind, number, footer, listed.get(number), signals)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        checked = list(pool.map(check, open_ones))
    return FilesReport(
        faults=(*misnamed, *(fault for _, _, fault in checked if fault)),
        footers=settled | {key: footer for key, footer, _ in checked if key and footer},
        n_missing=len(listed.keys() - found.keys()),
        n_unlisted=len(found.keys() - listed.keys()),
    )


def _check_file(
    kind: Recordings,
    number: int,
    footer: SignalFooter | None,
    largest_offset: float | None,
    signals: bool,
) -> tuple[SignalFooter | None, Fault | None]:
    """A file's footer, read unless it is given; None where it is malformed; and its fault."""
    path = kind.path(kind.folder, number)
    file = f"{kind.directory}/{path.name}"
    try:
        footer = footer or read_signal_footer(path, kind.form)
        fault, footer = _judge(kind, path, footer, largest_offset, signals)
    except DataError as error:
        return None, fault_of(error, file, number)
    return footer, fault and Fault(*fault, file, str(number))


def _scan(directory: Path) -> tuple[dict[int, FooterKey], list[Fault]]:
    """Recordings' files by id, and faults of those that are not named by one."""
    found, misnamed = {}, []
    with os.scandir(directory) as entries:
        for entry in entries:
            name, _, suffix = entry.name.partition(".")
            if suffix != "parquet":
                continue
            file = f"{directory.name}/{entry.name}"
            if not name.isdecimal() or str(int(name)) != name:
                message = "a recording's file must be named by its id"
                misnamed.append(Fault("misnamed_file", message, file))
            elif entry.is_file():
                status = entry.stat()
                found[int(name)] = FooterKey(file, status.st_size, status.st_mtime_ns)
    return found, sorted(misnamed, key=str)


def _is_sound(kind: Recordings, footer: SignalFooter, largest_offset: float | None) -> bool:
    """Whether a file's footer alone tells that nothing is wrong with it."""
    if largest_offset is None:
        return True
    return footer.has_numbers and footer.n_rows >= kind.needed_rows(largest_offset)


def _judge(
    kind: Recordings, path: Path, footer: SignalFooter, largest_offset: float | None, signals: bool
) -> tuple[tuple[str, str] | None, SignalFooter]:
    """Kind and message of the fault of a file that is well-formed, and its footer.

    The footer is the one given, completed by what the values show if they are read.
    """
    if not signals and _is_sound(kind, footer, largest_offset):
        return None, footer
    needed = 0 if largest_offset is None else kind.needed_rows(largest_offset)
    if footer.n_rows < needed:
        message = (
            f"{kind.name} must last {kind.window_s} s beyond its largest offset, "
            f"{needed * kind.row_s:g} s in all, got {footer.n_rows * kind.row_s:g} s"
        )
        return ("too_short", message), footer
    values = kind.read(path)[:, : kind.n_channels]
    footer = replace(footer, has_numbers=bool(np.isfinite(values).any()))
    if largest_offset is not None and not footer.has_numbers:
        return ("no_numbers", f"{kind.name} must hold numbers, got only NaN"), footer
    return None, footer
