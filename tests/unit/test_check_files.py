"""Every fault of signal files is found in one pass, with its file and id."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_ray.competition.check import check_folder
from hms_ray.errors import Fault
from tests.competition_folder import (
    eeg_values,
    spectrogram_values,
    write_eeg,
    write_spectrogram,
)
from tests.damage import assert_faults, change_labels

EEG = "train_eegs/500007.parquet"
SPECTROGRAM = "train_spectrograms/41000.parquet"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def only_fault(folder: Path, signals: bool = False) -> Fault:
    (fault,) = check_folder(folder, signals=signals).faults
    return fault


def test_missing_files_and_directories(folder: Path) -> None:
    (folder / EEG).unlink()
    (folder / SPECTROGRAM).unlink()
    (folder / SPECTROGRAM).mkdir()
    report = check_folder(folder)
    assert_faults(
        report.faults,
        ("missing_file", EEG, "EEG file must exist"),
        ("missing_file", SPECTROGRAM, "spectrogram file must exist"),
    )
    assert [fault.id for fault in report.faults] == ["500007", "41000"]
    assert report.counts["missing_eeg_files"] == 1
    assert report.counts["missing_spectrogram_files"] == 1
    shutil.rmtree(folder / "train_spectrograms")
    report = check_folder(folder)
    assert_faults(report.faults[1:], ("missing_file", "train_spectrograms/", "folder"))
    assert report.counts["missing_spectrogram_files"] == 3


def test_truncated_file(folder: Path) -> None:
    whole = (folder / SPECTROGRAM).read_bytes()
    (folder / SPECTROGRAM).write_bytes(whole[: len(whole) // 2])
    assert_faults(
        check_folder(folder, signals=False).faults, ("unreadable_file", "41000", "damaged")
    )


@pytest.mark.parametrize("file", [SPECTROGRAM, "train_spectrograms/7.parquet"])
def test_damaged_values_are_found_by_reading_them(folder: Path, file: str) -> None:
    whole = (folder / SPECTROGRAM).read_bytes()
    (folder / file).write_bytes(whole[:50] + b"\xff" * 100_000 + whole[100_050:])
    assert check_folder(folder, signals=False).ok
    fault = only_fault(folder, signals=True)
    assert (fault.kind, fault.file) == ("unreadable_file", file)


def test_wrong_columns_and_types(folder: Path) -> None:
    table = pq.read_table(folder / EEG)
    pq.write_table(table.drop_columns("T5"), folder / EEG)
    table = pq.read_table(folder / SPECTROGRAM)
    k = table.schema.get_field_index("RP_4.1")
    pq.write_table(table.set_column(k, "RP_4.1", table["time"]), folder / SPECTROGRAM)
    assert_faults(
        check_folder(folder).faults,
        ("wrong_columns", EEG, "20 columns, got no T5"),
        ("wrong_type", SPECTROGRAM, "got RP_4.1 of type int64"),
    )


def test_no_rows(folder: Path) -> None:
    write_eeg(folder / EEG, np.zeros((0, 20), np.float32))
    assert_faults(check_folder(folder, signals=False).faults, ("empty_file", EEG, "got none"))


def test_unlisted_files_must_be_well_formed(folder: Path) -> None:
    """They are packed like the others; their length and values do not matter."""
    write_eeg(folder / "train_eegs" / "600000.parquet", np.full((8, 20), np.nan, np.float32))
    report = check_folder(folder, signals=True)
    assert report.ok
    assert report.counts["unlisted_eeg_files"] == 1
    assert "  EEG files not in train.csv                  1" in report.to_text().splitlines()
    (folder / "train_eegs" / "1.parquet").touch()
    write_eeg(folder / "train_spectrograms" / "9.parquet", np.zeros((8, 20), np.float32))
    report = check_folder(folder)
    assert report.counts["unlisted_eeg_files"] == 2
    assert_faults(
        report.faults,
        ("unreadable_file", "1", "an empty file"),
        ("wrong_columns", "9", "401 columns"),
    )


def test_misnamed_files(folder: Path) -> None:
    shutil.copy(folder / EEG, folder / "train_eegs" / "copy.parquet")
    shutil.copy(folder / EEG, folder / "train_eegs" / "0500007.parquet")
    (folder / "train_eegs" / "notes.txt").touch()
    (folder / "train_eegs" / "5.parquet.part").touch()
    assert_faults(
        check_folder(folder).faults,
        ("misnamed_file", "train_eegs/0500007.parquet", "must be its id"),
        ("misnamed_file", "train_eegs/copy.parquet", "must be its id"),
    )


def test_recording_shorter_than_its_windows(folder: Path, rng: np.random.Generator) -> None:
    labels = pd.read_csv(folder / "train.csv")
    of_eeg = labels[labels["eeg_id"] == 500_007]
    of_spectrogram = labels[labels["spectrogram_id"] == 41_000]
    seconds = int(of_eeg["eeg_label_offset_seconds"].max()) + 50
    later = int(of_spectrogram["spectrogram_label_offset_seconds"].max()) + 600
    write_eeg(folder / EEG, eeg_values(rng, seconds * 200))
    write_spectrogram(folder / SPECTROGRAM, spectrogram_values(rng, later // 2))
    assert check_folder(folder).ok
    write_eeg(folder / EEG, eeg_values(rng, seconds * 200 - 1))
    write_spectrogram(folder / SPECTROGRAM, spectrogram_values(rng, later // 2 - 1))
    assert_faults(
        check_folder(folder).faults,
        ("too_short", EEG, f"{seconds} s in all, got {seconds - 0.005:g} s"),
        ("too_short", SPECTROGRAM, f"{later} s in all, got {later - 2} s"),
    )


def test_odd_largest_offset_needs_the_rows_of_its_window(folder: Path) -> None:
    def later(labels: pd.DataFrame) -> pd.DataFrame:
        """Moves all labels of the spectrogram's last EEG by one second."""
        labels["spectrogram_label_offset_seconds"] += 1.0 * (labels["eeg_id"] == 500_007)
        return labels

    change_labels(folder / "train.csv", later)
    assert check_folder(folder).ok
    change_labels(folder / "train.csv", later)
    assert only_fault(folder).kind == "too_short"


@pytest.mark.parametrize("signals", [True, False])
def test_signals_without_a_number(folder: Path, signals: bool) -> None:
    n_samples = pq.read_metadata(folder / EEG).num_rows
    values = np.full((n_samples, 20), np.nan, np.float32)
    values[:, -1] = 1  # the EKG is not a brain signal
    write_eeg(folder / EEG, values)
    n_rows = pq.read_metadata(folder / SPECTROGRAM).num_rows
    write_spectrogram(folder / SPECTROGRAM, np.full((n_rows, 400), np.nan, np.float32))
    assert_faults(
        check_folder(folder, signals=signals).faults,
        ("no_numbers", EEG, "got only NaN"),
        ("no_numbers", SPECTROGRAM, "got only NaN"),
    )


def test_signals_without_statistics_are_read(folder: Path) -> None:
    table = pq.read_table(folder / EEG)
    pq.write_table(table, folder / EEG, write_statistics=False)
    assert check_folder(folder, signals=False).ok
