"""Reading: values, order and types, and one error per kind of bad file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hms_ray.competition.read import (
    EEG_FORMAT,
    SPECTROGRAM_FORMAT,
    eeg_path,
    read_eeg,
    read_labels,
    read_signal_footer,
    read_spectrogram,
    read_test_table,
    spectrogram_path,
)
from hms_ray.competition.schema import ELECTRODES, LABEL_COLUMNS, SPECTROGRAM_COLUMNS
from hms_ray.errors import DataError
from tests.competition_folder import (
    eeg_values,
    spectrogram_values,
    write_competition_folder,
    write_eeg,
    write_spectrogram,
)
from tests.refused import refusal


def message(call: object, *arguments: object) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments)  # type: ignore[operator]
    return str(caught.value)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_competition_folder(tmp_path / "competition", n_patients=2, eegs=False)


def test_paths() -> None:
    assert eeg_path("a", 5) == Path("a/train_eegs/5.parquet")
    assert spectrogram_path("a", 7, "test") == Path("a/test_spectrograms/7.parquet")


def test_eeg_values_come_back_exactly(tmp_path: Path, rng: np.random.Generator) -> None:
    values = eeg_values(rng, 2_000, gap=True)
    write_eeg(tmp_path / "1.parquet", values)
    read = read_eeg(tmp_path / "1.parquet")
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    assert read.flags.writeable
    np.testing.assert_array_equal(read, values)


def test_nulls_are_nan(tmp_path: Path, rng: np.random.Generator) -> None:
    """pandas writes NaN as null; the real files have both."""
    values = spectrogram_values(rng, 40, gap=True)
    frame = pd.DataFrame(values, columns=list(SPECTROGRAM_COLUMNS))
    frame.insert(0, "time", np.arange(40))
    frame.to_parquet(tmp_path / "1.parquet", index=False)
    assert pq.read_table(tmp_path / "1.parquet")["RP_19.92"].null_count == 5
    np.testing.assert_array_equal(read_spectrogram(tmp_path / "1.parquet"), values)


def test_columns_are_read_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    values = eeg_values(rng, 10)
    order = rng.permutation(20)
    columns = [values[:, k].astype(np.float64) for k in order] + [np.arange(10)]
    names = [*(ELECTRODES[k] for k in order), "extra"]
    pq.write_table(pa.table(columns, names=names), tmp_path / "1.parquet", row_group_size=4)
    np.testing.assert_array_equal(read_eeg(tmp_path / "1.parquet"), values)


def test_footer(tmp_path: Path, rng: np.random.Generator) -> None:
    file = tmp_path / "1.parquet"
    write_spectrogram(file, spectrogram_values(rng, 12))
    footer = read_signal_footer(file, SPECTROGRAM_FORMAT)
    assert (footer.n_rows, footer.has_numbers) == (12, True)
    write_spectrogram(file, np.full((12, 400), np.nan, np.float32))
    assert not read_signal_footer(file, SPECTROGRAM_FORMAT).has_numbers
    only_ekg = np.full((9, 20), np.nan, np.float32)
    only_ekg[:, -1] = 1
    write_eeg(file, only_ekg)
    assert not read_signal_footer(file, EEG_FORMAT).has_numbers
    only_ekg[3, 4] = 1
    write_eeg(file, only_ekg)
    assert read_signal_footer(file, EEG_FORMAT).has_numbers


def test_missing_signal_file(tmp_path: Path) -> None:
    file = tmp_path / "5.parquet"
    for read, rule in (
        (read_eeg, "an EEG file must exist"),
        (read_spectrogram, "a spectrogram file must exist"),
    ):
        with refusal(DataError, rule, where=str(file), fix="Check the path, or download"):
            read(file)


def test_truncated_signal_file(tmp_path: Path, rng: np.random.Generator) -> None:
    file = tmp_path / "5.parquet"
    write_spectrogram(file, spectrogram_values(rng, 310))
    whole = file.read_bytes()
    expected = f"got a truncated or damaged one, in {file}"
    for cut in (3, 1_000, len(whole) - 1):
        file.write_bytes(whole[:cut])
        assert expected in message(read_spectrogram, file)
    # A whole footer over damaged values: found when they are read.
    file.write_bytes(whole[:50] + b"\xff" * 400_000 + whole[400_050:])
    assert read_signal_footer(file, SPECTROGRAM_FORMAT).n_rows == 310
    assert expected in message(read_spectrogram, file)


def test_wrong_columns(tmp_path: Path) -> None:
    file = tmp_path / "5.parquet"
    column = np.zeros(4, np.float32)
    pq.write_table(pa.table([column] * 19, names=list(ELECTRODES[:-1])), file)
    assert f"20 columns, got no EKG, in {file}" in message(read_eeg, file)
    names = ["fp1", *ELECTRODES[1:]]
    pq.write_table(pa.table([column] * 20, names=names), file)
    assert "got no Fp1 but fp1" in message(read_eeg, file)
    assert "LL_1.17 and 396 more but fp1, F3, C3, P3, F7 and 15 more" in message(
        read_spectrogram, file
    )


def test_wrong_types_and_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "5.parquet"
    columns = [pa.array(["1.5"])] + [np.zeros(1, np.float32)] * 19
    pq.write_table(pa.table(columns, names=list(ELECTRODES)), file)
    assert f"got Fp1 of type string, in {file}" in message(read_eeg, file)
    half = [pa.array(np.zeros(1, np.float16)), *[pa.array(np.zeros(1, np.float32))] * 19]
    pq.write_table(pa.table(half, names=list(ELECTRODES)), file)
    assert "got Fp1 of type halffloat" in message(read_eeg, file)
    twice = pa.table([np.zeros(1, np.float32)] * 21, names=[*ELECTRODES, "Fz"])
    pq.write_table(twice, file)
    assert "got Fz 2 times" in message(read_eeg, file)
    write_eeg(file, np.zeros((0, 20), np.float32))
    assert "must have rows, got none" in message(read_eeg, file)


def test_labels(folder: Path) -> None:
    labels = read_labels(folder)
    assert tuple(labels.columns) == LABEL_COLUMNS
    kinds = {name: labels[name].dtype.kind for name in LABEL_COLUMNS}
    assert kinds.pop("expert_consensus") not in "iuf"
    assert {name for name, kind in kinds.items() if kind == "f"} == {
        "eeg_label_offset_seconds",
        "spectrogram_label_offset_seconds",
    }
    assert set(kinds.values()) == {"i", "f"}
    pd.testing.assert_frame_equal(labels, pd.read_csv(folder / "train.csv"), check_dtype=False)


def test_labels_in_another_order_of_columns(folder: Path) -> None:
    labels = read_labels(folder)
    labels[[*LABEL_COLUMNS[::-1]]].assign(note="x").to_csv(folder / "train.csv", index=False)
    pd.testing.assert_frame_equal(read_labels(folder), labels)


def test_test_table(folder: Path) -> None:
    table = read_test_table(folder)
    assert table.to_dict("list") == {
        "spectrogram_id": [800_001],
        "eeg_id": [700_001],
        "patient_id": [6_000],
    }
    (folder / "test.csv").unlink()
    with refusal(DataError, "test.csv must exist", where="test.csv", fix="Check the path"):
        read_test_table(folder)


@pytest.mark.parametrize(
    ("column", "value", "rule", "got"),
    [
        ("eeg_id", "abc", "whole numbers", "'abc'"),
        ("lpd_vote", 1.5, "whole numbers", "1.5"),
        ("patient_id", None, "whole numbers", "an empty value"),
        ("eeg_label_offset_seconds", "soon", "numbers", "'soon'"),
    ],
)
def test_wrong_values_in_the_label_table(
    folder: Path, column: str, value: object, rule: str, got: str
) -> None:
    labels = pd.read_csv(folder / "train.csv").astype({column: object})
    labels.loc[2, column] = value
    labels.to_csv(folder / "train.csv", index=False)
    where = f"{folder / 'train.csv'}, 1 row(s), counted from 1: 3"
    with refusal(DataError, f"{column} must be {rule}", got=got, where=where, fix="check DIR"):
        read_labels(folder)


def test_empty_offset_and_consensus_are_not_errors_of_reading(folder: Path) -> None:
    labels = pd.read_csv(folder / "train.csv")
    labels.loc[1, ["eeg_label_offset_seconds", "expert_consensus"]] = None
    labels.to_csv(folder / "train.csv", index=False)
    read = read_labels(folder)
    assert np.isnan(read["eeg_label_offset_seconds"][1])
    assert read["expert_consensus"][1] == ""


def test_unusable_label_table(folder: Path) -> None:
    file = folder / "train.csv"
    labels = pd.read_csv(file)
    labels.drop(columns=["gpd_vote", "label_id"]).to_csv(file, index=False)
    assert f"15 columns, got no label_id, gpd_vote, in {file}" in message(read_labels, folder)
    labels[:0].to_csv(file, index=False)
    assert "train.csv must have rows and columns, got none" in message(read_labels, folder)
