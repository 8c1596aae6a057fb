"""What a check found, as text of 80 columns and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hms_ray.competition.check import check_table
from hms_ray.competition.folder_report import FAULTS_SHOWN, FolderReport, KindReport
from hms_ray.errors import Fault
from tests.competition_folder import make_labels
from tests.damage import set_label

ZERO_VOTES = "a label row must have votes, got 0 in all"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    make_labels(np.random.default_rng(0), n_patients=2).to_csv(path, index=False)
    return path


def as_folder(file: Path, **counts: int) -> FolderReport:
    """A report of a folder ``data``, its files counted as told."""
    report = check_table(file)
    return FolderReport(
        "data", None, report.counts | counts, report.units, report.classes, report.tiers
    )


def test_text_of_a_sound_folder(file: Path) -> None:
    report = as_folder(file, missing_eeg_files=0, missing_spectrogram_files=0)
    lines = report.to_text().splitlines()
    assert lines[0] == "Competition folder data"
    assert lines[2:7] == [
        f"  label rows                          {report.counts['label_rows']:>9}",
        "  EEGs                                        4",
        "  spectrograms                                3",
        "  patients                                    2",
        "  files missing                            none",
    ]
    assert lines[-1] == "No faults: the folder is sound."
    assert max(map(len, lines)) <= 80


def test_text_counts_missing_files(file: Path) -> None:
    lines = as_folder(file, missing_eeg_files=2, missing_spectrogram_files=0).to_text().splitlines()
    assert "  EEG files missing                           2" in lines
    assert not [line for line in lines if "none" in line or "spectrogram files" in line]


def test_text_of_a_sound_table(file: Path) -> None:
    lines = check_table(file).to_text().splitlines()
    assert lines[0] == f"Label table {file}"
    assert lines[-1] == "No faults: the table is sound."
    assert not [line for line in lines if "files" in line]


def test_text_names_a_folder_and_its_other_table() -> None:
    assert FolderReport("data", "labels.csv").to_text().splitlines()[:2] == [
        "Competition folder data",
        "Label table labels.csv",
    ]


def test_text_groups_faults_and_says_how_many_more() -> None:
    faults = tuple(
        Fault("missing_file", "an EEG file must exist", f"train_eegs/{k}.parquet", str(k))
        for k in range(FAULTS_SHOWN + 1_002)
    )
    other = Fault("zero_votes", ZERO_VOTES, "train.csv", "7-1")
    report = FolderReport("data", faults=(*faults[:3], other, *faults[3:]))
    assert not report.ok
    assert report.to_text().splitlines() == [
        "Competition folder data",
        "",
        "1,008 faults of 2 kinds:",
        "  missing_file                  1,007  0, 1, 2, ...",
        "  zero_votes                        1  7-1",
        "",
        "missing_file:",
        *(f"  train_eegs/{k}.parquet [{k}]: an EEG file must exist" for k in range(FAULTS_SHOWN)),
        "  and 1,002 more; see them all with --json",
        "",
        "zero_votes:",
        f"  train.csv [7-1]: {ZERO_VOTES}",
    ]
    assert report.kinds() == {
        "missing_file": KindReport(1_007, ("0", "1", "2")),
        "zero_votes": KindReport(1, ("7-1",)),
    }


def test_text_of_faults_without_an_id() -> None:
    report = FolderReport("data", faults=(Fault("empty_folder", "it must hold something"),) * 2)
    assert report.to_text().splitlines()[2:4] == [
        "2 faults of 1 kind:",
        "  empty_folder                      2",
    ]


def test_long_faults_are_wrapped(file: Path) -> None:
    set_label(file, 4, expert_consensus="PLED")
    lines = check_table(file).to_text().splitlines()
    assert lines[-2].startswith("  train.csv [500000-4]: expert_consensus must be one of ")
    assert lines[-1].startswith("      ")
    assert max(map(len, lines[1:])) <= 80


def test_json_has_every_fault_and_their_kinds(file: Path) -> None:
    (key,) = {set_label(file, 3, lpd_vote='a "quoted" word') for _ in range(2)}
    data = json.loads(check_table(file).to_json())
    assert (data["ok"], data["folder"], data["table"]) == (False, None, str(file))
    assert data["counts"]["eegs"] == 4
    assert set(data["units"]) == {"eeg_votes", "eeg", "label"}
    assert len(data["classes"]) == 6
    assert set(data["tiers"]["1-3"]) == {"label_rows", "rows", "entropy", "unanimous"}
    assert data["kinds"] == {"bad_votes": {"count": 1, "first_ids": [key]}}
    assert data["faults"] == [
        {
            "kind": "bad_votes",
            "message": "votes must be whole numbers, got 'a \"quoted\" word' in lpd_vote",
            "file": "train.csv",
            "id": key,
        }
    ]


def test_json_is_complete_however_many_faults() -> None:
    faults = tuple(Fault("zero_votes", ZERO_VOTES, "train.csv", str(k)) for k in range(10_000))
    text = FolderReport("data", faults=faults).to_json()
    data = json.loads(text)
    assert [fault["id"] for fault in data["faults"]] == [str(k) for k in range(10_000)]
    assert data["kinds"]["zero_votes"]["count"] == 10_000
    assert text.count("\n") < 10_050


def test_json_of_a_sound_table(file: Path) -> None:
    data = json.loads(check_table(file).to_json())
    assert (data["ok"], data["faults"], data["kinds"]) == (True, [], {})
