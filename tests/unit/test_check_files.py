"""Every fault of signal files is found, in one pass, with file, id and exact text."""

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
    write_competition_folder,
    write_eeg,
    write_spectrogram,
)
from tests.damage import change_labels

EEG = "train_eegs/500007.parquet"
SPECTROGRAM = "train_spectrograms/41000.parquet"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients; EEGs 500000-500021, spectrograms 41000 (of two EEGs), 40002 and 40003."""
    return write_competition_folder(tmp_path_factory.mktemp("data") / "original", n_patients=2)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "competition"))


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
    assert report.faults == (
        Fault("missing_file", "an EEG file must exist", EEG, "500007"),
        Fault("missing_file", "a spectrogram file must exist", SPECTROGRAM, "41000"),
    )
    assert report.counts["missing_eeg_files"] == 1
    assert report.counts["missing_spectrogram_files"] == 1
    shutil.rmtree(folder / "train_spectrograms")
    report = check_folder(folder)
    assert report.faults[1:] == (
        Fault(
            "missing_file",
            "a competition folder must hold the folder train_spectrograms/",
            "train_spectrograms/",
        ),
    )
    assert report.counts["missing_spectrogram_files"] == 3


def test_truncated_file(folder: Path) -> None:
    whole = (folder / SPECTROGRAM).read_bytes()
    (folder / SPECTROGRAM).write_bytes(whole[: len(whole) // 2])
    assert only_fault(folder) == Fault(
        "unreadable_file",
        "a spectrogram file must be whole parquet, got one that is cut or damaged",
        SPECTROGRAM,
        "41000",
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
    assert check_folder(folder).faults == (
        Fault("wrong_columns", "an EEG file must hold its 20 columns, got no T5", EEG, "500007"),
        Fault(
            "wrong_type",
            "the columns of a spectrogram file must be floating-point numbers of 32 or 64 bits, "
            "got RP_4.1 of type int64",
            SPECTROGRAM,
            "41000",
        ),
    )


def test_no_rows(folder: Path) -> None:
    write_eeg(folder / EEG, np.zeros((0, 20), np.float32))
    assert only_fault(folder) == Fault(
        "empty_file", "an EEG file must hold rows, got none", EEG, "500007"
    )


def test_unlisted_files_must_be_well_formed(folder: Path) -> None:
    """They are packed like the others; how long they are and what they hold is their affair."""
    write_eeg(folder / "train_eegs" / "600000.parquet", np.full((8, 20), np.nan, np.float32))
    report = check_folder(folder, signals=True)
    assert report.ok
    assert report.counts["unlisted_eeg_files"] == 1
    assert "  EEG files not in train.csv                  1" in report.to_text().splitlines()
    (folder / "train_eegs" / "1.parquet").touch()
    write_eeg(folder / "train_spectrograms" / "9.parquet", np.zeros((8, 20), np.float32))
    report = check_folder(folder)
    assert report.counts["unlisted_eeg_files"] == 2
    eeg, spectrogram = report.faults
    assert eeg == Fault(
        "unreadable_file",
        "an EEG file must be whole parquet, got one that is cut or damaged",
        "train_eegs/1.parquet",
        "1",
    )
    assert (spectrogram.kind, spectrogram.id) == ("wrong_columns", "9")


def test_misnamed_files(folder: Path) -> None:
    shutil.copy(folder / EEG, folder / "train_eegs" / "copy.parquet")
    shutil.copy(folder / EEG, folder / "train_eegs" / "0500007.parquet")
    (folder / "train_eegs" / "notes.txt").touch()
    (folder / "train_eegs" / "5.parquet.part").touch()
    message = "a recording's file must be named by its id"
    assert check_folder(folder).faults == (
        Fault("misnamed_file", message, "train_eegs/0500007.parquet"),
        Fault("misnamed_file", message, "train_eegs/copy.parquet"),
    )


def test_recordings_shorter_than_their_windows(folder: Path, rng: np.random.Generator) -> None:
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
    assert check_folder(folder).faults == (
        Fault(
            "too_short",
            f"an EEG must last 50 s beyond its largest offset, {seconds} s in all, "
            f"got {seconds - 0.005:g} s",
            EEG,
            "500007",
        ),
        Fault(
            "too_short",
            f"a spectrogram must last 600 s beyond its largest offset, {later} s in all, "
            f"got {later - 2} s",
            SPECTROGRAM,
            "41000",
        ),
    )


def test_odd_largest_offset_needs_the_rows_of_its_window(folder: Path) -> None:
    def later(labels: pd.DataFrame) -> pd.DataFrame:
        """Every label of the spectrogram's last EEG, by a second."""
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
    values[:, -1] = 1  # the EKG is no EEG
    write_eeg(folder / EEG, values)
    n_rows = pq.read_metadata(folder / SPECTROGRAM).num_rows
    write_spectrogram(folder / SPECTROGRAM, np.full((n_rows, 400), np.nan, np.float32))
    assert check_folder(folder, signals=signals).faults == (
        Fault("no_numbers", "an EEG must hold numbers, got only NaN", EEG, "500007"),
        Fault("no_numbers", "a spectrogram must hold numbers, got only NaN", SPECTROGRAM, "41000"),
    )


def test_signals_without_statistics_are_read(folder: Path) -> None:
    table = pq.read_table(folder / EEG)
    pq.write_table(table, folder / EEG, write_statistics=False)
    assert check_folder(folder, signals=False).ok
