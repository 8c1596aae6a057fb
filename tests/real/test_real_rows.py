"""The row browser on real recordings, against plain NumPy and SciPy."""

import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.signal import butter, filtfilt, iirnotch

from hms_ray.report.rows_app import RowBrowser
from hms_ray.report.rows_signal import CHANNELS, Filters
from tests.row_study import make_row_study

pytestmark = pytest.mark.real


def test_rows_of_real_recordings(real_data: Path, tmp_path: Path) -> None:
    data = real_data / "competition"
    study = make_row_study(tmp_path, data)
    browser = RowBrowser(study)
    assert browser.notes == []
    labels = pd.read_csv(data / "train.csv")
    for _, row in study.rows().iterrows():
        eeg = pq.read_table(data / f"train_eegs/{row['eeg_id']}.parquet").to_pandas()
        first = int(row["eeg_start"]) + 4_000
        found = browser.eeg(row["row_id"], 10, Filters(), 2_000)
        values = np.frombuffer(base64.b64decode(found["values"]), "<f4").reshape(len(CHANNELS), -1)
        for channel, name in zip(values, CHANNELS, strict=True):
            signal = eeg[name.split("-")].to_numpy(float)
            signal = signal[:, 0] - signal[:, 1] if "-" in name else signal[:, 0]
            # Of the whole recording, with coefficients in another form.
            for form in (
                butter(2, 0.5, "highpass", fs=200),
                butter(2, 70, fs=200),
                iirnotch(60, 30, fs=200),
            ):
                signal = filtfilt(*form, signal)
            part = signal[first : first + 2_000]
            assert np.abs(channel - part).max() < 0.02 * np.abs(part).max() + 0.5, name
        mine = labels[labels["eeg_id"] == row["eeg_id"]]
        offsets = set(mine["eeg_label_offset_seconds"] + 20)
        marks = browser.row(row["row_id"])["labels"]
        assert {mark["start_s"] for mark in marks} <= offsets
        assert len(marks) == row["n_labels"]
        images = browser.spectrograms(row["row_id"])
        assert images["kaggle"]["shape"] == (4, 100, 300)
        assert images["eeg"]["shape"] == (4, 40, 193)
