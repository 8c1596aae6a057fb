"""Files of predictions: text or parquet by the ending of the name, whole or absent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa

from hms_ray.competition.tables import read_table
from hms_ray.errors import ConfigError, PredictionError
from hms_ray.predict.submission import (
    SUBMISSION_COLUMNS,
    check_submission,
    probabilities_in,
    whole_ids,
)
from hms_ray.storage.atomic import require_writable, whole_file

SUFFIXES: Final = (".csv", ".parquet")


def require_place(path: Path) -> None:
    """Refuses a file that cannot be written, before anything is computed for it.

    Raises:
        ConfigError: naming the endings that say how it is written, and as
            ``require_writable``.
    """
    require_suffix(path)
    require_writable(path)


def require_suffix(path: Path) -> None:
    """Refuses a file that is written neither as text nor as parquet.

    Raises:
        ConfigError: naming the endings that say how it is written.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"a file of predictions must end in {' or '.join(SUFFIXES)}", got=str(path)
        )


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Writes a table, whole or not at all, as the ending of its name says.

    Text has as many digits as give the same float64 back; parquet also keeps the table's
    attributes.

    Raises:
        ConfigError: as of ``require_suffix``.
    """
    require_suffix(path)
    with whole_file(path) as draft:
        _write(draft, path.suffix, table)


def write_submission(path: Path, table: pd.DataFrame, eeg_ids: Sequence[int]) -> None:
    """Writes a submission that passes ``check_submission`` when it is read back.

    Args:
        path: ``.csv`` or ``.parquet``; it is replaced as a whole, or stays as it was.
        table: the submission.
        eeg_ids: EEGs that it must list, in this order.

    Raises:
        ConfigError: as of ``require_suffix``.
        PredictionError: as of ``check_submission``.
    """
    require_suffix(path)
    check_submission(table, eeg_ids)
    with whole_file(path) as draft:
        _write(draft, path.suffix, table)
        check_submission(_read(draft, path.suffix), eeg_ids, path)


def read_predictions(path: Path) -> pd.DataFrame:
    """Predictions of EEGs: ``eeg_id`` and the six columns, others left out.

    Raises:
        DataError: no such file, not a table, missing columns, no rows.
        PredictionError: where columns hold something else than numbers.
    """
    table = read_table(path, SUBMISSION_COLUMNS)
    table["eeg_id"] = whole_ids(table["eeg_id"], path)
    probabilities_in(table, path)
    return table


def _write(file: Path, suffix: str, table: pd.DataFrame) -> None:
    if suffix == ".parquet":
        table.to_parquet(file, index=False)
    else:
        table.to_csv(file, index=False)


def _read(file: Path, suffix: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(file) if suffix == ".parquet" else pd.read_csv(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PredictionError(
            "a submission must be readable as it was written", got=type(error).__name__
        ) from None
