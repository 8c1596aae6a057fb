"""A competition folder to everything that training reads: rows, folds, packs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hms_ray.competition.check import require_sound
from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import make_rows, row_fingerprint
from hms_ray.config import Experiment, digest
from hms_ray.errors import DataError, HmsRayError
from hms_ray.fold_store import STORE_NAME
from hms_ray.folds import fit_folds, folds_fingerprint, make_folds
from hms_ray.pack.build import build_pack, default_pack_dir, find_pack
from hms_ray.pack.store import open_pack


@dataclass(frozen=True)
class Prepared:
    """Data made ready, by reference: small enough to send to every worker.

    Attributes:
        rows_file: parquet file of the training rows with their folds.
        pack_path: folder of the packed source.
        rows_fingerprint: content hash of the rows: windows, votes, targets.
        folds_fingerprint: content hash of the fold table.
        pack_fingerprint: content hash of the packed source and its recipe.
        n_folds: number of folds.
    """

    rows_file: Path
    pack_path: Path
    rows_fingerprint: str
    folds_fingerprint: str
    pack_fingerprint: str
    n_folds: int

    def rows(self) -> pd.DataFrame:
        """Training rows as ``make_rows`` gives them, with the column ``fold``."""
        return pd.read_parquet(self.rows_file)

    @property
    def fingerprint(self) -> str:
        """One hash of all data that a result can depend on."""
        return digest([self.rows_fingerprint, self.folds_fingerprint, self.pack_fingerprint])


def prepare(
    data_dir: str | Path,
    experiment: Experiment,
    results: str | Path,
    *,
    pack_dir: str | Path | None = None,
    folds: pd.DataFrame | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Checks a competition folder and makes rows, folds and the pack of an experiment.

    Args:
        data_dir: competition folder.
        experiment: says the row unit, the folds and the source.
        results: folder of all studies; the row table is kept in its store.
        pack_dir: where packs are kept; beside the data where absent.
        folds: a fold table, as ``read_folds`` gives it, to use instead of drawing one.
        progress: called with (recordings done, recordings in all) while packing.

    Raises:
        FaultyDataError: where the folder has faults.
        DataError: where given folds do not fit the rows.
        PackError: where a row's window leaves its recording.
    """
    data_dir = Path(data_dir)
    pack_dir = Path(pack_dir) if pack_dir is not None else default_pack_dir(data_dir)
    source = experiment.input.source
    # Every value was read when the pack was made; after that the tables and the
    # files' sizes tell enough, and a sweep starts at once.
    require_sound(data_dir, signals=not _is_packed(data_dir, pack_dir, source), cache_dir=pack_dir)
    rows = make_rows(read_labels(data_dir), experiment.data.unit, experiment.data.window)
    if folds is None:
        folds = make_folds(rows, experiment.data.n_folds, experiment.data.fold_seed)
    else:
        folds = fit_folds(folds, rows)
    pack = build_pack(data_dir, pack_dir, source, progress=progress)
    pack.locate(rows["spectrogram_id"].to_numpy(), rows["spectrogram_start"].to_numpy())
    fold_of = folds.set_index("row_id")["fold"]
    table = rows.assign(fold=rows["row_id"].map(fold_of).astype("int64"))
    rows_print, folds_print = row_fingerprint(rows), folds_fingerprint(folds)
    file = Path(results) / STORE_NAME / "rows" / f"{digest([rows_print, folds_print])}.parquet"
    _write_once(table, file)
    return Prepared(
        rows_file=file.resolve(),
        pack_path=Path(pack.path).resolve(),
        rows_fingerprint=rows_print,
        folds_fingerprint=folds_print,
        pack_fingerprint=pack.fingerprint,
        n_folds=int(table["fold"].max()) + 1,
    )


def _is_packed(data_dir: Path, pack_dir: Path, source: str) -> bool:
    try:
        return find_pack(data_dir, pack_dir, source) is not None
    except HmsRayError:
        # What is wrong with the folder is told by its check, all of it at once.
        return False


def check_prepared(prepared: Prepared) -> None:
    """Makes sure that the packed source is still the one that was prepared.

    Raises:
        DataError: where the pack was built again from other data.
    """
    found = open_pack(prepared.pack_path).fingerprint
    if found != prepared.pack_fingerprint:
        raise DataError(
            "a pack must not change while it is in use",
            got=f"fingerprint {found[:12]} instead of {prepared.pack_fingerprint[:12]}",
            where=prepared.pack_path,
            fix="Run the command again: results follow the data they were made from.",
        )


def _write_once(table: pd.DataFrame, file: Path) -> None:
    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.stem}-{uuid.uuid4().hex}")
    table.to_parquet(draft, index=False)
    os.replace(draft, file)
