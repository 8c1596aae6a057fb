"""Recordings of a test set and rows of a folder, as fold models are given them."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.submit import submit
from hms_ray.competition.read import read_spectrogram, spectrogram_path
from hms_ray.config.inputs import InputConfig
from hms_ray.errors import DataError, FaultyDataError
from hms_ray.pack.sources import log_power
from hms_ray.predict.recordings import recordings_of_rows, recordings_of_test
from hms_ray.predict.submit_trial import SubmitOptions
from tests.trained_study import (
    INPUTS,
    TEST_EEGS,
    TrainedStudy,
    train_study,
    write_sample,
    write_test_set,
)

pytestmark = pytest.mark.usefixtures("one_process")

KAGGLE = [InputConfig.model_validate(INPUTS["kaggle"])]
JOINED = [InputConfig.model_validate(INPUTS["joined"])]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    return train_study(tmp_path_factory.mktemp("study"))


def test_a_pack_of_the_test_stands_beside_that_of_training(
    study: TrainedStudy, tmp_path: Path
) -> None:
    """The recipe is one, so their names would be too."""
    write_test_set(tmp_path / "data")
    shutil.copytree(study.data / "train_spectrograms", tmp_path / "data" / "train_spectrograms")
    (pack,) = recordings_of_test(tmp_path / "data", KAGGLE).packs.values()
    assert pack.path.parent == tmp_path / "data" / "packed" / "test"
    assert sorted(pack.recordings.index) == sorted(eeg + 100_000 for eeg in TEST_EEGS)
    (other,) = recordings_of_test(
        tmp_path / "data", KAGGLE, pack_dir=tmp_path / "packs"
    ).packs.values()
    assert other.path.parent == tmp_path / "packs" / "test"
    assert other.fingerprint == pack.fingerprint


def test_a_test_window_holds_what_its_file_holds(tmp_path: Path) -> None:
    folder = write_test_set(tmp_path / "data")
    recordings = recordings_of_test(folder, KAGGLE)
    (pack,) = recordings.packs.values()
    starts = pack.locate(recordings.rows["spectrogram_id"], recordings.rows["spectrogram_start"])
    for start, number in zip(starts, recordings.rows["spectrogram_id"], strict=True):
        power = read_spectrogram(spectrogram_path(folder, number, "test"))
        np.testing.assert_array_equal(pack.values[start : start + 300], log_power(power))
    assert np.isnan(pack.values[starts[0] : starts[0] + 300]).any()  # the gap


@pytest.mark.parametrize("n", [10_001, 9_999, 20_000])
def test_an_eeg_of_another_length_is_refused(tmp_path: Path, n: int) -> None:
    folder = write_test_set(tmp_path / "test", n_samples=n)
    message = (
        rf"a test EEG must have 10,000 samples, got {n:,}, in .*test_eegs/700001\.parquet\. Which"
    )
    with pytest.raises(DataError, match=message):
        recordings_of_test(folder, JOINED)
    assert len(recordings_of_test(folder, KAGGLE).rows) == 3  # which reads no EEG


@pytest.mark.parametrize("n", [299, 301, 600])
def test_a_spectrogram_of_another_length_is_refused(tmp_path: Path, n: int) -> None:
    folder = write_test_set(tmp_path / "test", n_rows=n)
    message = rf"a test spectrogram must have 300 rows, got {n}, in .*/800001\.parquet"
    with pytest.raises(DataError, match=message):
        recordings_of_test(folder, KAGGLE)


def test_a_test_recording_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = write_test_set(tmp_path / "test", eegs=False)
    assert len(recordings_of_test(folder, KAGGLE).rows) == 3
    with pytest.raises(DataError, match=r"an EEG file must exist, in .*test_eegs/700003\.parquet"):
        recordings_of_test(folder, JOINED)


def test_an_eeg_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    folder = write_test_set(tmp_path / "test")
    table = pd.read_csv(folder / "test.csv")
    pd.concat([table, table[1:]]).to_csv(folder / "test.csv", index=False)
    message = r"an EEG must be listed once in test\.csv, got 700001, 700002 several times"
    with pytest.raises(DataError, match=message):
        recordings_of_test(folder, KAGGLE)


def test_training_rows_of_a_faulty_folder_are_refused(study: TrainedStudy, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(study.data, folder, ignore=shutil.ignore_patterns("packed"))
    next((folder / "train_spectrograms").iterdir()).unlink()
    with pytest.raises(FaultyDataError, match=r"free of faults, 1 found: train_spectrograms/"):
        recordings_of_rows(folder, KAGGLE, "eeg_votes", "middle")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([700_001, 700_002], r"got 2 rows, and 3 in test\.csv, in .*submission\.csv, 700003$"),
        ([700_001, 700_002, 700_009], r"got 3 rows, .*, 700003, 700009$"),
        ([700_001, 700_002, 700_002, 700_003], r"got 4 rows, .*, 700002$"),
    ],
)
def test_a_sample_submission_of_other_eegs_is_refused(
    study: TrainedStudy, tmp_path: Path, ids: list[int], message: str
) -> None:
    folder = write_test_set(tmp_path / "test")
    write_sample(folder, ids)
    out = tmp_path / "out.csv"
    options = SubmitOptions(data_dir=folder, results=study.results, out=out, device="cpu")
    with pytest.raises(DataError, match="must list every EEG of test.csv once, .*" + message):
        submit(study.name, options)
    assert not out.exists()


def test_without_a_sample_the_order_is_that_of_the_table(
    study: TrainedStudy, tmp_path: Path
) -> None:
    folder = write_test_set(tmp_path / "test")
    (folder / "sample_submission.csv").unlink()
    out = tmp_path / "o.csv"
    options = SubmitOptions(data_dir=folder, results=study.results, out=out, device="cpu")
    submit(study.name, options)
    assert pd.read_csv(out)["eeg_id"].tolist() == list(TEST_EEGS)
