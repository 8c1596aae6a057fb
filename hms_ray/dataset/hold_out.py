"""Rows of held-out patients, kept apart from the rows that are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hms_ray.storage.atomic import whole_file
from hms_ray.storage.hashing import table_fingerprint
from hms_ray.text import counted

DATA_DIR: Final = "data_dir"
PACK_DIR: Final = "pack_dir"
"""Keys in a table's ``attrs``, and so in its parquet file: where the recordings and the packs
were, as absolute paths."""


@dataclass(frozen=True)
class HoldOut:
    """The rows of held-out patients, which only ``hms-ray holdout`` reads and packs.

    Attributes:
        rows_file: parquet file of the rows, see ``make_rows``. The table's ``attrs`` have
            ``DATA_DIR`` and ``PACK_DIR``.
        fingerprint: hash of these rows.
    """

    rows_file: Path
    fingerprint: str

    def rows(self) -> pd.DataFrame:
        """The rows, see ``make_rows``."""
        return pd.read_parquet(self.rows_file)

    def note(self) -> str:
        """A line that counts rows and patients."""
        rows = self.rows()
        patients = counted(rows["patient_id"].nunique(), "patient")
        return f"held out: {counted(len(rows), 'row')} of {patients}"


def set_aside(held_out: pd.DataFrame, folder: Path, data_dir: Path, pack_dir: Path) -> HoldOut:
    """Writes the rows of held-out patients to a table of their own."""
    fingerprint = table_fingerprint(held_out)
    file = folder / f"holdout-{fingerprint}.parquet"
    table = held_out.copy()
    table.attrs = {DATA_DIR: str(data_dir.resolve()), PACK_DIR: str(pack_dir.resolve())}
    with whole_file(file) as draft:
        table.to_parquet(draft, index=False)
    return HoldOut(file.resolve(), fingerprint)


def with_held_out_rows(folds: pd.DataFrame | None, held_out: pd.DataFrame) -> pd.DataFrame:
    """A fold table with the held-out rows too, in fold 0, where nothing is scored."""
    assert folds is not None
    columns = ["row_id", "patient_id", "fold"]
    added = held_out[["row_id", "patient_id"]].assign(fold=0)
    return pd.concat([folds[columns], added], ignore_index=True)


def without_held_out(
    given: pd.DataFrame | None, held_out: pd.DataFrame
) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    """A given fold table without held-out patients, and a note if it had some."""
    if given is None or held_out.empty:
        return given, ()
    dropped = np.zeros(len(given), dtype=np.bool_)
    if "row_id" in given:
        dropped |= given["row_id"].astype(str).isin(held_out["row_id"]).to_numpy()
    if "patient_id" in given:
        dropped |= given["patient_id"].isin(held_out["patient_id"]).to_numpy()
    if not dropped.any():
        return given, ()
    note = f"fold table: {counted(int(dropped.sum()), 'row')} of held-out patients dropped"
    return given[~dropped], (note,)
