"""Packs: exact values, equal fingerprints for equal content, reuse, concurrent packers."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from hms_ray.competition.read import read_labels, read_spectrogram, spectrogram_path
from hms_ray.competition.rows import make_rows
from hms_ray.pack.build import build_pack, default_pack_dir, find_pack, pack_path
from hms_ray.pack.sources import log_power
from hms_ray.pack.store import Pack, open_pack
from hms_ray.pack.verify import verify_pack
from tests.competition_folder import (
    spectrogram_values,
    write_spectrogram,
)
from tests.refused import refused


@pytest.fixture(scope="module")
def data(two_patients: Path) -> Path:
    return two_patients


def test_log_power_is_exact() -> None:
    power = np.array([0, 1e-9, np.exp(-4), 1, 2, np.exp(8), 1e7, np.inf, np.nan, -1], np.float32)
    expected = [-4, -4, -4, 0, np.float16(np.log(2)), 8, 8, 8, np.nan, -4]
    values = log_power(power)
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values, np.array(expected, np.float16))


def test_values_are_the_log_of_every_recording(data: Path, kaggle_pack: Pack) -> None:
    assert kaggle_pack.values.dtype == np.float16
    assert kaggle_pack.values.shape == (kaggle_pack.recordings["length"].sum(), 400)
    assert kaggle_pack.recordings.index.tolist() == [40_002, 40_003, 41_000]
    for number, (offset, length, n_missing) in kaggle_pack.recordings.iterrows():
        power = read_spectrogram(spectrogram_path(data, int(number)))
        assert len(power) == length
        expected = np.log(np.clip(power.astype(np.float64), np.exp(-4), np.exp(8)))
        found = kaggle_pack.values[offset : offset + length]
        np.testing.assert_array_equal(found, expected.astype(np.float16))
        assert n_missing == np.isnan(power).sum()
        np.testing.assert_array_equal(
            kaggle_pack.missing[offset : offset + length], np.isnan(power).sum(axis=1)
        )
    assert np.isnan(kaggle_pack.values).any()


def test_attributes_of_a_pack(data: Path, kaggle_pack: Pack) -> None:
    assert kaggle_pack.path == pack_path(data / "packed")
    assert kaggle_pack.path.name.startswith("kaggle-")
    assert sorted(file.name for file in kaggle_pack.path.iterdir()) == [
        "manifest.json",
        "missing.npy",
        "recordings.parquet",
        "values.npy",
    ]
    assert (kaggle_pack.source, kaggle_pack.panels) == ("kaggle", ("LL", "RL", "LP", "RP"))
    assert (kaggle_pack.n_frequencies, kaggle_pack.window, kaggle_pack.step_s) == (100, 300, 2)
    assert (kaggle_pack.recipe["low"], kaggle_pack.recipe["high"]) == (-4.0, 8.0)
    assert len(kaggle_pack.fingerprint) == 64


def test_windows_are_located(data: Path, kaggle_pack: Pack) -> None:
    rows = make_rows(read_labels(data))
    first = kaggle_pack.locate(rows["spectrogram_id"], rows["spectrogram_start"])
    assert first.dtype == np.int64
    for position, row in zip(first, rows.itertuples(), strict=True):
        power = read_spectrogram(spectrogram_path(data, row.spectrogram_id))
        start = row.spectrogram_start
        np.testing.assert_array_equal(
            kaggle_pack.values[position : position + 300], log_power(power[start : start + 300])
        )
    assert kaggle_pack.locate([], []).shape == (0,)


def test_windows_outside_their_recording_are_refused(kaggle_pack: Pack) -> None:
    length = int(kaggle_pack.recordings["length"][41_000])
    assert kaggle_pack.locate([41_000], [length - 300]).shape == (1,)
    error = refused(kaggle_pack.locate, [40_002, 41_000], [0, length - 299])
    assert error.rule == "a row's window must lie within its recording"
    assert error.got == f"positions {length - 299} to {length + 1} of {length}"
    assert error.where == "kaggle recording 41000"
    assert "hms-ray check" in (error.fix or "")
    assert refused(kaggle_pack.locate, [41_000], [-1]).got == f"positions -1 to 299 of {length}"


def test_unknown_recordings_are_refused(kaggle_pack: Pack) -> None:
    error = refused(kaggle_pack.locate, [40_002, 5, 5, 6], [0, 0, 0, 0])
    assert "the pack of kaggle" in error.rule
    assert (error.got, error.where) == ("5 and 1 more", kaggle_pack.path)
    assert "--rebuild" in (error.fix or "")
    with pytest.raises(ValueError, match="one shape"):
        kaggle_pack.locate([40_002], [0, 1])


def test_pack_pickles_as_its_path(kaggle_pack: Pack) -> None:
    data = pickle.dumps(kaggle_pack)
    assert len(data) < 1_000
    again = pickle.loads(data)
    assert again.fingerprint == kaggle_pack.fingerprint
    assert isinstance(again.values, np.memmap)


def test_values_are_mapped_copy_on_write(pack_copy: Path) -> None:
    pack = open_pack(pack_copy)
    assert isinstance(pack.values, np.memmap)
    assert pack.values.mode == "c"
    pack.values[:] = 0  # in this process only
    assert open_pack(pack_copy).values.any()
    verify_pack(pack_copy)


def test_existing_pack_is_reused(data: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = build_pack(data, tmp_path, progress=lambda *done: seen.append(done))
    assert seen == [(0, 3), (3, 3)]
    before = (first.path / "values.npy").stat()
    seen.clear()
    again = build_pack(data, tmp_path, progress=lambda *done: seen.append(done))
    assert seen == []
    assert again.fingerprint == first.fingerprint
    assert (first.path / "values.npy").stat() == before
    found = find_pack(data, tmp_path)
    assert found is not None
    assert found.fingerprint == first.fingerprint
    build_pack(data, tmp_path, rebuild=True, progress=lambda *done: seen.append(done))
    assert len(seen) == 2
    assert (first.path / "values.npy").stat().st_ino != before.st_ino
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]


def test_copied_folder_has_the_same_fingerprint(
    data: Path, kaggle_pack: Pack, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(data / "train_spectrograms", copied / "train_spectrograms")
    for file in (copied / "train_spectrograms").iterdir():
        os.utime(file, (1, 1))
    assert build_pack(copied, tmp_path).fingerprint == kaggle_pack.fingerprint


def test_changed_inputs_are_repacked(data: Path, kaggle_pack: Pack, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(data / "train_spectrograms", changed / "train_spectrograms")
    first = build_pack(changed, tmp_path)
    still_open = first.values
    os.utime(changed / "train_spectrograms" / "40003.parquet", (1, 1))
    assert find_pack(changed, tmp_path) is None  # the same size, another time
    assert build_pack(changed, tmp_path).fingerprint == first.fingerprint
    values = spectrogram_values(np.random.default_rng(9), 305)
    write_spectrogram(changed / "train_spectrograms" / "40002.parquet", values)
    assert find_pack(changed, tmp_path) is None
    second = build_pack(changed, tmp_path)
    assert second.path == first.path
    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(second.values[:305], log_power(values))
    # A process that trains on the old pack keeps its values.
    np.testing.assert_array_equal(still_open, kaggle_pack.values)
    assert [path.name for path in tmp_path.iterdir() if path != changed] == [first.path.name]


def test_folder_of_packs_belongs_to_one_competition_folder(data: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(data, tmp_path / "other", ignore=lambda *_: ["packed"]))
    file = next((other / "train_spectrograms").iterdir())
    packs = tmp_path / "packs"
    first = build_pack(data, packs)
    os.utime(file, ns=(1, 1))
    error = refused(build_pack, other, packs)
    assert "one competition folder" in error.rule
    assert (error.got, error.where) == (f"packs of {data.resolve()}", packs)
    assert "--pack-dir" in (error.fix or "")
    assert open_pack(first.path).fingerprint == first.fingerprint
    # Packs that were copied with their folder belong to the copy.
    shutil.copytree(packs, default_pack_dir(other))
    assert build_pack(other, default_pack_dir(other)).path.is_relative_to(other)
    # The packs of a folder that was moved can be replaced.
    moved = build_pack(other, tmp_path / "more")
    other.rename(tmp_path / "moved")
    os.utime(tmp_path / "moved" / "train_spectrograms" / file.name, ns=(2, 2))
    assert build_pack(tmp_path / "moved", tmp_path / "more").fingerprint == moved.fingerprint


def test_concurrent_packers_publish_one_pack(data: Path, kaggle_pack: Pack, tmp_path: Path) -> None:
    n = 3
    together = threading.Barrier(n)
    packs: list[Pack] = []

    def meet(done: int, total: int) -> None:
        if done == total:
            together.wait(60)  # all have written, and none has published

    def work() -> None:
        packs.append(build_pack(data, tmp_path, workers=1, progress=meet))

    threads = [threading.Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pack.fingerprint for pack in packs] == [kaggle_pack.fingerprint] * n
    assert [path.name for path in tmp_path.iterdir()] == [kaggle_pack.path.name]
    verify_pack(packs[0].path)


def test_slower_packer_drops_its_draft(data: Path, tmp_path: Path) -> None:
    firsts: list[int] = []

    def overtake(done: int, total: int) -> None:
        if done == total:
            first = build_pack(data, tmp_path)
            firsts.append((first.path / "values.npy").stat().st_ino)

    second = build_pack(data, tmp_path, progress=overtake)
    assert [(second.path / "values.npy").stat().st_ino] == firsts


def test_pack_stays_if_its_replacement_fails(
    data: Path, kaggle_pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build_pack(data, tmp_path).path / "values.npy"
    inode = before.stat().st_ino
    rename = os.rename
    targets: list[Path] = []

    def refuse_third(path: Path, target: Path) -> None:
        # The first attempt fails by itself, the second moves the old pack aside.
        targets.append(target)
        if len(targets) == 3:
            raise OSError(5, "Input/output error")
        rename(path, target)

    monkeypatch.setattr(os, "rename", refuse_third)
    error = refused(build_pack, data, tmp_path, rebuild=True)
    assert (error.got, error.where) == ("Input/output error", before.parent)
    assert "--pack-dir" in (error.fix or "")
    assert before.stat().st_ino == inode
    # The draft stays for the next attempt.
    (draft,) = (path for path in tmp_path.iterdir() if path != before.parent)
    assert draft.name.startswith(f".{kaggle_pack.path.name}.")
    monkeypatch.undo()
    seen: list[tuple[int, int]] = []
    build_pack(data, tmp_path, rebuild=True, progress=lambda *done: seen.append(done))
    assert seen == [(3, 3)]
    assert before.stat().st_ino != inode
    assert [path.name for path in tmp_path.iterdir()] == [kaggle_pack.path.name]


def test_old_drafts_of_killed_packers_are_removed(
    data: Path, kaggle_pack: Pack, tmp_path: Path
) -> None:
    old = tmp_path / f".{kaggle_pack.path.name}.killed"
    young = tmp_path / f".{kaggle_pack.path.name}.working"
    for draft in (old, young):
        draft.mkdir()
        (draft / "values.npy").touch()
    os.utime(old / "values.npy", (1, 1))
    os.utime(old, (1, 1))
    os.utime(young, (1, 1))  # its file is recent
    build_pack(data, tmp_path)
    assert not old.exists()
    assert young.exists()
