"""Write arrays as parquet files in the competition's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from hms_ray.competition.schema import ELECTRODES, SPECTROGRAM_COLUMNS, SPECTROGRAM_STEP_S
from hms_ray.errors import DataError
from hms_ray.storage.atomic import whole_file


def write_eeg(path: Path, eeg: NDArray[np.float32]) -> None:
    """Write an EEG file: one column per electrode.

    Args:
        path: file to write or replace.
        eeg: float32 (n_samples, 20), microvolts, 200 Hz, in the order of ``ELECTRODES``.
    """
    write_parquet(pd.DataFrame(eeg, columns=list(ELECTRODES)), path)


def write_spectrogram(
    path: Path, spectrogram: NDArray[np.float32], time_dtype: DTypeLike = np.int64
) -> None:
    """Write a spectrogram file: ``time`` 1, 3, 5, ... s, then one column per panel and frequency.

    Args:
        path: file to write or replace.
        spectrogram: float32 (n_rows, 400), in the order of ``SPECTROGRAM_COLUMNS``.
        time_dtype: int64 in the competition's training files, int16 in its test files.
    """
    time = np.arange(len(spectrogram)) * SPECTROGRAM_STEP_S + 1
    table = pd.DataFrame(spectrogram, columns=list(SPECTROGRAM_COLUMNS))
    table.insert(0, "time", time.astype(time_dtype))
    write_parquet(table, path)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """One row group, snappy, as the competition's files; whole or not there."""
    # Thousands are written to a draft folder, which is flushed as a whole.
    with whole_file(path, fsync=False) as draft:
        table.to_parquet(draft, engine="pyarrow", compression="snappy", row_group_size=len(table))


def require_place(path: Path, replace: bool) -> None:
    """Check that a file may be written.

    Args:
        path: file to write.
        replace: whether an existing file may be replaced.

    Raises:
        DataError: if the path is a folder, or an existing file that must not be replaced, or
            its folder does not exist.
    """
    if not path.parent.is_dir():
        raise DataError("the folder of the file to write must exist", where=path.parent)
    if path.is_dir():
        raise DataError("the file to write must not be a folder", got="a folder", where=path)
    if path.exists() and not replace:
        raise DataError(
            "the file to write must not exist",
            got="an existing file",
            where=path,
            fix="Choose another --out, or replace it with --force.",
        )
