"""Every fault of a folder is found, in one pass, with file, id and exact text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_ray.competition.check import check_folder, require_sound
from hms_ray.competition.folder_report import FAULTS_SHOWN, FolderReport
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS
from hms_ray.errors import DataError, Fault, FaultyDataError
from tests.competition_folder import (
    eeg_values,
    spectrogram_values,
    write_competition_folder,
    write_eeg,
    write_spectrogram,
)

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


def change_labels(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(folder / "train.csv")).to_csv(folder / "train.csv", index=False)


def set_label(folder: Path, line: int, **values: object) -> str:
    """Changes one row of the table; returns its id."""
    labels = pd.read_csv(folder / "train.csv")
    key = f"{labels.loc[line, 'eeg_id']}-{labels.loc[line, 'eeg_sub_id']}"
    for name, value in values.items():
        labels[name] = labels[name].astype(object)
        labels.loc[line, name] = value
    labels.to_csv(folder / "train.csv", index=False)
    return key


def only_fault(folder: Path, signals: bool = False) -> Fault:
    (fault,) = check_folder(folder, signals=signals).faults
    return fault


@pytest.mark.parametrize("signals", [True, False])
def test_sound_folder(folder: Path, signals: bool) -> None:
    report = check_folder(folder, signals=signals)
    labels = pd.read_csv(folder / "train.csv")
    assert report.ok
    assert report.faults == ()
    assert report.counts == {
        "label_rows": len(labels),
        "eegs": 4,
        "spectrograms": 3,
        "patients": 2,
        "missing_eeg_files": 0,
        "unlisted_eeg_files": 0,
        "missing_spectrogram_files": 0,
        "unlisted_spectrogram_files": 0,
    }
    assert report.units == {
        "eeg_votes": len(labels.drop_duplicates(["eeg_id", *VOTE_COLUMNS])),
        "eeg": 4,
        "label": len(labels),
    }
    assert report.classes == {name: (labels["expert_consensus"] == name).sum() for name in CLASSES}
    assert require_sound(folder).counts == report.counts


def test_vote_tiers(folder: Path) -> None:
    votes = np.zeros((3, 6), int)
    votes[0, 1], votes[1, 1:3], votes[2, :4] = 3, 1, 4

    def change(labels: pd.DataFrame) -> pd.DataFrame:
        labels[list(VOTE_COLUMNS)] = votes[np.arange(len(labels)) % 3]
        labels["expert_consensus"] = np.array(["LPD", "LPD", "Seizure"])[np.arange(len(labels)) % 3]
        return labels[:6]

    change_labels(folder, change)
    report = check_folder(folder, signals=False)
    assert report.ok
    low, middle, high = (report.tiers[name] for name in ("1-3", "4-9", ">=10"))
    assert (low.label_rows, low.unanimous) == (4, 0.5)
    np.testing.assert_allclose(low.entropy, np.log(2) / 2)  # type: ignore[arg-type]
    assert (middle.label_rows, middle.rows, middle.entropy, middle.unanimous) == (0, 0, None, None)
    assert (high.label_rows, high.unanimous) == (2, 0.0)
    np.testing.assert_allclose(high.entropy, np.log(4))  # type: ignore[arg-type]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        check_folder(tmp_path / "nowhere")
    assert str(caught.value) == f"a competition folder must exist, in {tmp_path / 'nowhere'}"


def test_empty_folder(tmp_path: Path) -> None:
    assert only_fault(tmp_path) == Fault(
        "empty_folder",
        "a competition folder must hold train.csv, train_eegs/ and train_spectrograms/, "
        "this one is empty",
    )


def test_unusable_table_is_the_only_fault(folder: Path) -> None:
    (folder / EEG).unlink()
    change_labels(folder, lambda labels: labels.drop(columns="gpd_vote"))
    report = check_folder(folder)
    assert report.faults == (
        Fault("wrong_columns", "train.csv must hold its 15 columns, got no gpd_vote", "train.csv"),
    )
    assert report.counts == {}
    assert report.to_text().splitlines()[-1] == (
        "  train.csv: train.csv must hold its 15 columns, got no gpd_vote"
    )
    (folder / "train.csv").unlink()
    assert only_fault(folder) == Fault("missing_file", "train.csv must exist", "train.csv")


def test_wrong_type_in_the_table_names_the_line(folder: Path) -> None:
    set_label(folder, 3, lpd_vote="many")
    assert only_fault(folder) == Fault(
        "wrong_type",
        "train.csv's column lpd_vote must hold numbers, got 'many' in line 5",
        "train.csv",
    )


def test_missing_files_and_directories(folder: Path) -> None:
    (folder / EEG).unlink()
    (folder / SPECTROGRAM).unlink()
    (folder / "train_eegs" / "1.parquet").touch()
    report = check_folder(folder)
    assert report.faults == (
        Fault("missing_file", "an EEG file must exist", EEG, "500007"),
        Fault("missing_file", "a spectrogram file must exist", SPECTROGRAM, "41000"),
    )
    assert report.counts["missing_eeg_files"] == 1
    assert report.counts["missing_spectrogram_files"] == 1
    assert report.counts["unlisted_eeg_files"] == 1
    for file in (folder / "train_spectrograms").iterdir():
        file.unlink()
    (folder / "train_spectrograms").rmdir()
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


def test_damaged_values_are_found_by_reading_them(folder: Path) -> None:
    whole = (folder / SPECTROGRAM).read_bytes()
    (folder / SPECTROGRAM).write_bytes(whole[:50] + b"\xff" * 100_000 + whole[100_050:])
    assert check_folder(folder, signals=False).ok
    assert only_fault(folder, signals=True).kind == "unreadable_file"


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
            "the columns of a spectrogram file must be floating-point numbers, "
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


def test_odd_largest_offset_needs_the_rows_of_its_window(
    folder: Path, rng: np.random.Generator
) -> None:
    labels = pd.read_csv(folder / "train.csv")
    first = int(labels.index[labels["spectrogram_id"] == 41_000].max())
    largest = float(labels["spectrogram_label_offset_seconds"][first])
    set_label(folder, first, spectrogram_label_offset_seconds=largest + 1)
    assert check_folder(folder).ok
    set_label(folder, first, spectrogram_label_offset_seconds=largest + 2)
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


def test_zero_and_negative_votes(folder: Path) -> None:
    none = set_label(folder, 1, **dict.fromkeys(VOTE_COLUMNS, 0))
    below = set_label(folder, 2, **{**dict.fromkeys(VOTE_COLUMNS, 2), "gpd_vote": -1})
    set_label(folder, 2, expert_consensus="Seizure")
    report = check_folder(folder)
    assert report.faults == (
        Fault(
            "negative_votes", "votes must not be negative, got -1 in gpd_vote", "train.csv", below
        ),
        Fault("zero_votes", "a label row must have votes, got 0 in all", "train.csv", none),
    )
    assert sum(tier.label_rows for tier in report.tiers.values()) == report.counts["label_rows"] - 2


def test_unknown_class(folder: Path) -> None:
    key = set_label(folder, 4, expert_consensus="seizure")
    assert only_fault(folder) == Fault(
        "unknown_class",
        "expert_consensus must be one of Seizure, LPD, GPD, LRDA, GRDA, Other, got 'seizure'",
        "train.csv",
        key,
    )
    set_label(folder, 4, expert_consensus=None)
    assert only_fault(folder).message.endswith("got ''")


def test_consensus_without_the_most_votes(folder: Path) -> None:
    votes = dict(zip(VOTE_COLUMNS, (0, 2, 5, 5, 0, 0), strict=True))
    key = set_label(folder, 0, **votes, expert_consensus="LPD")
    assert only_fault(folder) == Fault(
        "wrong_consensus",
        "expert_consensus must have the most votes, got LPD with 2 where GPD has 5",
        "train.csv",
        key,
    )
    # Any of the largest is the consensus of experts.
    set_label(folder, 0, expert_consensus="LRDA")
    assert check_folder(folder).ok


def test_duplicate_keys(folder: Path) -> None:
    change_labels(folder, lambda labels: pd.concat([labels, labels[:1], labels[:1]]))
    labels = pd.read_csv(folder / "train.csv")
    assert check_folder(folder).faults == (
        Fault(
            "duplicate_key",
            "(eeg_id, eeg_sub_id) must be of one row, got 3 rows",
            "train.csv",
            f"{labels['eeg_id'][0]}-{labels['eeg_sub_id'][0]}",
        ),
        Fault("duplicate_key", "label_id must be of one row, got 3 rows", "train.csv", "9000000"),
    )


def test_one_eeg_one_spectrogram_one_patient(folder: Path) -> None:
    labels = pd.read_csv(folder / "train.csv")
    line = int(labels.index[labels.duplicated("eeg_id")][0])
    assert labels["eeg_id"][line] == 500_000
    set_label(folder, line, spectrogram_id=40_002, spectrogram_label_offset_seconds=0)
    set_label(folder, line, patient_id=999)
    assert check_folder(folder).faults == (
        Fault(
            "several_spectrograms",
            "an EEG must have one spectrogram, got 40002, 41000",
            "train.csv",
            "500000",
        ),
        Fault(
            "several_patients", "an EEG must have one patient, got 999, 1000", "train.csv", "500000"
        ),
        Fault(
            "several_patients",
            "a spectrogram must have one patient, got 999, 1003",
            "train.csv",
            "40002",
        ),
    )


def test_bad_offsets(folder: Path) -> None:
    empty = set_label(folder, 0, eeg_label_offset_seconds=None)
    infinite = set_label(folder, 1, spectrogram_label_offset_seconds=float("inf"))
    before = set_label(folder, 2, eeg_label_offset_seconds=-2)
    assert check_folder(folder).faults == (
        Fault(
            "bad_offset",
            "eeg_label_offset_seconds must be a number of seconds from 0, got nan",
            "train.csv",
            empty,
        ),
        Fault(
            "bad_offset",
            "eeg_label_offset_seconds must be a number of seconds from 0, got -2",
            "train.csv",
            before,
        ),
        Fault(
            "bad_offset",
            "spectrogram_label_offset_seconds must be a number of seconds from 0, got inf",
            "train.csv",
            infinite,
        ),
    )


def test_require_sound_carries_all_faults(folder: Path) -> None:
    (folder / EEG).unlink()
    key = set_label(folder, 4, expert_consensus="PLED")
    with pytest.raises(FaultyDataError) as caught:
        require_sound(folder)
    assert [fault.id for fault in caught.value.faults] == [key, "500007"]
    assert str(caught.value) == (
        f"a competition folder must be free of faults, 2 found: train.csv [{key}]: "
        "expert_consensus must be one of Seizure, LPD, GPD, LRDA, GRDA, Other, got 'PLED'; "
        f"{EEG} [500007]: an EEG file must exist, in {folder}. "
        "See them all with: hms-ray check DIR"
    )


def test_text_of_a_sound_folder(folder: Path) -> None:
    report = FolderReport("data", **_parts(check_folder(folder)))
    lines = report.to_text().splitlines()
    assert lines[0] == "Competition folder data"
    assert lines[2:6] == [
        f"  label rows                          {report.counts['label_rows']:>9}",
        "  EEGs                                        4",
        "  spectrograms                                3",
        "  patients                                    2",
    ]
    assert "  files missing                            none" in lines
    assert lines[-1] == "No faults: the folder is sound."
    assert max(map(len, lines)) <= 80


def _parts(report: FolderReport) -> dict[str, object]:
    return {name: getattr(report, name) for name in ("counts", "units", "classes", "tiers")}


def test_text_groups_faults_and_says_how_many_more() -> None:
    faults = tuple(
        Fault("missing_file", "an EEG file must exist", f"train_eegs/{k}.parquet", str(k))
        for k in range(FAULTS_SHOWN + 2)
    )
    other = Fault("zero_votes", "a label row must have votes, got 0 in all", "train.csv", "7-1")
    report = FolderReport("data", faults=(*faults, other))
    assert not report.ok
    lines = report.to_text().splitlines()
    assert lines[:7] == [
        "Competition folder data",
        "",
        "53 faults of 2 kinds:",
        "  missing_file                     52  0, 1, 2, ...",
        "  zero_votes                        1  7-1",
        "",
        "missing_file:",
    ]
    assert lines[7] == "  train_eegs/0.parquet [0]: an EEG file must exist"
    assert lines[-4:] == [
        "  and 2 more; see them all with --json",
        "",
        "zero_votes:",
        "  train.csv [7-1]: a label row must have votes, got 0 in all",
    ]
    assert len(json.loads(report.to_json())["faults"]) == 53


def test_long_faults_are_wrapped(folder: Path) -> None:
    set_label(folder, 4, expert_consensus="PLED")
    lines = check_folder(folder).to_text().splitlines()
    assert lines[-2].startswith("  train.csv [500000-4]: expert_consensus must be one of ")
    assert lines[-1].startswith("      ")
    assert max(map(len, lines[1:])) <= 80


def test_json(folder: Path) -> None:
    (folder / EEG).unlink()
    data = json.loads(check_folder(folder).to_json())
    assert data["ok"] is False
    assert data["folder"] == str(folder)
    assert data["counts"]["eegs"] == 4
    assert set(data["tiers"]["1-3"]) == {"label_rows", "rows", "entropy", "unanimous"}
    assert data["faults"] == [
        {"kind": "missing_file", "message": "an EEG file must exist", "file": EEG, "id": "500007"}
    ]
