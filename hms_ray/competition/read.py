"""Read tables and parquet files of the competition into checked frames and arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hms_ray.competition.cells import numbers, texts, whole_numbers
from hms_ray.competition.file_content import PARQUET, Content, content_of
from hms_ray.competition.file_errors import (
    EmptyFileError,
    MissingFileError,
    UnreadableFileError,
    WrongColumnsError,
    WrongTypeError,
)
from hms_ray.competition.schema import ELECTRODES, LABEL_COLUMNS, SPECTROGRAM_COLUMNS
from hms_ray.competition.tables import check_columns, read_table
from hms_ray.errors import DataError

Split = Literal["train", "test"]

LABEL_FILE: Final = "train.csv"
TEST_FILE: Final = "test.csv"
SAMPLE_FILE: Final = "sample_submission.csv"
TEST_COLUMNS: Final = ("spectrogram_id", "eeg_id", "patient_id")
OFFSET_COLUMNS: Final = ("eeg_label_offset_seconds", "spectrogram_label_offset_seconds")
NO_LABEL_ID: Final = -1
"""Stands for an empty ``label_id``, which nothing uses as a key."""
_DOWNLOAD: Final = "Download it again."
_LIST_FAULTS: Final = "List all faults with: hms-ray check DIR."
_NO_SIGNAL: Final = ("time", "EKG")
"""Columns that have numbers even if no electrode on the head recorded any."""


@dataclass(frozen=True)
class SignalFormat:
    """What a signal file must contain.

    Attributes:
        name: name in error messages, with its article.
        columns: floating-point columns, in the order of the arrays made of them.
        others: columns that must exist and are not read.
    """

    name: str
    columns: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def n_brain_channels(self) -> int:
        """Number of leading columns that record the brain; the EKG is the last column of an EEG."""
        return sum(name not in _NO_SIGNAL for name in self.columns)


EEG_FORMAT: Final = SignalFormat("an EEG file", ELECTRODES)
SPECTROGRAM_FORMAT: Final = SignalFormat("a spectrogram file", SPECTROGRAM_COLUMNS, ("time",))


def eeg_path(folder: str | Path, eeg_id: int, split: Split = "train") -> Path:
    """Path of an EEG file, which need not exist."""
    return Path(folder) / f"{split}_eegs" / f"{eeg_id}.parquet"


def spectrogram_path(folder: str | Path, spectrogram_id: int, split: Split = "train") -> Path:
    """Path of a spectrogram file, which need not exist."""
    return Path(folder) / f"{split}_spectrograms" / f"{spectrogram_id}.parquet"


def read_labels(folder: str | Path, file: str = LABEL_FILE) -> pd.DataFrame:
    """The label rows of ``train.csv``, or of another file in the folder.

    Returns:
        One line per label row, in file order, columns ``LABEL_COLUMNS``: ids and votes
        int64 (``NO_LABEL_ID`` for an empty ``label_id``), offsets float64 in seconds (NaN
        if empty), consensus text (empty if missing). Ranges are checked by ``check``.

    Raises:
        DataError: if the file is missing, is not a table, or has missing columns, no rows,
            or text or fractions in a column of whole numbers.
    """
    table = read_table(Path(folder) / file)
    labels = table.frame(LABEL_COLUMNS)
    labels["expert_consensus"] = texts(labels["expert_consensus"])
    labels["label_id"] = fill_label_ids(labels["label_id"])
    for name in LABEL_COLUMNS:
        if name in OFFSET_COLUMNS:
            values, broken = numbers(labels[name])
            table.refuse(broken, f"{name} must be numbers", labels[name], _LIST_FAULTS)
            labels[name] = values.astype(np.float64)
        elif name != "expert_consensus":
            values, broken = whole_numbers(labels[name])
            table.refuse(broken, f"{name} must be whole numbers", labels[name], _LIST_FAULTS)
            labels[name] = values
    return labels


def fill_label_ids(column: pd.Series[Any]) -> pd.Series[Any]:
    """The column ``label_id`` with ``NO_LABEL_ID`` in its empty cells."""
    empty = column.isna()
    return column.astype(object).mask(empty, NO_LABEL_ID) if empty.any() else column


def require_folder(folder: Path) -> None:
    """Checks that a competition folder exists.

    Raises:
        DataError: if it does not.
    """
    if not folder.is_dir():
        raise DataError(
            "a competition folder must exist",
            got="a file" if folder.is_file() else None,
            where=folder,
            fix="Check the path, or make a folder: hms-ray simulate --out DIR",
        )


def read_test_table(folder: str | Path) -> pd.DataFrame:
    """The recordings of ``test.csv``: int64 columns ``TEST_COLUMNS``, in file order.

    Raises:
        DataError: see ``read_labels``.
    """
    require_folder(Path(folder))
    table = read_table(Path(folder) / TEST_FILE)
    return pd.DataFrame({name: table.whole(name, _LIST_FAULTS) for name in TEST_COLUMNS})


def read_eeg(path: str | Path) -> NDArray[np.float32]:
    """An EEG in microvolts.

    Returns:
        float32 (n_samples, 20) at 200 Hz in the order of ``ELECTRODES``; NaN kept.

    Raises:
        DataError: if the file is missing, truncated, damaged or empty, lacks columns, or
            has columns of another type than float.
    """
    return read_signal(Path(path), EEG_FORMAT)


def read_spectrogram(path: str | Path) -> NDArray[np.float32]:
    """A spectrogram's power.

    Returns:
        float32 (n_rows, 400), one row per 2 s, in the order of
        ``SPECTROGRAM_COLUMNS``; NaN kept.

    Raises:
        DataError: see ``read_eeg``.
    """
    return read_signal(Path(path), SPECTROGRAM_FORMAT)


def signal_rows(path: str | Path, form: SignalFormat) -> int:
    """Number of rows in a signal file's footer; columns and values are not checked.

    Raises:
        DataError: if the file is missing, truncated or damaged.
    """
    # Takes half as long as ParquetFile, which resolves 401 columns.
    return int(_open_parquet(Path(path), form.name, pq.read_metadata).num_rows)


@dataclass(frozen=True)
class SignalFooter:
    """What the footer of a signal file shows.

    Attributes:
        n_rows: samples of an EEG, rows of a spectrogram.
        has_numbers: whether the statistics show a number other than NaN in a column
            other than ``time`` and ``EKG``. If False, the values must be read to know.
    """

    n_rows: int
    has_numbers: bool


def read_signal_footer(path: str | Path, form: SignalFormat) -> SignalFooter:
    """Check a signal file's rows, columns and types without reading its values.

    Raises:
        DataError: see ``read_eeg``; damage outside of the footer is not found.
    """
    path = Path(path)
    with _open_parquet(path, form.name) as file:
        _check_schema(file, form, path)
        return SignalFooter(file.metadata.num_rows, _has_numbers(file.metadata))


def _has_numbers(metadata: Any) -> bool:
    # Writers leave NaN out of a column's minimum and maximum, so a column with
    # statistics has a number.
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(metadata.num_columns)):
            statistics = chunk.statistics
            if statistics is None or chunk.path_in_schema in _NO_SIGNAL:
                continue
            if statistics.has_min_max and statistics.min == statistics.min:  # not NaN
                return True
    return False


def _open_parquet(path: Path, name: str, opener: Callable[[Path], Any] = pq.ParquetFile) -> Any:
    if not path.is_file():
        raise MissingFileError(
            f"{name} must exist", where=path, fix="Check the path, or download it again."
        )
    try:
        return opener(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, name, error) from error


def _unreadable(path: Path, name: str, error: Exception) -> UnreadableFileError:
    if isinstance(error, PermissionError):
        return UnreadableFileError(
            f"{name} must be readable",
            got=error.strerror,
            where=path,
            fix="Change the file's permissions.",
        )
    content = content_of(path)
    if content is None or content.name == PARQUET:
        content = Content("a truncated or damaged one")
    return UnreadableFileError(
        f"{name} must be a complete parquet file",
        got=content.name,
        where=path,
        fix=content.fix or _DOWNLOAD,
    )


def _check_schema(file: Any, form: SignalFormat, path: Path) -> None:
    schema = file.schema_arrow
    names = schema.names  # Arrow builds a new list on each access
    kinds = dict(zip(names, schema.types, strict=True))
    check_columns(kinds, (*form.others, *form.columns), form.name, path)
    if len(kinds) < len(names):
        twice = next((name for name in form.columns if names.count(name) > 1), None)
        if twice is not None:
            raise WrongColumnsError(
                f"the columns of {form.name} must have different names",
                got=f"{twice} {names.count(twice)} times",
                where=path,
                fix=_DOWNLOAD,
            )
    for name in form.columns:
        if not (pa.types.is_float32(kinds[name]) or pa.types.is_float64(kinds[name])):
            raise WrongTypeError(
                f"the columns of {form.name} must be of type float32 or float64",
                got=f"{name} of type {kinds[name]}",
                where=path,
                fix=_DOWNLOAD,
            )
    if file.metadata.num_rows == 0:
        raise EmptyFileError(f"{form.name} must have rows", got="none", where=path, fix=_DOWNLOAD)


def read_signal(path: Path, form: SignalFormat) -> NDArray[np.float32]:
    """The values of a signal file: float32 (n_rows, n_columns), NaN kept.

    Raises:
        DataError: see ``read_eeg``.
    """
    with _open_parquet(path, form.name) as file:
        _check_schema(file, form, path)
        try:
            # Threads within one small file cost more than they gain, and callers that
            # read many files read several at once.
            table = file.read(columns=list(form.columns), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, form.name, error) from error
    # One transposing copy in C++ takes a tenth of the time of 400 columns in Python.
    (batch,) = table.select(list(form.columns)).combine_chunks().to_batches()
    values = batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()
    return np.ascontiguousarray(values, np.float32)
