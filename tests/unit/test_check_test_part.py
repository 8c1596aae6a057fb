"""The part of a folder that is predicted: test.csv, its recordings, the sample submission."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.check import check_folder, require_sound, require_sound_test
from hms_ray.competition.footer_cache import load_footers
from hms_ray.competition.schema import SUBMISSION_COLUMNS
from hms_ray.errors import DataError, Fault, FaultyDataError
from tests.competition_folder import (
    eeg_values,
    spectrogram_values,
    write_eeg,
    write_spectrogram,
)
from tests.refused import refusal

EEG = "test_eegs/700001.parquet"
SPECTROGRAM = "test_spectrograms/800001.parquet"
SAMPLE = "sample_submission.csv"
RNG = np.random.default_rng(0)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1024\n"
WHOLE = "must be a whole number of at least 0"
LISTED_ONCE = f"{SAMPLE} must list every EEG of test.csv once, and no other, got "


def only_fault(folder: Path) -> Fault:
    """The one fault of a folder, which training does not see."""
    (fault,) = check_folder(folder, signals=False).faults
    assert require_sound(folder).ok
    return fault


def change(file: Path, changed: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    changed(pd.read_csv(file)).to_csv(file, index=False)


@pytest.mark.parametrize(
    ("file", "content", "got", "fix"),
    [
        (EEG, b"Fp1,F3\n1,2\n", "CSV text", "Download it again"),
        (EEG, POINTER, "a git-LFS pointer", "Fetch the file itself: git lfs pull"),
        (EEG, b"<!DOCTYPE html>\n<html>", "an HTML page", "Download the file itself"),
        (SPECTROGRAM, gzip.compress(b"x" * 99, mtime=0), "a gzip archive", "Unpack it"),
        (SPECTROGRAM, b"PK\x03\x04" + bytes(99), "a zip archive", "Unpack it"),
        (
            SPECTROGRAM,
            b'{"code":403,"message":"Forbidden"}',
            "JSON text",
            "Download the file itself",
        ),
        (SPECTROGRAM, b"", "an empty file", "Download it again"),
        (SPECTROGRAM, b"PAR1" + bytes(99), "a truncated or damaged one", "Download it again"),
        (SPECTROGRAM, b"\x00\x01\x02", "a truncated or damaged one", "Download it again"),
    ],
)
def test_a_recording_that_is_not_parquet_is_named(
    folder: Path, file: str, content: bytes, got: str, fix: str
) -> None:
    (folder / file).write_bytes(content)
    name = "an EEG file" if file == EEG else "a spectrogram file"
    message = f"{name} must be a complete parquet file, got {got}"
    fault = only_fault(folder)
    assert fault == Fault("unreadable_file", message, file, Path(file).stem, fault.fix)
    assert str(fault.fix).startswith(fix)
    assert f"  Remedy: {fault.fix}" in check_folder(folder, signals=False).to_text()


@pytest.mark.parametrize("n", [9_999, 10_001, 12_000])
def test_a_test_eeg_must_have_the_length_of_a_window(folder: Path, n: int) -> None:
    write_eeg(folder / EEG, eeg_values(RNG, n))
    rule = "an EEG file of test.csv must have the 10,000 rows of one window, 50 s"
    assert only_fault(folder) == Fault("wrong_length", f"{rule}, got {n:,}", EEG, "700001")


@pytest.mark.parametrize("n", [299, 301])
def test_a_test_spectrogram_must_have_the_length_of_a_window(folder: Path, n: int) -> None:
    write_spectrogram(folder / SPECTROGRAM, spectrogram_values(RNG, n))
    rule = "a spectrogram file of test.csv must have the 300 rows of one window, 600 s"
    assert only_fault(folder) == Fault("wrong_length", f"{rule}, got {n}", SPECTROGRAM, "800001")


def test_test_recordings_are_checked_like_those_of_training(folder: Path) -> None:
    write_eeg(folder / EEG, np.full((10_000, 20), np.nan, np.float32))
    assert only_fault(folder).kind == "no_numbers"
    pd.read_parquet(folder / EEG).drop(columns="T5").to_parquet(folder / EEG)
    assert only_fault(folder).message == "an EEG file must have its 20 columns, got no T5"
    (folder / EEG).unlink()
    report = check_folder(folder)
    assert [(one.kind, one.file) for one in report.faults] == [("missing_file", EEG)]
    assert report.counts["missing_test_eeg_files"] == 1
    assert ["test", "EEG", "files", "missing", "1"] in map(str.split, report.to_text().splitlines())
    shutil.rmtree(folder / "test_eegs")
    assert only_fault(folder) == Fault(
        "missing_file", "a competition folder must contain the folder test_eegs/", "test_eegs/"
    )


def test_a_folder_without_a_test_part_is_sound(folder: Path) -> None:
    (folder / SAMPLE).unlink()
    (without_sample,) = check_folder(folder).notes
    assert without_sample == f"No {SAMPLE}: submissions have the order of test.csv."
    (folder / "test.csv").unlink()
    report = check_folder(folder)
    assert report.ok
    assert report.notes == ("No test.csv: submissions cannot be made from this folder.",)
    assert report.to_text().splitlines()[-2:] == [*report.notes, "No faults in the folder."]
    assert not [name for name in report.counts if "test" in name]


def ids_of(*rows: tuple[object, object, object]) -> str:
    lines = [",".join(map(str, row)) for row in (("spectrogram_id", "eeg_id", "patient_id"), *rows)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", [("empty_file", "must have rows and columns, got none", None)]),
        ("<html>\n</html>\n", [("unreadable_file", "got an HTML page", None)]),
        ("eeg_id,patient_id\n1,2\n", [("wrong_columns", "3 columns, got no spectrogram_id", None)]),
        (
            ids_of((800_001, 700_001, 1), (800_001, "x", 1), (2.5, 5, -1)),
            [
                ("bad_id", f"spectrogram_id {WHOLE}, got 2.5 in line 4", None),
                ("bad_id", f"eeg_id {WHOLE}, got 'x' in line 3", None),
                ("bad_id", f"patient_id {WHOLE}, got -1 in line 4", None),
            ],
        ),
        (
            ids_of((800_001, 700_001, 1), (800_001, 700_001, 1)),
            [("duplicate_key", "eeg_id must be unique, got 2 rows with it", "700001")],
        ),
    ],
)  # fmt: skip
def test_faults_of_the_test_table(
    folder: Path, text: str, faults: list[tuple[str, str, str | None]]
) -> None:
    (folder / "test.csv").write_text(text)
    found = check_folder(folder, signals=False).faults
    assert [(one.kind, one.file, one.id) for one in found] == [
        (kind, "test.csv", key) for kind, _, key in faults
    ]
    assert all(part in one.message for one, (_, part, _) in zip(found, faults, strict=True))
    with refusal(FaultyDataError, found[0].message, fix="hms-ray check DIR"):
        require_sound_test(folder, ())
    assert require_sound(folder).ok


@pytest.mark.parametrize(
    ("changed", "kind", "part", "key"),
    [
        (lambda t: t[[*SUBMISSION_COLUMNS[::-1]]], "wrong_columns", "in this order, got oth", None),
        (lambda t: t.assign(note=1), "wrong_columns", "other_vote, note", None),
        (lambda t: t.drop(columns="lpd_vote"), "wrong_columns", "7 columns, got no lpd_vote", None),
        (lambda t: pd.concat([t, t]), "other_eegs", f"{LISTED_ONCE}2 rows with it", "700001"),
        (
            lambda t: pd.concat([t, t.assign(eeg_id=5)]),
            "other_eegs",
            f"{LISTED_ONCE}one that test.csv does not have",
            "5",
        ),
        (lambda t: t.assign(lpd_vote=0.9), "bad_probabilities", "0.9, 0.16666666666", "700001"),
        (lambda t: t.assign(lpd_vote="x"), "bad_probabilities", "'x'", "700001"),
        (
            lambda t: t.assign(lpd_vote=-1 / 6, gpd_vote=0.5),
            "bad_probabilities",
            "from 0 to 1 and sum to 1 within 1e-05, got 0.16",
            "700001",
        ),
    ],
)  # fmt: skip
def test_faults_of_the_sample_submission(
    folder: Path,
    changed: Callable[[pd.DataFrame], pd.DataFrame],
    kind: str,
    part: str,
    key: str | None,
) -> None:
    change(folder / SAMPLE, changed)
    fault = only_fault(folder)
    assert (fault.kind, fault.file, fault.id) == (kind, SAMPLE, key)
    assert part in fault.message
    require_sound_test(folder, ("test_eeg",))


def test_a_sample_without_an_eeg_or_with_a_bad_id_is_found(folder: Path) -> None:
    change(folder / SAMPLE, lambda t: t.assign(eeg_id="a"))
    missing, bad = sorted(check_folder(folder).faults, key=lambda fault: fault.kind, reverse=True)
    assert (missing.kind, missing.id) == ("other_eegs", "700001")
    assert missing.message == f"{LISTED_ONCE}0 rows with it"
    assert (bad.kind, bad.message) == (
        "bad_id",
        "eeg_id must be a whole number of at least 0, got 'a' in line 2",
    )


def test_a_sample_of_six_decimals_is_sound(folder: Path) -> None:
    """The competition's own: 0.166667 six times sums to 1.000002."""
    change(folder / SAMPLE, lambda t: t.round(6))
    assert check_folder(folder).ok


