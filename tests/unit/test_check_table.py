"""Every fault of a label table is found in one pass, with its id and value."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.check import check_table
from hms_ray.competition.label_table import read_label_table
from hms_ray.competition.read import read_labels
from hms_ray.competition.schema import VOTE_COLUMNS
from tests.competition_folder import make_labels
from tests.damage import assert_faults, change_labels, set_label

LAST_CLASS_TIES = dict(zip(VOTE_COLUMNS, (0, 2, 5, 5, 0, 0), strict=True))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two patients; EEGs 500000-500021, spectrograms 41000 (of two EEGs), 40002 and 40003."""
    path = tmp_path / "train.csv"
    make_labels(np.random.default_rng(0), n_patients=2).to_csv(path, index=False)
    return path


def test_sound_table(file: Path) -> None:
    report = check_table(file)
    assert report.ok
    assert (report.folder, report.table) == (None, str(file))
    labels = pd.read_csv(file)
    assert report.counts == {
        "label_rows": len(labels),
        "eegs": 4,
        "spectrograms": 3,
        "patients": 2,
        "unknown_label_ids": 0,
    }


def test_check_reads_the_table_as_training_does(file: Path) -> None:
    change_labels(file, lambda labels: labels.assign(label_id=labels["label_id"].iloc[3:]))
    table = read_label_table(file)
    assert not table.bad
    pd.testing.assert_frame_equal(table.labels, read_labels(file.parent))


def test_parquet_has_the_same_faults(file: Path) -> None:
    set_label(file, 2, expert_consensus="PLED")
    table = file.with_name("train.parquet")
    labels = pd.read_csv(file).astype({"label_id": "Int64"})
    labels.set_index(["eeg_id", "eeg_sub_id"]).to_parquet(table)
    text, parquet = check_table(file), check_table(table)
    assert parquet.counts == text.counts
    (of_text,), (of_parquet,) = text.faults, parquet.faults
    assert (of_parquet.kind, of_parquet.message) == (of_text.kind, of_text.message)
    assert of_parquet.file == "train.parquet"


def test_damaged_parquet(file: Path) -> None:
    table = shutil.copy(file, file.with_name("train.parquet"))
    (found,) = check_table(table).faults
    assert (found.kind, found.file) == ("unreadable_file", "train.parquet")
    assert "must be a complete parquet file" in found.message


def test_unusable_table_is_the_only_fault(file: Path) -> None:
    change_labels(file, lambda labels: labels.drop(columns="gpd_vote"))
    report = check_table(file)
    assert_faults(report.faults, ("wrong_columns", "train.csv", "15 columns, got no gpd_vote"))
    assert report.counts == {}
    assert report.to_text().splitlines()[-2].startswith("  train.csv: ")
    file.unlink()
    assert_faults(check_table(file).faults, ("missing_file", "train.csv", "must exist"))


def test_bad_votes(file: Path) -> None:
    """A bad cell hides neither other bad cells nor other faults of the table."""
    text = set_label(file, 1, lpd_vote="many")
    empty = set_label(file, 2, other_vote=None)
    half = set_label(file, 3, seizure_vote=0.5, gpd_vote=0.5)
    endless = set_label(file, 4, grda_vote=np.inf)
    zero = set_label(file, 5, **dict.fromkeys(VOTE_COLUMNS, 0))
    report = check_table(file)
    assert_faults(
        report.faults,
        ("bad_votes", text, "got 'many' in lpd_vote"),
        ("bad_votes", empty, "got an empty value in other_vote"),
        ("bad_votes", half, "got 0.5 in seizure_vote"),
        ("bad_votes", endless, "got inf in grda_vote"),
        ("zero_votes", zero, "total of 0"),
    )
    rows = report.counts["label_rows"]
    assert report.units["label"] == sum(t.label_rows for t in report.tiers.values()) == rows - 5


def test_zero_and_negative_votes(file: Path) -> None:
    none = set_label(file, 1, **dict.fromkeys(VOTE_COLUMNS, 0))
    below = set_label(file, 2, **{**dict.fromkeys(VOTE_COLUMNS, 2), "gpd_vote": -1})
    set_label(file, 2, expert_consensus="Seizure")
    report = check_table(file)
    assert_faults(
        report.faults,
        ("negative_votes", below, "got -1 in gpd_vote"),
        ("zero_votes", none, "total of 0"),
    )
    assert sum(tier.label_rows for tier in report.tiers.values()) == report.counts["label_rows"] - 2


def test_bad_ids(file: Path) -> None:
    labels = pd.read_csv(file)
    set_label(file, 0, eeg_id="12x")
    set_label(file, 1, patient_id=None)
    set_label(file, 2, spectrogram_id=-3)
    key = set_label(file, 3, label_id="L4")
    set_label(file, 4, eeg_sub_id=0.25)
    report = check_table(file)
    assert_faults(
        report.faults,
        ("bad_id", None, "got '12x' in line 2"),
        ("bad_id", None, "got 0.25 in line 6"),
        ("bad_id", None, "got -3 in line 4"),
        ("bad_id", key, "or empty, got 'L4' in line 5"),
        ("bad_id", None, "got an empty value in line 3"),
    )
    names = [fault.message.split()[0] for fault in report.faults]
    assert names == ["eeg_id", "eeg_sub_id", "spectrogram_id", "label_id", "patient_id"]
    assert report.counts["label_rows"] == len(labels)
    assert report.units["label"] == len(labels) - 4


