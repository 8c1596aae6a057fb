"""Recordings of a test set and rows of a folder, as read for inference."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.read import read_spectrogram, spectrogram_path
from hms_ray.config.inputs import InputConfig
from hms_ray.errors import DataError, FaultyDataError
from hms_ray.pack.sources import log_power
from hms_ray.predict.recordings import recordings_of_rows, recordings_of_test
from hms_ray.predict.submission import submission_ids
from tests.competition_folder import write_competition_folder
from tests.refused import refusal
from tests.trained_study import INPUTS, TEST_EEGS, write_sample, write_test_set

pytestmark = pytest.mark.usefixtures("one_process")

KAGGLE = [InputConfig.model_validate(INPUTS["kaggle"])]
JOINED = [InputConfig.model_validate(INPUTS["joined"])]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition folder of six patients; only read."""
    return write_competition_folder(tmp_path_factory.mktemp("data") / "data", n_patients=6)


def test_packs_of_test_recordings_have_a_folder_of_their_own(data: Path, tmp_path: Path) -> None:
    """Their recipe, and so their name, is the same as for training."""
    write_test_set(tmp_path / "data")
    shutil.copytree(data / "train_spectrograms", tmp_path / "data" / "train_spectrograms")
    (pack,) = recordings_of_test(tmp_path / "data", KAGGLE).packs.values()
    assert pack.path.parent == tmp_path / "data" / "packed" / "test"
    assert sorted(pack.recordings.index) == sorted(eeg + 100_000 for eeg in TEST_EEGS)
    elsewhere = recordings_of_test(tmp_path / "data", KAGGLE, pack_dir=tmp_path / "packs")
    (other,) = elsewhere.packs.values()
    assert other.path.parent == tmp_path / "packs" / "test"
    assert other.fingerprint == pack.fingerprint


def test_a_test_window_holds_the_values_of_its_file(tmp_path: Path) -> None:
    folder = write_test_set(tmp_path / "data")
    recordings = recordings_of_test(folder, KAGGLE)
    (pack,) = recordings.packs.values()
    starts = pack.locate(recordings.rows["spectrogram_id"], recordings.rows["spectrogram_start"])
    for start, number in zip(starts, recordings.rows["spectrogram_id"], strict=True):
        power = read_spectrogram(spectrogram_path(folder, number, "test"))
        np.testing.assert_array_equal(pack.values[start : start + 300], log_power(power))
    assert np.isnan(pack.values[starts[0] : starts[0] + 300]).any()  # the gap


@pytest.mark.parametrize("n", [10_001, 9_999, 20_000])
def test_a_test_eeg_of_another_length_is_refused(tmp_path: Path, n: int) -> None:
    folder = write_test_set(tmp_path / "test", n_samples=n)
    rule = "1 found: test_eegs/700001.parquet [700001]: an EEG file of test.csv must have the 10,0"
    with refusal(FaultyDataError, rule, where="test", fix="hms-ray check"):
        recordings_of_test(folder, JOINED)
    assert len(recordings_of_test(folder, KAGGLE).rows) == 3, "which reads no EEG"


@pytest.mark.parametrize("n", [299, 301, 600])
def test_a_test_spectrogram_of_another_length_is_refused(tmp_path: Path, n: int) -> None:
    folder = write_test_set(tmp_path / "test", n_rows=n)
    with refusal(FaultyDataError, "1 found: test_spectrograms/800001.parquet [800001]: a spec"):
        recordings_of_test(folder, KAGGLE)


def test_all_missing_test_recordings_are_refused_at_once(tmp_path: Path) -> None:
    folder = write_test_set(tmp_path / "test", eegs=False)
    assert len(recordings_of_test(folder, KAGGLE).rows) == 3
    with refusal(FaultyDataError, "3 found: test_eegs/700001.parquet [700001]: an EEG file must"):
        recordings_of_test(folder, JOINED)


def test_an_eeg_listed_twice_is_refused(tmp_path: Path) -> None:
    folder = write_test_set(tmp_path / "test")
    table = pd.read_csv(folder / "test.csv")
    pd.concat([table, table[1:]]).to_csv(folder / "test.csv", index=False)
    with refusal(DataError, "listed once in test.csv", got="700001, 700002"):
        recordings_of_test(folder, KAGGLE)


def test_training_rows_of_a_faulty_folder_are_refused(data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    next((folder / "train_spectrograms").iterdir()).unlink()
    with refusal(FaultyDataError, "1 found: train_spectrograms/"):
        recordings_of_rows(folder, KAGGLE, "eeg_votes", "middle")


@pytest.mark.parametrize(
    ("ids", "got", "named"),
    [
        ([700_001, 700_002], "2 rows for 3 EEGs", "700003"),
        ([700_001, 700_002, 700_009], "3 rows", "700003, 700009"),
        ([700_001, 700_002, 700_002, 700_003], "4 rows", "700002"),
    ],
)
def test_a_sample_submission_of_other_eegs_is_refused(
    tmp_path: Path, ids: list[int], got: str, named: str
) -> None:
    write_sample(tmp_path, ids)
    rule, where = "every EEG of test.csv once", f"sample_submission.csv, {named}"
    with refusal(DataError, rule, got=got, where=where):
        submission_ids(tmp_path, TEST_EEGS)
