"""Everything that can be wrong with a folder, found before any training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.file_errors import fault_of
from hms_ray.competition.folder_report import FolderReport, TierReport
from hms_ray.competition.footer_cache import FooterKey, load_footers, save_footers
from hms_ray.competition.label_table import LabelTable, read_label_table, unknown_label_ids
from hms_ray.competition.read import LABEL_FILE, SignalFooter
from hms_ray.competition.recording_faults import Recordings, check_files, recordings_of
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
    """Checks a competition folder in one pass.

    Table, file footers (rows, columns, types) and lengths are always checked,
    and a recording without a single number is always found: where a footer's
    statistics show none, the values are read.

    Args:
        folder: holds ``train.csv``, ``train_eegs/``, ``train_spectrograms/``.
        labels: a label table to use instead of ``train.csv``, text or ``.parquet``.
        signals: read every file's values too, so that damage outside of the
            footers is found (minutes on the full competition data).
        cache_dir: where to keep what footers said, so that the next check
            without signals opens only new and changed files.

    Returns:
        Counts and all faults. Where the label table itself cannot be used, that
        is the only one.

    Raises:
        DataError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("a competition folder must exist", where=folder)
    if not any(folder.iterdir()):
        message = "a competition folder must hold train.csv, train_eegs/ and train_spectrograms/"
        return FolderReport(
            str(folder), faults=(Fault("empty_folder", f"{message}, this one is empty"),)
        )
    path = Path(labels) if labels is not None else folder / LABEL_FILE
    named = None if labels is None else str(path)
    try:
        table = read_label_table(path)
    except DataError as error:
        return FolderReport(str(folder), named, faults=(fault_of(error, path.name),))
    report = _table_report(table)
    counts, faults = _check_all_files(recordings_of(folder, table.keyed()), signals, cache_dir)
    return replace(
        report,
        folder=str(folder),
        table=named,
        counts={**report.counts, **counts},
        faults=(*report.faults, *faults),
    )


def _check_all_files(
    kinds: Sequence[Recordings], signals: bool, cache_dir: str | Path | None
) -> tuple[dict[str, int], list[Fault]]:
    known = load_footers(cache_dir) if cache_dir is not None else {}
    counts: dict[str, int] = {}
    footers: dict[FooterKey, SignalFooter] = {}
    faults: list[Fault] = []
    for name, kind in zip(("eeg", "spectrogram"), kinds, strict=True):
        found = check_files(kind, signals, known)
        counts[f"missing_{name}_files"] = found.n_missing
        counts[f"unlisted_{name}_files"] = found.n_unlisted
        footers |= found.footers
        faults += found.faults
    if cache_dir is not None and footers != known:
        save_footers(cache_dir, footers)
    return counts, faults


def check_table(file: str | Path) -> FolderReport:
    """Checks a label table by itself, without any file of signals.

    Args:
        file: ``train.csv``, or a table with its columns; ``.parquet`` or text.

    Returns:
        Counts and all faults, without those of files.
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
    """As ``check_folder``, by default without reading every value; faults are an error.

    Args:
        folder: as of ``check_folder``.
        signals: as of ``check_folder``.
        cache_dir: as of ``check_folder``.
        tolerated: kinds of faults that are none here, and are left out of the report.

    Raises:
        FaultyDataError: the folder has faults; it carries all of them.
        DataError: there is no such folder.
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
            "unknown_label_ids": unknown_label_ids(table),
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
        there = bool(rows.any())
        tiers[name] = TierReport(
            label_rows=int(rows.sum()),
            rows=int((rows & first).sum()),
            entropy=float(entropy[rows].mean()) if there else None,
            unanimous=float((shares[rows].max(axis=1) == 1).mean()) if there else None,
        )
    return tiers
