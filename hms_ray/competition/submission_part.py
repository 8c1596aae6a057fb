"""The part of a competition folder that is predicted: its tables, and their faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.competition.cells import numbers, whole_numbers, written
from hms_ray.competition.file_errors import fault_of
from hms_ray.competition.file_faults import SignalFiles, files_to_predict
from hms_ray.competition.read import SAMPLE_FILE, TEST_COLUMNS, TEST_FILE
from hms_ray.competition.schema import PROBABILITY_COLUMNS, SUBMISSION_COLUMNS, SUM_TOLERANCE
from hms_ray.competition.tables import Table, read_table
from hms_ray.errors import DataError, Fault


@dataclass(frozen=True)
class SubmissionPart:
    """What the tables of the test part show.

    Attributes:
        files: EEG files and spectrogram files to check; empty without a usable ``test.csv``.
        n_recordings: rows of ``test.csv``; None without it.
        faults: of both tables.
        notes: lines on tables that are not there.
    """

    files: tuple[SignalFiles, ...] = ()
    n_recordings: int | None = None
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


def read_submission_part(folder: Path) -> SubmissionPart:
    """Reads and checks ``test.csv`` and ``sample_submission.csv``; both may be missing."""
    if not (folder / TEST_FILE).exists():
        return SubmissionPart(
            notes=(f"No {TEST_FILE}: submissions cannot be made from this folder.",)
        )
    try:
        table = read_table(folder / TEST_FILE)
        cells = table.frame(TEST_COLUMNS)
    except DataError as error:
        return SubmissionPart(faults=(fault_of(error, TEST_FILE),))
    ids, broken, faults = _ids(table, cells)
    sound = ids[~broken]
    faults += [
        Fault("duplicate_key", f"eeg_id must be unique, got {n} rows with it", TEST_FILE, str(eeg))
        for eeg, n in sound["eeg_id"].value_counts(sort=False).items()
        if n > 1
    ]
    notes = () if (folder / SAMPLE_FILE).exists() else (_NO_SAMPLE,)
    if not notes:
        faults += _sample_faults(folder / SAMPLE_FILE, set(sound["eeg_id"].tolist()))
    return SubmissionPart(files_to_predict(folder, sound), len(cells), tuple(faults), notes)


_NO_SAMPLE = f"No {SAMPLE_FILE}: submissions have the order of {TEST_FILE}."


def _ids(table: Table, cells: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, list[Fault]]:
    """Columns of ids, 0 if broken; a mask of rows with a broken one; a fault for each."""
    found, faults = pd.DataFrame(index=cells.index), []
    any_broken = np.zeros(len(cells), bool)
    for name in cells:
        found[name], broken = whole_numbers(cells[name])
        broken |= found[name].to_numpy() < 0
        any_broken |= broken
        for row in np.flatnonzero(broken).tolist():
            got = f"{written(cells[name].iloc[row])} in line {row + 2}"
            message = f"{name} must be a whole number of at least 0, got {got}"
            faults.append(Fault("bad_id", message, table.path.name))
    return found, any_broken, faults


def _sample_faults(file: Path, test_ids: set[int]) -> Iterator[Fault]:
    """Faults of the sample submission for the EEGs of ``test.csv``."""
    try:
        table = read_table(file)
        cells = table.frame(SUBMISSION_COLUMNS)
    except DataError as error:
        yield fault_of(error, file.name)
        return
    if tuple(table.names) != SUBMISSION_COLUMNS:
        rule = f"must have the columns {', '.join(SUBMISSION_COLUMNS)}, in this order"
        message = f"{file.name} {rule}, got {', '.join(table.names)}"
        yield Fault("wrong_columns", message, file.name)
    ids, broken, faults = _ids(table, cells[["eeg_id"]])
    yield from faults
    eegs = ids["eeg_id"].to_numpy()
    listed = pd.Series(eegs[~broken]).value_counts(sort=False)
    for eeg in sorted(test_ids | set(listed.index)):
        n = int(listed.get(eeg, 0))
        if eeg not in test_ids or n != 1:
            got = f"{n} rows with it" if eeg in test_ids else f"one that {TEST_FILE} does not have"
            rule = f"{file.name} must list every EEG of {TEST_FILE} once, and no other"
            yield Fault("other_eegs", f"{rule}, got {got}", file.name, str(eeg))
    shares = np.column_stack([numbers(cells[name])[0] for name in PROBABILITY_COLUMNS])
    sums = shares.astype(np.float64).sum(axis=1)
    # NaN, which also stands for text, fails both comparisons.
    sound = (np.abs(sums - 1) <= SUM_TOLERANCE) & (shares >= 0).all(axis=1)
    for row in np.flatnonzero(~sound).tolist():
        got = f"{', '.join(written(cells[name].iloc[row]) for name in PROBABILITY_COLUMNS)}"
        rule = f"probabilities must be from 0 to 1 and sum to 1 within {SUM_TOLERANCE:g}"
        message = f"{rule}, got {got} in line {row + 2}"
        key = None if broken[row] else str(eegs[row])
        yield Fault("bad_probabilities", message, file.name, key)
