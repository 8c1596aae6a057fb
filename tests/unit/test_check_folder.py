"""A folder checked as a whole: its counts, its table and what training requires."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.check import check_folder, require_sound
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS
from hms_ray.errors import DataError, FaultyDataError
from tests.damage import assert_faults, change_labels, set_label
from tests.refused import refusal

EEG = "train_eegs/500007.parquet"


@pytest.mark.parametrize("signals", [True, False])
def test_sound_folder(folder: Path, signals: bool) -> None:
    report = check_folder(folder, signals=signals)
    labels = pd.read_csv(folder / "train.csv")
    assert report.ok
    assert (report.folder, report.table) == (str(folder), None)
    assert report.counts == {
        "label_rows": len(labels),
        "eegs": 4,
        "spectrograms": 3,
        "patients": 2,
        "unknown_label_ids": 0,
        "missing_eeg_files": 0,
        "unlisted_eeg_files": 0,
        "missing_spectrogram_files": 0,
        "unlisted_spectrogram_files": 0,
        "test_recordings": 1,
        "missing_test_eeg_files": 0,
        "unlisted_test_eeg_files": 0,
        "missing_test_spectrogram_files": 0,
        "unlisted_test_spectrogram_files": 0,
    }
    assert report.notes == ()
    assert report.units == {
        "eeg_votes": len(labels.drop_duplicates(["eeg_id", *VOTE_COLUMNS])),
        "eeg": 4,
        "label": len(labels),
    }
    assert report.classes == {name: (labels["expert_consensus"] == name).sum() for name in CLASSES}
    trained = require_sound(folder).counts
    assert trained == {name: n for name, n in report.counts.items() if "test" not in name}


def test_vote_tiers(folder: Path) -> None:
    votes = np.zeros((3, 6), int)
    votes[0, 1], votes[1, 1:3], votes[2, :4] = 3, 1, 4

    def change(labels: pd.DataFrame) -> pd.DataFrame:
        labels[list(VOTE_COLUMNS)] = votes[np.arange(len(labels)) % 3]
        labels["expert_consensus"] = np.array(["LPD", "LPD", "Seizure"])[np.arange(len(labels)) % 3]
        return labels[:6]

    change_labels(folder / "train.csv", change)
    report = check_folder(folder, signals=False)
    assert report.ok
    low, middle, high = (report.tiers[name] for name in ("1-3", "4-9", ">=10"))
    assert (low.label_rows, low.unanimous) == (4, 0.5)
    np.testing.assert_allclose(low.entropy, np.log(2) / 2)  # type: ignore[arg-type]
    assert (middle.label_rows, middle.rows, middle.entropy, middle.unanimous) == (0, 0, None, None)
    assert (high.label_rows, high.unanimous) == (2, 0.0)
    np.testing.assert_allclose(high.entropy, np.log(4))  # type: ignore[arg-type]


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, got in (("nowhere", ""), ("file", "a file")):
        rule, fix = "a competition folder must exist", "hms-ray simulate --out DIR"
        with refusal(DataError, rule, got=got, where=name, fix=fix):
            check_folder(tmp_path / name)


def test_empty_folder(tmp_path: Path) -> None:
    assert_faults(check_folder(tmp_path).faults, ("empty_folder", None, "train_eegs/"))


def test_unusable_table_is_the_only_fault(folder: Path) -> None:
    (folder / EEG).unlink()
    (folder / "train.csv").unlink()
    report = check_folder(folder)
    assert_faults(report.faults, ("missing_file", "train.csv", "train.csv must exist"))
    assert report.counts == {}


def test_another_label_table(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.parquet"
    labels = pd.read_csv(folder / "train.csv")
    labels[labels["eeg_id"] != 500_007].to_parquet(table)
    (folder / "train.csv").unlink()
    (folder / EEG).unlink()
    report = check_folder(folder, labels=table)
    assert report.ok
    assert (report.folder, report.table) == (str(folder), str(table))
    assert report.counts["eegs"] == 3


def test_bad_cells_do_not_hide_faults_of_files(folder: Path) -> None:
    (folder / EEG).unlink()
    set_label(folder / "train.csv", 0, seizure_vote="x")
    set_label(folder / "train.csv", 1, patient_id=None)
    kinds = [fault.kind for fault in check_folder(folder, signals=False).faults]
    assert kinds == ["bad_id", "bad_votes", "missing_file"]


def test_require_sound_carries_all_faults(folder: Path) -> None:
    (folder / EEG).unlink()
    key = set_label(folder / "train.csv", 4, expert_consensus="PLED")
    with pytest.raises(FaultyDataError) as caught:
        require_sound(folder)
    assert [fault.id for fault in caught.value.faults] == [key, "500007"]
    for part in ("2 found", f"train.csv [{key}]", "got 'PLED'", f"{EEG} [500007]", str(folder)):
        assert part in str(caught.value)
