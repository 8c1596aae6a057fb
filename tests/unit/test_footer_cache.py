"""A check with a cache opens only new and changed files and finds the same faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hms_ray.competition import read
from hms_ray.competition.check import check_folder, require_sound
from hms_ray.competition.footer_cache import (
    FOOTER_FILE,
    FooterKey,
    load_footers,
    save_footers,
)
from hms_ray.competition.read import SignalFooter
from hms_ray.config.experiment import Experiment
from hms_ray.dataset.prepare import prepare
from hms_ray.errors import FaultyDataError
from tests.competition_folder import write_competition_folder, write_eeg

EEG = "train_eegs/500007.parquet"
N_FILES = 7


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "packed" / "here"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the signal files opened, in any order."""
    names: list[str] = []
    open_parquet = read._open_parquet

    def record(path: Path, *rest: object) -> object:
        names.append(path.name)
        return open_parquet(path, *rest)

    monkeypatch.setattr(read, "_open_parquet", record)
    return names


def test_second_check_opens_nothing(folder: Path, cache: Path, opened: list[str]) -> None:
    first = require_sound(folder, cache_dir=cache)
    assert len(opened) == N_FILES
    opened.clear()
    assert require_sound(folder, cache_dir=cache) == first
    assert opened == []
    assert [file.name for file in cache.iterdir()] == [FOOTER_FILE]


def test_check_with_values_fills_the_cache_and_still_reads_all_files(
    folder: Path, cache: Path, opened: list[str]
) -> None:
    require_sound(folder, signals=True, cache_dir=cache)
    opened.clear()
    require_sound(folder, cache_dir=cache)
    assert opened == []
    require_sound(folder, signals=True, cache_dir=cache)
    assert len(opened) == N_FILES


def test_no_cache_folder_no_cache(folder: Path, opened: list[str]) -> None:
    before = sorted(folder.rglob("*"))
    require_sound(folder)
    require_sound(folder)
    assert len(opened) == 2 * N_FILES
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("same", ["size", "time"])
def test_changed_file_is_read_again(
    folder: Path, cache: Path, opened: list[str], same: str
) -> None:
    require_sound(folder, cache_dir=cache)
    before = (folder / EEG).stat()
    if same == "time":
        pq.write_table(pq.read_table(folder / EEG)[:100], folder / EEG)
        os.utime(folder / EEG, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        (folder / EEG).write_bytes(b"\0" * before.st_size)
    opened.clear()
    (fault,) = check_folder(folder, signals=False, cache_dir=cache, test=False).faults
    assert (fault.kind, fault.id) == (
        "too_short" if same == "time" else "unreadable_file",
        "500007",
    )
    assert opened == [Path(EEG).name]


def test_faults_are_the_same_from_the_cache(folder: Path, cache: Path, opened: list[str]) -> None:
    n_samples = pq.read_metadata(folder / EEG).num_rows
    write_eeg(folder / EEG, np.full((n_samples, 20), np.nan, np.float32))
    pq.write_table(
        pq.read_table(folder / "train_eegs" / "500014.parquet")[:9],
        folder / "train_eegs" / "500014.parquet",
    )
    (folder / "train_eegs" / "500021.parquet").unlink()
    (folder / "train_eegs" / "3.parquet").touch()
    expected = check_folder(folder, signals=False).faults
    assert [fault.kind for fault in expected] == [
        *("unreadable_file", "no_numbers", "too_short", "missing_file"),
    ]
    for _ in range(2):
        opened.clear()
        with pytest.raises(FaultyDataError) as caught:
            require_sound(folder, cache_dir=cache)
        assert caught.value.faults == expected
    # Files without a sound footer are opened at every check: truncated, without numbers, missing.
    assert sorted(opened) == ["3.parquet", "500007.parquet", "500021.parquet"]


def test_numbers_found_by_reading_are_remembered(
    folder: Path, cache: Path, opened: list[str]
) -> None:
    pq.write_table(pq.read_table(folder / EEG), folder / EEG, write_statistics=False)
    require_sound(folder, cache_dir=cache)
    opened.clear()
    require_sound(folder, cache_dir=cache)
    assert opened == []


def test_deleted_files_leave_the_cache(folder: Path, cache: Path) -> None:
    require_sound(folder, cache_dir=cache)
    (folder / EEG).unlink()
    check_folder(folder, signals=False, cache_dir=cache, test=False)
    assert len(load_footers(cache)) == N_FILES - 1


def test_second_preparation_opens_no_recording(tmp_path: Path, opened: list[str]) -> None:
    data = write_competition_folder(tmp_path / "data", n_patients=12, eegs_per_patient=1)
    experiment = Experiment.model_validate({"data": {"n_folds": 2}})
    pack_dir = tmp_path / "packs"
    first = prepare(data, experiment, tmp_path, pack_dir=pack_dir)
    assert opened
    opened.clear()
    assert prepare(data, experiment, tmp_path, pack_dir=pack_dir) == first
    assert opened == []
    assert (pack_dir / FOOTER_FILE).is_file()


FOOTERS = {FooterKey("train_eegs/1.parquet", 10, 123): SignalFooter(10_000, True)}


def test_round_trip(tmp_path: Path) -> None:
    save_footers(tmp_path, FOOTERS)
    assert load_footers(tmp_path) == FOOTERS
    assert load_footers(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("damage", ["cut", "number", "version", "empty", "list", "text", "keys"])
def test_damaged_or_older_cache_is_ignored(tmp_path: Path, damage: str) -> None:
    save_footers(tmp_path, FOOTERS)
    whole = (tmp_path / FOOTER_FILE).read_bytes()
    (tmp_path / FOOTER_FILE).write_bytes(
        {
            "cut": whole[:-9],
            "number": whole.replace(b"10000", b"90000"),
            "version": whole.replace(b'"version":1', b'"version":2'),
            "empty": b"",
            "list": b"[1]",
            "text": b"\xff\xfe",
            "keys": b"{}",
        }[damage]
    )
    assert load_footers(tmp_path) == {}


def test_unwritable_cache_is_skipped(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert require_sound(folder, cache_dir=file / "below").ok
    (tmp_path / "taken" / FOOTER_FILE).mkdir(parents=True)
    assert require_sound(folder, cache_dir=tmp_path / "taken").ok
    assert [path.name for path in (tmp_path / "taken").iterdir()] == [FOOTER_FILE]