def test_empty_label_ids_are_counted(file: Path) -> None:
    change_labels(
        file, lambda labels: labels.assign(label_id=labels["label_id"].where(labels.index > 2))
    )
    report = check_table(file)
    assert report.ok
    assert report.counts["unknown_label_ids"] == 3
    assert "  label rows without a label_id               3" in report.to_text().splitlines()
    assert read_labels(file.parent)["label_id"].tolist()[:4] == [-1, -1, -1, 9_000_003]


def test_table_without_a_usable_row(file: Path) -> None:
    change_labels(file, lambda labels: labels.assign(eeg_id="x"))
    report = check_table(file)
    assert len(report.faults) == report.counts["label_rows"]
    assert {found.kind for found in report.faults} == {"bad_id"}
    assert report.counts["eegs"] == 0
    assert report.to_text()


def test_unknown_class(file: Path) -> None:
    key = set_label(file, 4, expert_consensus="seizure")
    assert_faults(check_table(file).faults, ("unknown_class", key, "Other, got 'seizure'"))
    set_label(file, 4, expert_consensus=None)
    assert_faults(check_table(file).faults, ("unknown_class", key, "Other, got ''"))


@pytest.mark.parametrize("value", [None, 7])
def test_no_row_has_a_class(file: Path, value: object) -> None:
    change_labels(file, lambda labels: labels.assign(expert_consensus=value))
    report = check_table(file)
    assert len(report.faults) == report.counts["label_rows"]
    assert report.faults[0].message.endswith("got ''" if value is None else "got '7'")


def test_consensus_without_the_most_votes(file: Path) -> None:
    key = set_label(file, 0, **LAST_CLASS_TIES, expert_consensus="LPD")
    part = "got LPD with 2, while GPD has 5"
    assert_faults(check_table(file).faults, ("wrong_consensus", key, part))


def test_consensus_of_a_tie_is_the_first(file: Path) -> None:
    set_label(file, 0, **LAST_CLASS_TIES, expert_consensus="GPD")
    assert check_table(file).ok
    key = set_label(file, 0, expert_consensus="LRDA")
    part = "first class with the most votes, got LRDA, while GPD has 5 too"
    assert_faults(check_table(file).faults, ("wrong_consensus", key, part))


def test_duplicate_keys(file: Path) -> None:
    change_labels(file, lambda labels: pd.concat([labels, labels[:1], labels[:1]]))
    assert_faults(
        check_table(file).faults,
        ("duplicate_key", "500000-0", "(eeg_id, eeg_sub_id) must be unique, got 3 rows"),
        ("duplicate_key", "9000000", "label_id must be unique, got 3 rows"),
    )


def test_one_window_labelled_twice(file: Path) -> None:
    labels = pd.read_csv(file)
    again = labels[1:2].assign(eeg_sub_id=99, label_id=7)
    change_labels(file, lambda labels: pd.concat([labels, again]))
    seconds = labels["eeg_label_offset_seconds"][1]
    part = f"got 2 rows at {seconds:g} s"
    assert_faults(check_table(file).faults, ("duplicate_offset", "500000", part))


def test_one_eeg_one_spectrogram_one_patient(file: Path) -> None:
    labels = pd.read_csv(file)
    line = int(labels.index[labels.duplicated("eeg_id")][0])
    set_label(file, line, spectrogram_id=40_002, spectrogram_label_offset_seconds=0)
    set_label(file, line, patient_id=999)
    assert_faults(
        check_table(file).faults,
        ("several_spectrograms", "500000", "an EEG must have one spectrogram, got 40002, 41000"),
        ("several_patients", "500000", "an EEG must have one patient, got 999, 1000"),
        ("several_patients", "40002", "a spectrogram must have one patient, got 999, 1003"),
    )


def test_a_spectrogram_of_another_patient_than_its_eegs(file: Path) -> None:
    """Each EEG has one patient and one spectrogram, but the spectrogram has two patients."""
    change_labels(
        file,
        lambda labels: labels.assign(
            patient_id=labels["patient_id"].where(labels["eeg_id"] != 500_007, 77)
        ),
    )
    assert_faults(check_table(file).faults, ("several_patients", "41000", "got 77, 1000"))


def test_long_list_of_patients_is_shortened(file: Path) -> None:
    change_labels(file, lambda labels: labels.assign(patient_id=range(len(labels))))
    (found,) = [fault for fault in check_table(file).faults if fault.id == "41000"]
    rows = pd.read_csv(file)["spectrogram_id"].eq(41_000).sum()
    assert found.message.endswith(f"got 0, 1, 2, 3, 4 and {rows - 5} more")


def test_bad_offsets(file: Path) -> None:
    empty = set_label(file, 0, eeg_label_offset_seconds=None)
    infinite = set_label(file, 1, spectrogram_label_offset_seconds=float("inf"))
    before = set_label(file, 2, eeg_label_offset_seconds=-2)
    text = set_label(file, 3, spectrogram_label_offset_seconds="soon")
    found = check_table(file).faults
    assert_faults(
        found,
        ("bad_offset", empty, "got an empty value"),
        ("bad_offset", before, "got -2"),
        ("bad_offset", infinite, "got inf"),
        ("bad_offset", text, "got 'soon'"),
    )
    names = [fault.message.partition("_")[0] for fault in found]
    assert names == ["eeg", "eeg", "spectrogram", "spectrogram"]


def test_inconsistent_offsets_of_an_eeg(file: Path) -> None:
    labels = pd.read_csv(file)
    line = int(labels.index[labels["eeg_id"] == 500_007][1])
    change_labels(
        file,
        lambda labels: labels.assign(
            spectrogram_label_offset_seconds=labels["spectrogram_label_offset_seconds"]
            + 4.5 * (labels.index == line)
        ),
    )
    part = "got 100 s and 104.5 s"
    assert_faults(check_table(file).faults, ("offset_mismatch", "500007", part))