def test_submitting_needs_the_recordings_that_models_read(folder: Path) -> None:
    (folder / EEG).unlink()
    write_eeg(folder / "test_eegs" / "1.parquet", eeg_values(RNG, 5))
    require_sound_test(folder, ("test_spectrogram",))
    with refusal(FaultyDataError, f"1 found: {EEG} [700001]: an EEG file must exist"):
        require_sound_test(folder, ("test_eeg", "test_spectrogram"))
    write_eeg(folder / EEG, np.full((10_000, 20), np.nan, np.float32))
    require_sound_test(folder, ("test_eeg",), tolerated=("no_numbers",))
    with refusal(DataError, "a competition folder must exist", where="gone", fix="Check the path"):
        require_sound_test(folder / "gone", ("test_eeg",))


def test_training_and_submitting_share_one_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "packed"
    require_sound(folder, cache_dir=cache)
    trained = load_footers(cache)
    assert {key.file.split("/")[0] for key in trained} == {"train_eegs", "train_spectrograms"}
    require_sound_test(folder, ("test_eeg", "test_spectrogram"), cache_dir=cache)
    both = load_footers(cache)
    assert {key.file for key in both} - {key.file for key in trained} == {EEG, SPECTROGRAM}
    require_sound(folder, cache_dir=cache)
    assert load_footers(cache) == both
    (folder / EEG).unlink()
    check_folder(folder, signals=False, cache_dir=cache)
    assert EEG not in {key.file for key in load_footers(cache)}
