"""The result of a check, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hms_ray.competition.check import check_table
from hms_ray.competition.folder_report import FAULTS_SHOWN, FolderReport
from hms_ray.errors import Fault
from tests.competition_folder import make_labels
from tests.damage import set_label

ZERO_VOTES = "a label row must have votes, got a total of 0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    make_labels(np.random.default_rng(0), n_patients=2).to_csv(path, index=False)
    return path


def as_folder(file: Path, **counts: int) -> FolderReport:
    """A report on the folder ``data`` with the given counts of files."""
    report = check_table(file)
    return FolderReport(
        "data", None, report.counts | counts, report.units, report.classes, report.tiers
    )


def test_text_of_a_sound_folder(file: Path) -> None:
    report = as_folder(file, missing_eeg_files=0, missing_spectrogram_files=0)
    lines = [line.split() for line in report.to_text().splitlines()]
    assert lines[0] == ["Competition", "folder", "data"]
    assert ["label", "rows", f"{report.counts['label_rows']:,}"] in lines
    assert ["files", "missing", "none"] in lines
    assert lines[-1] == ["No", "faults", "in", "the", "folder."]


def test_text_counts_missing_files(file: Path) -> None:
    text = as_folder(file, missing_eeg_files=2, missing_spectrogram_files=0).to_text()
    assert ["EEG", "files", "missing", "2"] in [line.split() for line in text.splitlines()]
    assert "none" not in text
    assert "spectrogram files" not in text


def test_text_and_json_of_a_sound_table(file: Path) -> None:
    report = check_table(file)
    lines = report.to_text().splitlines()
    assert lines[0] == f"Label table {file}"
    assert lines[-1] == "No faults in the table."
    assert not [line for line in lines if "files" in line]
    data = json.loads(report.to_json())
    assert (data["ok"], data["faults"], data["kinds"]) == (True, [], {})


def test_text_names_the_folder_and_the_other_table() -> None:
    assert FolderReport("data", "labels.csv").to_text().splitlines()[:2] == [
        "Competition folder data",
        "Label table labels.csv",
    ]


def test_text_groups_faults_by_kind_and_counts_the_rest() -> None:
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
        "1,008 faults of 2 kinds",
        "",
        "missing_file: 1,007 faults",
        *(f"  train_eegs/{k}.parquet [{k}]: an EEG file must exist" for k in range(FAULTS_SHOWN)),
        "  and 1,002 more; --json lists all of them",
        "",
        "zero_votes: 1 fault",
        f"  train.csv [7-1]: {ZERO_VOTES}",
    ]
    assert json.loads(report.to_json())["kinds"] == {
        "missing_file": {"count": 1_007, "first_ids": ["0", "1", "2"]},
        "zero_votes": {"count": 1, "first_ids": ["7-1"]},
    }


def test_text_of_faults_without_an_id() -> None:
    report = FolderReport("data", faults=(Fault("empty_folder", "it must hold something"),) * 2)
    assert "2 faults of 1 kind\n\nempty_folder: 2 faults\n" in report.to_text()


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
            "fix": None,
        }
    ]


def test_json_is_complete_however_many_faults() -> None:
    faults = tuple(Fault("zero_votes", ZERO_VOTES, "train.csv", str(k)) for k in range(10_000))
    text = FolderReport("data", faults=faults).to_json()
    data = json.loads(text)
    assert [fault["id"] for fault in data["faults"]] == [str(k) for k in range(10_000)]
    assert data["kinds"]["zero_votes"]["count"] == 10_000
    assert text.count("\n") < 10_050
