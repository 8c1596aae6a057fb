"""Check a competition folder or a label table, and report all faults at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.file_errors import fault_of
from hms_ray.competition.file_faults import FilesReport, SignalFiles, check_files, train_files
from hms_ray.competition.folder_report import FolderReport, TierReport
from hms_ray.competition.footer_cache import load_footers, save_footers
from hms_ray.competition.label_table import LabelTable, read_label_table
from hms_ray.competition.read import LABEL_FILE, TEST_FILE, require_folder
from hms_ray.competition.rows import UNIT_KEYS
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS, VOTE_TIERS
from hms_ray.competition.submission_part import SubmissionPart, read_submission_part
from hms_ray.competition.table_faults import table_faults
from hms_ray.errors import DataError, Fault, FaultyDataError


def check_folder(
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    signals: bool = True,
    cache_dir: str | Path | None = None,
    test: bool = True,
) -> FolderReport:
    """Check a competition folder in one pass.

    The tables, the footers of all files (rows, columns, types) and their lengths are always
    checked. A recording without a single number is always found: if the statistics in a
    footer show none, the values are read.

    Args:
        folder: contains ``train.csv``, ``train_eegs/``, ``train_spectrograms/``, and, to make
            submissions, ``test.csv``, ``test_eegs/``, ``test_spectrograms/`` and
            ``sample_submission.csv``.
        labels: a label table to use instead of ``train.csv``, ``.csv`` or ``.parquet``.
        signals: also read the values of every file, which finds damage outside of the
            footers (minutes on the full competition data).
        cache_dir: folder to cache footers in, so that the next check without signals
            opens only new and changed files.
        test: also check the test part, which training does not use.

    Returns:
        Counts and all faults. If the label table itself is unusable, training files are not
        checked.

    Raises:
        DataError: if the folder does not exist.
    """
    folder = Path(folder)
    require_folder(folder)
    if not any(folder.iterdir()):
        message = "a competition folder must contain train.csv, train_eegs/ and train_spectrograms/"
        return FolderReport(
            str(folder), faults=(Fault("empty_folder", f"{message}, got an empty folder"),)
        )
    path = Path(labels) if labels is not None else folder / LABEL_FILE
    train: tuple[SignalFiles, ...] = ()
    try:
        table = read_label_table(path)
        report, train = _table_report(table), train_files(folder, table.keyed())
    except DataError as error:
        report = FolderReport(None, faults=(fault_of(error, path.name),))
    part = read_submission_part(folder) if test else SubmissionPart()
    found = _check_all_files([*train, *part.files], signals, cache_dir)
    counts = {} if part.n_recordings is None else {"test_recordings": part.n_recordings}
    for files, one in found:
        counts[f"missing_{files.name}_files"] = one.n_missing
        counts[f"unlisted_{files.name}_files"] = one.n_unlisted
    n_train = len(train)
    return replace(
        report,
        folder=str(folder),
        table=None if labels is None else str(path),
        counts={**report.counts, **counts} if report.counts else {},
        faults=(
            *report.faults,
            *(fault for _, one in found[:n_train] for fault in one.faults),
            *part.faults,
            *(fault for _, one in found[n_train:] for fault in one.faults),
        ),
        notes=part.notes,
    )


def _check_all_files(
    folders: Sequence[SignalFiles], signals: bool, cache_dir: str | Path | None
) -> list[tuple[SignalFiles, FilesReport]]:
    """What is found in each folder; cached footers of other folders stay."""
    known = load_footers(cache_dir) if cache_dir is not None else {}
    found = [(files, check_files(files, signals, known)) for files in folders]
    checked = {files.directory.name for files in folders}
    footers = {key: one for key, one in known.items() if key.file.split("/")[0] not in checked}
    for _, report in found:
        footers |= report.footers
    if cache_dir is not None and footers != known:
        save_footers(cache_dir, footers)
    return found


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
    """``check_folder`` for training, by default without reading every value.

    The test part is not checked. Faults of the kinds in ``tolerated`` are ignored and do not
    appear in the report.

    Raises:
        FaultyDataError: if the folder has faults; it carries all of them.
        DataError: if the folder does not exist.
    """
    report = check_folder(folder, signals=signals, cache_dir=cache_dir, test=False)
    return replace(report, faults=_require_none(report.faults, tolerated, folder))


def require_sound_test(
    folder: str | Path,
    names: Collection[str],
    *,
    cache_dir: str | Path | None = None,
    tolerated: Collection[str] = (),
) -> None:
    """Checks the test recordings that models read, without reading every value.

    Args:
        folder: competition folder.
        names: ``test_eeg``, ``test_spectrogram``, or both.
        cache_dir: see ``check_folder``.
        tolerated: see ``require_sound``.

    Raises:
        FaultyDataError: if ``test.csv`` or one of these files has faults.
        DataError: if the folder does not exist.
    """
    folder = Path(folder)
    require_folder(folder)
    part = read_submission_part(folder)
    files = [one for one in part.files if one.name in names]
    found = _check_all_files(files, False, cache_dir)
    faults = [fault for fault in part.faults if fault.file == TEST_FILE]
    faults += [fault for _, one in found for fault in one.faults]
    _require_none(faults, tolerated, folder)


def _require_none(
    faults: Sequence[Fault], tolerated: Collection[str], folder: str | Path
) -> tuple[Fault, ...]:
    """The faults without the tolerated ones, of which there must be none."""
    left = tuple(fault for fault in faults if fault.kind not in tolerated)
    if left:
        raise FaultyDataError(left, where=folder)
    return left


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
