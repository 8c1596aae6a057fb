"""Files of predictions, .csv or .parquet, written as a whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hms_ray.competition.tables import TABLE_SUFFIXES, read_table
from hms_ray.errors import ConfigError
from hms_ray.predict.submission import (
    check_submission,
)
from hms_ray.storage.atomic import require_writable, whole_file


def require_output_file(path: Path) -> None:
    """Refuses a file that cannot be written, before anything is computed for it.

    Raises:
        ConfigError: if it has another ending; see ``require_writable``.
    """
    if path.suffix not in TABLE_SUFFIXES:
        raise ConfigError(
            f"a file of predictions must end in {' or '.join(TABLE_SUFFIXES)}", got=str(path)
        )
    require_writable(path)


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Writes a table as a whole or not at all, in the format of its name's ending.

    Text has enough digits to read the same float64 back; parquet also keeps the table's
    ``attrs``.
    """
    with whole_file(path) as draft:
        _write(draft, path.suffix, table)


def write_submission(path: Path, table: pd.DataFrame, eeg_ids: Sequence[int]) -> None:
    """Writes a submission that passes ``check_submission`` when it is read back.

    Args:
        path: ``.csv`` or ``.parquet``; it is replaced as a whole or not changed.
        table: the submission.
        eeg_ids: EEGs that it must list, in this order.

    Raises:
        PredictionError: see ``check_submission``.
    """
    check_submission(table, eeg_ids)
    with whole_file(path) as draft:
        _write(draft, path.suffix, table)
        check_submission(read_table(draft, suffix=path.suffix).cells, eeg_ids, path)


def _write(file: Path, suffix: str, table: pd.DataFrame) -> None:
    if suffix == ".parquet":
        table.to_parquet(file, index=False)
    else:
        table.to_csv(file, index=False)
