"""The command that writes a spectrogram file, and the files of the format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_ray.cli.main import main
from hms_ray.competition.read import read_eeg, read_spectrogram
from hms_ray.competition.schema import ELECTRODES, SPECTROGRAM_COLUMNS
from hms_ray.competition.write import write_eeg, write_spectrogram
from hms_ray.errors import DataError
from hms_ray.signal.spectrogram import competition_spectrogram, recording_spectrogram


def recording(n_samples: int = 4_100) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n_samples, 20), scale=30).astype(np.float32)


@pytest.fixture
def eeg_file(tmp_path: Path) -> Path:
    file = tmp_path / "recording.parquet"
    write_eeg(file, recording())
    return file


def test_row_i_is_centred_at_2i_plus_1_seconds() -> None:
    eeg = np.zeros((8_000, 20), np.float32)
    for second in (1, 21, 39):
        eeg[second * 200, ELECTRODES.index("C3")] = 1_000
    power = recording_spectrogram(eeg)[:, 240]
    assert len(power) == 20
    assert set(np.argsort(power)[-3:]) == {0, 10, 19}


@pytest.mark.parametrize("n_samples", [800, 1_000, 1_001, 1_199, 1_200, 1_399, 1_400])
def test_recording_has_one_row_per_2_seconds(n_samples: int) -> None:
    assert recording_spectrogram(recording(n_samples)).shape == (n_samples // 400, 400)


def test_rows_far_from_the_ends_are_those_of_the_plain_recipe() -> None:
    eeg = recording(12_000)
    made = recording_spectrogram(eeg)
    # The plain recipe's rows lie at 2 j + 2 s; without the first second, at 2 j + 3.
    np.testing.assert_allclose(
        made[5:-5], competition_spectrogram(eeg[200:])[4:-4], rtol=1e-3, atol=0.0101
    )


def test_recording_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(DataError, match="at least 800 samples to make a spectrogram, got 799"):
        recording_spectrogram(recording(799))


def test_file_has_the_format_of_the_competition(eeg_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.parquet"
    assert main(["spectrogram", str(eeg_file), "--out", str(out)]) == 0
    file = pq.ParquetFile(out)
    assert file.metadata.num_row_groups == 1
    assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    table = pd.read_parquet(out)
    assert list(table) == ["time", *SPECTROGRAM_COLUMNS]
    assert table["time"].dtype == np.int64
    assert table["time"].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert (table.dtypes[1:] == np.float32).all()
    np.testing.assert_array_equal(read_spectrogram(out), recording_spectrogram(recording()))


def test_file_is_written_to_the_working_folder_by_default(
    eeg_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["spectrogram", str(eeg_file)]) == 0
    assert capsys.readouterr().out.startswith("recording_spectrogram.parquet: 10 rows")
    assert [file.name for file in Path().iterdir()] == ["recording_spectrogram.parquet"]


def test_existing_file_is_replaced_with_force_only(
    eeg_file: Path, tmp_path: Path, error_line: Callable[..., str]
) -> None:
    out = tmp_path / "made.parquet"
    out.write_text("mine")
    args = ["spectrogram", str(eeg_file), "--out", str(out)]
    error = error_line(*args)
    assert "must not exist, got an existing file" in error
    assert f"in {out}. Choose another --out" in error
    assert out.read_text() == "mine"
    assert main([*args, "--force"]) == 0
    assert len(read_spectrogram(out)) == 10
    error = error_line("spectrogram", eeg_file, "--out", tmp_path, "--force")
    assert "the file to write must not be a folder" in error


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, "an EEG file must exist, in "),
        (
            lambda file: file.write_bytes(file.read_bytes()[:-100]),
            "complete parquet file, got a truncated",
        ),
        (
            lambda file: write_eeg(file, recording(700)),
            "at least 800 samples to make a spectrogram, got 700",
        ),
        (
            lambda file: write_spectrogram(file, np.ones((3, 400), np.float32)),
            "20 columns, got no Fp1",
        ),
    ],
)
def test_invalid_eeg_file_is_reported_in_one_line(
    harm: Callable[[Path], object],
    message: str,
    eeg_file: Path,
    tmp_path: Path,
    error_line: Callable[..., str],
) -> None:
    harm(eeg_file)
    out = tmp_path / "made.parquet"
    error = error_line("spectrogram", eeg_file, "--out", out)
    assert error.startswith("hms-ray spectrogram: an EEG")
    assert message in error
    assert not out.exists()


def test_missing_output_folder_is_reported_in_one_line(
    eeg_file: Path, tmp_path: Path, error_line: Callable[..., str]
) -> None:
    out = tmp_path / "no" / "made.parquet"
    assert str(out.parent) in error_line("spectrogram", eeg_file, "--out", out)


def test_written_files_are_read_unchanged(tmp_path: Path) -> None:
    eeg = recording(50)
    eeg[3, 4] = np.nan
    write_eeg(tmp_path / "eeg.parquet", eeg)
    np.testing.assert_array_equal(read_eeg(tmp_path / "eeg.parquet"), eeg)
    write_spectrogram(tmp_path / "s.parquet", np.ones((2, 400), np.float32), np.int16)
    assert pd.read_parquet(tmp_path / "s.parquet")["time"].dtype == np.int16
    assert sorted(file.name for file in tmp_path.iterdir()) == ["eeg.parquet", "s.parquet"]
