"""Check, pack, rows and folds on the real sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.check import check_folder, check_table, require_sound
from hms_ray.competition.read import (
    read_eeg,
    read_labels,
    read_spectrogram,
    read_test_table,
    spectrogram_path,
)
from hms_ray.competition.rows import Unit, make_rows
from hms_ray.competition.schema import CLASSES, TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.dataset.folds import check_folds, folds_fingerprint, make_folds
from hms_ray.dataset.label_rows import label_rows_in, label_rows_of, with_label_rows
from hms_ray.pack.build import build_pack
from hms_ray.pack.eeg import make_values
from hms_ray.pack.sources import eeg_source
from hms_ray.pack.verify import verify_pack
from hms_ray.pack.windows import distinct_windows

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    return real_data / "competition"


@pytest.fixture(scope="module")
def labels(real_data: Path) -> pd.DataFrame:
    return pd.read_parquet(real_data / "train_labels.parquet")


@pytest.fixture(scope="module")
def rows(labels: pd.DataFrame) -> pd.DataFrame:
    return make_rows(labels)


def test_real_folder_has_no_faults(folder: Path) -> None:
    report = check_folder(folder, signals=True)
    assert report.to_text().endswith("No faults in the folder.")
    assert report.counts["label_rows"] == 23
    assert (report.counts["eegs"], report.counts["spectrograms"]) == (3, 3)
    assert (report.counts["test_recordings"], report.notes) == (1, ())
    assert report.units == {"eeg_votes": 4, "eeg": 3, "label": 23}
    assert require_sound(folder).ok


def test_real_table_has_no_faults(real_data: Path) -> None:
    report = check_table(real_data / "train_labels.parquet")
    assert report.faults == ()
    assert report.counts == {
        "label_rows": 106_624,
        "eegs": 17_039,
        "spectrograms": 11_108,
        "patients": 1_946,
        "unknown_label_ids": 65_333,
    }
    assert report.units == {"eeg_votes": 20_125, "eeg": 17_039, "label": 106_624}


def test_real_table_follows_the_rules_of_the_check(labels: pd.DataFrame) -> None:
    """Ties and odd offsets occur, so the rules about them are needed."""
    votes = labels[list(VOTE_COLUMNS)].to_numpy()
    assert ((votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum() == 5_244
    offsets = labels["spectrogram_label_offset_seconds"]
    assert (offsets % 2 == 1).sum() == 926
    distance = offsets - labels["eeg_label_offset_seconds"]
    assert (distance > 0).sum() > 10_000
    assert (distance.groupby(labels["eeg_id"]).nunique() == 1).all()


def test_recordings_are_as_long_as_the_format_requires(folder: Path) -> None:
    labels = read_labels(folder)
    for eeg_id, offset in labels.groupby("eeg_id")["eeg_label_offset_seconds"].max().items():
        eeg = read_eeg(folder / "train_eegs" / f"{eeg_id}.parquet")
        assert eeg.shape == ((offset + 50) * 200, 20)
    offsets = labels.groupby("spectrogram_id")["spectrogram_label_offset_seconds"].max()
    for spectrogram_id, offset in offsets.items():
        spectrogram = read_spectrogram(spectrogram_path(folder, spectrogram_id))
        assert spectrogram.shape == ((offset + 600) / 2, 400)


def test_test_recording(folder: Path) -> None:
    (row,) = read_test_table(folder).itertuples()
    assert read_eeg(folder / "test_eegs" / f"{row.eeg_id}.parquet").shape == (10_000, 20)
    file = spectrogram_path(folder, row.spectrogram_id, "test")
    assert read_spectrogram(file).shape == (300, 400)


def test_pack(folder: Path, tmp_path: Path) -> None:
    pack = build_pack(folder, tmp_path)
    assert verify_pack(pack.path).fingerprint == pack.fingerprint
    rows = make_rows(read_labels(folder))
    first = pack.locate(rows["spectrogram_id"], rows["spectrogram_start"])
    for position, row in zip(first, rows.itertuples(), strict=True):
        power = read_spectrogram(spectrogram_path(folder, row.spectrogram_id))
        window = power[row.spectrogram_start : row.spectrogram_start + 300].astype(np.float64)
        expected = np.log(np.clip(window, np.exp(-4), np.exp(8))).astype(np.float16)
        np.testing.assert_array_equal(pack.values[position : position + 300], expected)
    assert build_pack(folder, tmp_path).fingerprint == pack.fingerprint


def test_pack_of_windows(folder: Path, tmp_path: Path) -> None:
    rows = make_rows(read_labels(folder), "label")
    source = eeg_source("eeg", EegRecipe())
    pack = build_pack(folder, tmp_path, source, distinct_windows(rows), workers=1)
    assert verify_pack(pack.path).fingerprint == pack.fingerprint
    ids, starts = rows["eeg_id"], rows["eeg_start"]
    assert pack.usable(ids, starts).all()
    assert not pack.missing_share(ids, starts).any()
    for position, row in zip(pack.locate(ids, starts), rows.itertuples(), strict=True):
        eeg = read_eeg(folder / "train_eegs" / f"{row.eeg_id}.parquet")
        window = eeg[row.eeg_start : row.eeg_start + 10_000]
        expected = make_values(EegRecipe(), np.ascontiguousarray(window)[None])[0]
        np.testing.assert_array_equal(pack.values[position : position + 256], expected)
        assert -1 <= expected.min() < expected.max() <= 1


def test_rows_of_the_real_table(labels: pd.DataFrame, rows: pd.DataFrame) -> None:
    distinct = labels[["eeg_id", *VOTE_COLUMNS]].drop_duplicates()
    assert len(rows) == len(distinct)
    assert rows["row_id"].is_unique
    assert len(make_rows(labels, "eeg")) == labels["eeg_id"].nunique()
    assert len(make_rows(labels, "label")) == len(labels)
    assert rows["n_labels"].sum() == len(labels)
    np.testing.assert_allclose(rows[list(TARGET_COLUMNS)].sum(axis=1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("unit", ["eeg_votes", "eeg"])
def test_every_label_row_can_be_drawn_by_its_row(labels: pd.DataFrame, unit: Unit) -> None:
    rows = make_rows(labels, unit)
    first, table = label_rows_in(with_label_rows(rows, label_rows_of(rows, labels, unit)))
    assert first[-1] == len(table) == len(labels)
    assert np.diff(first).tolist() == rows["n_labels"].tolist()
    means = np.add.reduceat(table[list(VOTE_COLUMNS)].to_numpy(), first[:-1])
    np.testing.assert_allclose(means / means.sum(1)[:, None], rows[list(TARGET_COLUMNS)])
    assert (table["eeg_id"].to_numpy() == rows["eeg_id"].repeat(np.diff(first)).to_numpy()).all()


def test_consensus_is_the_first_class_with_most_votes(labels: pd.DataFrame) -> None:
    rows = make_rows(labels, "label")
    keys = labels["eeg_id"].astype(str) + "-" + labels["eeg_sub_id"].astype(str)
    given = pd.Series(labels["expert_consensus"].to_numpy(), index=keys)
    assert (given[rows["row_id"]].to_numpy() == rows["expert_consensus"].to_numpy()).all()


def test_totals_of_eegs_are_single_label_rows(labels: pd.DataFrame) -> None:
    rows = make_rows(labels, "eeg")
    totals = labels[list(VOTE_COLUMNS)].sum(axis=1)
    assert rows["total_votes"].max() == totals.max() == 28
    assert rows[list(VOTE_COLUMNS)].sum(axis=1).max() > 10_000


def test_windows_near_their_label_rows(labels: pd.DataFrame, rows: pd.DataFrame) -> None:
    """4.5% of the midpoints are more than 10 s from any label row with the same votes."""
    nearest = make_rows(labels, window="nearest")
    distance = (rows["eeg_start"] - nearest["eeg_start"]).abs() / 200
    assert 0.04 < (distance > 10).mean() < 0.05
    assert distance.max() == 780


def test_folds_of_the_real_table(rows: pd.DataFrame) -> None:
    folds = make_folds(rows, 5, seed=42)
    check_folds(folds, rows, 5)
    assert (folds.groupby("patient_id")["fold"].nunique() == 1).all()
    sizes = folds["fold"].value_counts()
    assert sizes.min() > 0.15 * len(rows)
    shares = pd.crosstab(folds["fold"], rows["expert_consensus"], normalize="index")[list(CLASSES)]
    overall = rows["expert_consensus"].value_counts(normalize=True)
    assert (shares - overall).abs().to_numpy().max() < 0.05
    again = make_folds(rows, 5, seed=42)
    assert folds_fingerprint(again) == folds_fingerprint(folds)
    assert folds_fingerprint(make_folds(rows, 5, seed=43)) != folds_fingerprint(folds)
