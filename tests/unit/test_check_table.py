"""Every fault of a label table is found, in one pass, with id and exact text."""

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
from hms_ray.errors import Fault
from tests.competition_folder import make_labels
from tests.damage import change_labels, set_label

LAST_CLASS_TIES = dict(zip(VOTE_COLUMNS, (0, 2, 5, 5, 0, 0), strict=True))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two patients; EEGs 500000-500021, spectrograms 41000 (of two EEGs), 40002 and 40003."""
    path = tmp_path / "train.csv"
    make_labels(np.random.default_rng(0), n_patients=2).to_csv(path, index=False)
    return path


def fault(kind: str, message: str, key: str | None) -> Fault:
    return Fault(kind, message, "train.csv", key)


def faults(file: Path) -> tuple[Fault, ...]:
    return check_table(file).faults


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


def test_the_check_judges_what_training_reads(file: Path) -> None:
    change_labels(file, lambda labels: labels.assign(label_id=labels["label_id"].iloc[3:]))
    table = read_label_table(file)
    assert not table.bad
    pd.testing.assert_frame_equal(table.labels, read_labels(file.parent))


def test_parquet_says_the_same(file: Path) -> None:
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
    assert found.message.startswith("train.parquet must be whole parquet, got ")


def test_unusable_table_is_the_only_fault(file: Path) -> None:
    change_labels(file, lambda labels: labels.drop(columns="gpd_vote"))
    message = "train.csv must hold its 15 columns, got no gpd_vote"
    report = check_table(file)
    assert report.faults == (fault("wrong_columns", message, None),)
    assert report.counts == {}
    assert report.to_text().splitlines()[-1] == f"  train.csv: {message}"
    file.unlink()
    assert faults(file) == (fault("missing_file", "train.csv must exist", None),)


def test_bad_votes(file: Path) -> None:
    """One bad cell hides neither the others nor the rest of the table."""
    text = set_label(file, 1, lpd_vote="many")
    empty = set_label(file, 2, other_vote=None)
    half = set_label(file, 3, seizure_vote=0.5, gpd_vote=0.5)
    endless = set_label(file, 4, grda_vote=np.inf)
    zero = set_label(file, 5, **dict.fromkeys(VOTE_COLUMNS, 0))
    rule = "votes must be whole numbers"
    report = check_table(file)
    assert report.faults == (
        fault("bad_votes", f"{rule}, got 'many' in lpd_vote", text),
        fault("bad_votes", f"{rule}, got an empty value in other_vote", empty),
        fault("bad_votes", f"{rule}, got 0.5 in seizure_vote", half),
        fault("bad_votes", f"{rule}, got inf in grda_vote", endless),
        fault("zero_votes", "a label row must have votes, got 0 in all", zero),
    )
    rows = report.counts["label_rows"]
    assert report.units["label"] == sum(t.label_rows for t in report.tiers.values()) == rows - 5


def test_zero_and_negative_votes(file: Path) -> None:
    none = set_label(file, 1, **dict.fromkeys(VOTE_COLUMNS, 0))
    below = set_label(file, 2, **{**dict.fromkeys(VOTE_COLUMNS, 2), "gpd_vote": -1})
    set_label(file, 2, expert_consensus="Seizure")
    report = check_table(file)
    assert report.faults == (
        fault("negative_votes", "votes must not be negative, got -1 in gpd_vote", below),
        fault("zero_votes", "a label row must have votes, got 0 in all", none),
    )
    assert sum(tier.label_rows for tier in report.tiers.values()) == report.counts["label_rows"] - 2


def test_bad_ids(file: Path) -> None:
    labels = pd.read_csv(file)
    set_label(file, 0, eeg_id="12x")
    set_label(file, 1, patient_id=None)
    set_label(file, 2, spectrogram_id=-3)
    key = set_label(file, 3, label_id="L4")
    set_label(file, 4, eeg_sub_id=0.25)
    rule = "must be a whole number from 0"
    report = check_table(file)
    assert report.faults == (
        fault("bad_id", f"eeg_id {rule}, got '12x' in line 2", None),
        fault("bad_id", f"eeg_sub_id {rule}, got 0.25 in line 6", None),
        fault("bad_id", f"spectrogram_id {rule}, got -3 in line 4", None),
        fault("bad_id", f"label_id {rule} or empty, got 'L4' in line 5", key),
        fault("bad_id", f"patient_id {rule}, got an empty value in line 3", None),
    )
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


def test_a_table_without_one_usable_row(file: Path) -> None:
    change_labels(file, lambda labels: labels.assign(eeg_id="x"))
    report = check_table(file)
    assert len(report.faults) == report.counts["label_rows"]
    assert {found.kind for found in report.faults} == {"bad_id"}
    assert report.counts["eegs"] == 0
    assert max(map(len, report.to_text().splitlines()[1:])) <= 80


def test_unknown_class(file: Path) -> None:
    key = set_label(file, 4, expert_consensus="seizure")
    rule = "expert_consensus must be one of Seizure, LPD, GPD, LRDA, GRDA, Other"
    assert faults(file) == (fault("unknown_class", f"{rule}, got 'seizure'", key),)
    set_label(file, 4, expert_consensus=None)
    assert faults(file) == (fault("unknown_class", f"{rule}, got ''", key),)


@pytest.mark.parametrize("value", [None, 7])
def test_no_class_at_all(file: Path, value: object) -> None:
    change_labels(file, lambda labels: labels.assign(expert_consensus=value))
    report = check_table(file)
    assert len(report.faults) == report.counts["label_rows"]
    assert report.faults[0].message.endswith("got ''" if value is None else "got '7'")


def test_consensus_without_the_most_votes(file: Path) -> None:
    key = set_label(file, 0, **LAST_CLASS_TIES, expert_consensus="LPD")
    message = "expert_consensus must have the most votes, got LPD with 2 where GPD has 5"
    assert faults(file) == (fault("wrong_consensus", message, key),)


def test_consensus_of_a_tie_is_the_first(file: Path) -> None:
    set_label(file, 0, **LAST_CLASS_TIES, expert_consensus="GPD")
    assert check_table(file).ok
    key = set_label(file, 0, expert_consensus="LRDA")
    message = (
        "expert_consensus must be the first class of those with the most votes, "
        "got LRDA where GPD has 5 too"
    )
    assert faults(file) == (fault("wrong_consensus", message, key),)


def test_duplicate_keys(file: Path) -> None:
    change_labels(file, lambda labels: pd.concat([labels, labels[:1], labels[:1]]))
    assert faults(file) == (
        fault("duplicate_key", "(eeg_id, eeg_sub_id) must be of one row, got 3 rows", "500000-0"),
        fault("duplicate_key", "label_id must be of one row, got 3 rows", "9000000"),
    )


def test_one_window_labelled_twice(file: Path) -> None:
    labels = pd.read_csv(file)
    again = labels[1:2].assign(eeg_sub_id=99, label_id=7)
    change_labels(file, lambda labels: pd.concat([labels, again]))
    seconds = labels["eeg_label_offset_seconds"][1]
    message = (
        f"label rows of an EEG must differ in eeg_label_offset_seconds, got 2 rows at {seconds:g} s"
    )
    assert faults(file) == (fault("duplicate_offset", message, "500000"),)


def test_one_eeg_one_spectrogram_one_patient(file: Path) -> None:
    labels = pd.read_csv(file)
    line = int(labels.index[labels.duplicated("eeg_id")][0])
    set_label(file, line, spectrogram_id=40_002, spectrogram_label_offset_seconds=0)
    set_label(file, line, patient_id=999)
    assert faults(file) == (
        fault(
            "several_spectrograms", "an EEG must have one spectrogram, got 40002, 41000", "500000"
        ),
        fault("several_patients", "an EEG must have one patient, got 999, 1000", "500000"),
        fault("several_patients", "a spectrogram must have one patient, got 999, 1003", "40002"),
    )


def test_a_spectrogram_of_another_patient_than_its_eegs(file: Path) -> None:
    """Each EEG has one patient and one spectrogram; only together are they wrong."""
    change_labels(
        file,
        lambda labels: labels.assign(
            patient_id=labels["patient_id"].where(labels["eeg_id"] != 500_007, 77)
        ),
    )
    message = "a spectrogram must have one patient, got 77, 1000"
    assert faults(file) == (fault("several_patients", message, "41000"),)


def test_many_patients_are_not_all_listed(file: Path) -> None:
    change_labels(file, lambda labels: labels.assign(patient_id=range(len(labels))))
    (found,) = [fault for fault in faults(file) if fault.id == "41000"]
    rows = pd.read_csv(file)["spectrogram_id"].eq(41_000).sum()
    assert found.message.endswith(f"got 0, 1, 2, 3, 4 and {rows - 5} more")


def test_bad_offsets(file: Path) -> None:
    empty = set_label(file, 0, eeg_label_offset_seconds=None)
    infinite = set_label(file, 1, spectrogram_label_offset_seconds=float("inf"))
    before = set_label(file, 2, eeg_label_offset_seconds=-2)
    text = set_label(file, 3, spectrogram_label_offset_seconds="soon")
    eeg, spectrogram = (
        f"{name}_label_offset_seconds must be a number of seconds from 0"
        for name in ("eeg", "spectrogram")
    )
    assert faults(file) == (
        fault("bad_offset", f"{eeg}, got an empty value", empty),
        fault("bad_offset", f"{eeg}, got -2", before),
        fault("bad_offset", f"{spectrogram}, got inf", infinite),
        fault("bad_offset", f"{spectrogram}, got 'soon'", text),
    )


def test_offsets_of_an_eeg_that_do_not_go_together(file: Path) -> None:
    labels = pd.read_csv(file)
    line = int(labels.index[labels["eeg_id"] == 500_007][1])
    change_labels(
        file,
        lambda labels: labels.assign(
            spectrogram_label_offset_seconds=labels["spectrogram_label_offset_seconds"]
            + 4.5 * (labels.index == line)
        ),
    )
    message = (
        "spectrogram_label_offset_seconds minus eeg_label_offset_seconds must be the same "
        "in all rows of an EEG, got 100 s and 104.5 s"
    )
    assert faults(file) == (fault("offset_mismatch", message, "500007"),)
