"""The spectrogram recipe and the simulated format against real files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_ray.competition.read import read_eeg, read_spectrogram
from hms_ray.signal.spectrogram import EEG_START_IN_SPECTROGRAM_S, competition_spectrogram
from hms_ray.simulate.folder import simulate_folder

pytestmark = pytest.mark.real

MEDIAN_RESIDUAL = 0.02
# The real files were filtered in recordings of ten minutes or more, so the ends of short EEGs
# differ. Values near 0 are rounded to 0.01, so their logarithm is meaningless.
EDGE_ROWS = 1
SMALLEST = 0.1


def pairs(folder: Path) -> list[tuple[Path, Path, float]]:
    """EEG file, spectrogram file, spectrogram offset - EEG offset of every real pair."""
    labels = pd.read_csv(folder / "train.csv").drop_duplicates("eeg_id")
    found = [
        (
            folder / f"train_eegs/{row.eeg_id}.parquet",
            folder / f"train_spectrograms/{row.spectrogram_id}.parquet",
            row.spectrogram_label_offset_seconds - row.eeg_label_offset_seconds,
        )
        for row in labels.itertuples()
    ]
    found += [
        (
            folder / f"test_eegs/{row.eeg_id}.parquet",
            folder / f"test_spectrograms/{row.spectrogram_id}.parquet",
            0.0,
        )
        for row in pd.read_csv(folder / "test.csv").itertuples()
    ]
    return found


def test_recipe_reproduces_the_real_spectrograms(real_data: Path) -> None:
    found = pairs(real_data / "competition")
    assert len(found) >= 4
    for eeg_file, spectrogram_file, lead in found:
        made = competition_spectrogram(read_eeg(eeg_file))
        start = int((lead + EEG_START_IN_SPECTROGRAM_S + 1) // 2)
        stored = read_spectrogram(spectrogram_file)[start : start + len(made)]
        made, stored = made[EDGE_ROWS:-EDGE_ROWS], stored[EDGE_ROWS:-EDGE_ROWS]
        mask = (made > SMALLEST) & (stored > SMALLEST)
        assert mask.mean() > 0.75, eeg_file.name
        residual = np.log(made[mask].astype(float)) - np.log(stored[mask].astype(float))
        assert np.median(np.abs(residual)) <= MEDIAN_RESIDUAL, eeg_file.name
        assert np.quantile(np.abs(residual), 0.9) <= 0.2, eeg_file.name


def test_shifted_row_does_not_match(real_data: Path) -> None:
    eeg_file, spectrogram_file, lead = pairs(real_data / "competition")[0]
    made = competition_spectrogram(read_eeg(eeg_file))
    start = int((lead + EEG_START_IN_SPECTROGRAM_S + 1) // 2) + 1
    stored = read_spectrogram(spectrogram_file)[start : start + len(made)]
    mask = (made > SMALLEST) & (stored > SMALLEST)
    residual = np.abs(np.log(made[mask]) - np.log(stored[mask]))
    assert np.median(residual) > 5 * MEDIAN_RESIDUAL


def test_simulated_files_have_the_real_schema(real_data: Path, tmp_path: Path) -> None:
    made = simulate_folder(tmp_path / "data", 1, seed=0)
    real = real_data / "competition"
    for kind in ("train_eegs", "train_spectrograms", "test_eegs", "test_spectrograms"):
        ours, theirs = (
            pq.ParquetFile(next((folder / kind).glob("*.parquet"))) for folder in (made, real)
        )
        assert ours.schema_arrow.remove_metadata() == theirs.schema_arrow.remove_metadata()
        assert ours.metadata.num_row_groups == theirs.metadata.num_row_groups
        ours_column, theirs_column = (f.metadata.row_group(0).column(1) for f in (ours, theirs))
        assert ours_column.compression == theirs_column.compression
    for table in ("train.csv", "test.csv", "sample_submission.csv"):
        ours_table, theirs_table = (pd.read_csv(folder / table) for folder in (made, real))
        pd.testing.assert_series_equal(ours_table.dtypes, theirs_table.dtypes)
