"""Check a competition folder or a label table, and report all faults at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.file_errors import fault_of
from hms_ray.competition.file_faults import SignalFiles, check_files, listed_files
from hms_ray.competition.folder_report import FolderReport, TierReport
from hms_ray.competition.footer_cache import FooterKey, load_footers, save_footers
from hms_ray.competition.label_table import LabelTable, read_label_table
from hms_ray.competition.read import LABEL_FILE, SignalFooter
from hms_ray.competition.rows import UNIT_KEYS
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS, VOTE_TIERS
from hms_ray.competition.table_faults import table_faults
from hms_ray.errors import DataError, Fault, FaultyDataError


def check_folder(
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    signals: bool = True,
    cache_dir: str | Path | None = None,
) -> FolderReport:
    """Check a competition folder in one pass.

    The label table, the footers of all files (rows, columns, types) and their lengths are
    always checked. A recording without a single number is always found: if the statistics
    in a footer show none, the values are read.

    Args:
        folder: contains ``train.csv``, ``train_eegs/``, ``train_spectrograms/``.
        labels: a label table to use instead of ``train.csv``, ``.csv`` or ``.parquet``.
        signals: also read the values of every file, which finds damage outside of the
            footers (minutes on the full competition data).
        cache_dir: folder to cache footers in, so that the next check without signals
            opens only new and changed files.

    Returns:
        Counts and all faults. If the label table itself is unusable, that is the only fault.

    Raises:
        DataError: if the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            "a competition folder must exist",
            where=folder,
            fix="Check the path, or make one: hms-ray simulate --out DIR",
        )
    if not any(folder.iterdir()):
        message = "a competition folder must contain train.csv, train_eegs/ and train_spectrograms/"
        return FolderReport(
            str(folder), faults=(Fault("empty_folder", f"{message}, got an empty folder"),)
        )
    path = Path(labels) if labels is not None else folder / LABEL_FILE
    other_table = None if labels is None else str(path)
    try:
        table = read_label_table(path)
    except DataError as error:
        return FolderReport(str(folder), other_table, faults=(fault_of(error, path.name),))
    report = _table_report(table)
    counts, faults = _check_all_files(listed_files(folder, table.keyed()), signals, cache_dir)
    return replace(
        report,
        folder=str(folder),
        table=other_table,
        counts={**report.counts, **counts},
        faults=(*report.faults, *faults),
    )


def _check_all_files(
    folders: Sequence[SignalFiles], signals: bool, cache_dir: str | Path | None
) -> tuple[dict[str, int], list[Fault]]:
    known = load_footers(cache_dir) if cache_dir is not None else {}
    counts: dict[str, int] = {}
    footers: dict[FooterKey, SignalFooter] = {}
    faults: list[Fault] = []
    for name, files in zip(("eeg", "spectrogram"), folders, strict=True):
        found = check_files(files, signals, known)
        counts[f"missing_{name}_files"] = found.n_missing
        counts[f"unlisted_{name}_files"] = found.n_unlisted
        footers |= found.footers
        faults += found.faults
    if cache_dir is not None and footers != known:
        save_footers(cache_dir, footers)
    return counts, faults


def check_table(file: str | Path) -> FolderReport:
    """Check a label table alone, without signal files.

    The file is ``train.csv``, or a ``.csv`` or ``.parquet`` file with its columns.
    """
    file = Path(file)
    try:
        table = read_label_table(file)
    except DataError as error:
        return FolderReport(None, str(file), faults=(fault_of(error, file.name),))
    return replace(_table_report(table), table=str(file))


def require_sound(
    folder: str | Path,
    *,
    signals: bool = False,
    cache_dir: str | Path | None = None,
    tolerated: Collection[str] = (),
) -> FolderReport:
    """``check_folder``, by default without reading every value; faults are an error.

    Faults of the kinds in ``tolerated`` are ignored and do not appear in the report.

    Raises:
        FaultyDataError: if the folder has faults; it carries all of them.
        DataError: if the folder does not exist.
    """
    report = check_folder(folder, signals=signals, cache_dir=cache_dir)
    faults = tuple(fault for fault in report.faults if fault.kind not in tolerated)
    report = replace(report, faults=faults)
    if not report.ok:
        raise FaultyDataError(report.faults, where=folder)
    return report


def _table_report(table: LabelTable) -> FolderReport:
    labels, keyed, voted = table.labels, table.keyed(), table.voted()
    votes = voted[list(VOTE_COLUMNS)]
    usable = voted[(votes >= 0).all(axis=1) & (votes > 0).any(axis=1)]
    return FolderReport(
        None,
        counts={
            "label_rows": len(labels),
            "eegs": keyed["eeg_id"].nunique(),
            "spectrograms": keyed["spectrogram_id"].nunique(),
            "patients": keyed["patient_id"].nunique(),
            "unknown_label_ids": int(table.cells["label_id"].isna().sum()),
        },
        units={unit: int((~usable.duplicated(keys)).sum()) for unit, keys in UNIT_KEYS.items()},
        classes={name: int((labels["expert_consensus"] == name).sum()) for name in CLASSES},
        tiers=_tiers(usable),
        faults=tuple(table_faults(table)),
    )


def _tiers(labels: pd.DataFrame) -> dict[str, TierReport]:
    votes = labels[list(VOTE_COLUMNS)].to_numpy()
    total = votes.sum(axis=1)
    shares = votes / total[:, None]
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
    first = ~labels.duplicated(UNIT_KEYS["eeg_votes"]).to_numpy()
    tiers = {}
    for name, low, high in VOTE_TIERS:
        rows = (total >= low) & (total <= (high or np.inf))
        any_rows = bool(rows.any())
        tiers[name] = TierReport(
            label_rows=int(rows.sum()),
            rows=int((rows & first).sum()),
            entropy=float(entropy[rows].mean()) if any_rows else None,
            unanimous=float((shares[rows].max(axis=1) == 1).mean()) if any_rows else None,
        )
    return tiers
