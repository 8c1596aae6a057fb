"""Everything that can be wrong with a folder, found before any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.file_errors import fault_of
from hms_ray.competition.folder_report import FolderReport, TierReport
from hms_ray.competition.read import LABEL_FILE, read_labels
from hms_ray.competition.recording_faults import Recordings, file_faults, recordings_of
from hms_ray.competition.rows import UNIT_KEYS
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS, VOTE_TIERS
from hms_ray.competition.table_faults import table_faults
from hms_ray.errors import DataError, Fault, FaultyDataError


def check_folder(folder: str | Path, *, signals: bool = True) -> FolderReport:
    """Checks a competition folder in one pass.

    Table, file footers (rows, columns, types) and lengths are always checked,
    and a recording without a single number is always found: where a footer's
    statistics show none, the values are read.

    Args:
        folder: holds ``train.csv``, ``train_eegs/``, ``train_spectrograms/``.
        signals: read every file's values too, so that damage outside of the
            footers is found (minutes on the full competition data).

    Returns:
        Counts and all faults. Where ``train.csv`` itself cannot be used, that
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
    try:
        labels = read_labels(folder)
    except DataError as error:
        return FolderReport(str(folder), faults=(fault_of(error, LABEL_FILE),))
    kinds = recordings_of(folder, labels)
    faults = list(table_faults(labels))
    for kind in kinds:
        faults += file_faults(kind, signals)
    votes = labels[list(VOTE_COLUMNS)].to_numpy()
    usable = labels[(votes >= 0).all(axis=1) & (votes.sum(axis=1) > 0)]
    return FolderReport(
        str(folder),
        counts=_counts(labels, kinds),
        units={unit: int((~usable.duplicated(keys)).sum()) for unit, keys in UNIT_KEYS.items()},
        classes={name: int((labels["expert_consensus"] == name).sum()) for name in CLASSES},
        tiers=_tiers(usable),
        faults=tuple(faults),
    )


def require_sound(folder: str | Path, *, signals: bool = False) -> FolderReport:
    """As ``check_folder``, by default without reading every value; faults are an error.

    Raises:
        FaultyDataError: the folder has faults; it carries all of them.
        DataError: there is no such folder.
    """
    report = check_folder(folder, signals=signals)
    if not report.ok:
        raise FaultyDataError(report.faults, where=folder)
    return report


def _counts(labels: pd.DataFrame, kinds: tuple[Recordings, Recordings]) -> dict[str, int]:
    counts = {
        "label_rows": len(labels),
        "eegs": labels["eeg_id"].nunique(),
        "spectrograms": labels["spectrogram_id"].nunique(),
        "patients": labels["patient_id"].nunique(),
    }
    for name, kind in zip(("eeg", "spectrogram"), kinds, strict=True):
        listed, found = kind.listed(), kind.found()
        counts[f"missing_{name}_files"] = len(listed - found)
        counts[f"unlisted_{name}_files"] = len(found - listed)
    return counts


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
