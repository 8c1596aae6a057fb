"""Packs: exact values, one fingerprint for equal content, reuse, two builders."""

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
from tests.refusals import AGAIN, refusal


@pytest.fixture(scope="module")
def data(two_patients: Path) -> Path:
    return two_patients


@pytest.fixture(scope="module")
def built(data: Path) -> Pack:
    """Only read."""
    return build_pack(data, default_pack_dir(data))


@pytest.fixture
def copy(data: Path, built: Pack, tmp_path: Path) -> Path:
    """A pack's folder that a test may damage."""
    return Path(shutil.copytree(built.path, tmp_path / built.path.name))


def test_log_power_is_exact() -> None:
    power = np.array([0, 1e-9, np.exp(-4), 1, 2, np.exp(8), 1e7, np.inf, np.nan, -1], np.float32)
    expected = [-4, -4, -4, 0, np.float16(np.log(2)), 8, 8, 8, np.nan, -4]
    values = log_power(power)
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values, np.array(expected, np.float16))


def test_values_are_the_log_of_every_recording(data: Path, built: Pack) -> None:
    assert built.values.dtype == np.float16
    assert built.values.shape == (built.recordings["length"].sum(), 400)
    assert built.recordings.index.tolist() == [40_002, 40_003, 41_000]
    for number, (offset, length, n_missing) in built.recordings.iterrows():
        power = read_spectrogram(spectrogram_path(data, int(number)))
        assert len(power) == length
        expected = np.log(np.clip(power.astype(np.float64), np.exp(-4), np.exp(8)))
        found = built.values[offset : offset + length]
        np.testing.assert_array_equal(found, expected.astype(np.float16))
        assert n_missing == np.isnan(power).sum()
        np.testing.assert_array_equal(
            built.missing[offset : offset + length], np.isnan(power).sum(axis=1)
        )
    assert np.isnan(built.values).any()


def test_what_a_pack_says_of_itself(data: Path, built: Pack) -> None:
    assert built.path == pack_path(data / "packed")
    assert built.path.name.startswith("kaggle-")
    assert sorted(file.name for file in built.path.iterdir()) == [
        "manifest.json",
        "missing.npy",
        "recordings.parquet",
        "values.npy",
    ]
    assert (built.source, built.panels) == ("kaggle", ("LL", "RL", "LP", "RP"))
    assert (built.n_frequencies, built.window, built.step_s) == (100, 300, 2)
    assert (built.recipe["low"], built.recipe["high"]) == (-4.0, 8.0)
    assert len(built.fingerprint) == 64


def test_windows_are_found(data: Path, built: Pack) -> None:
    rows = make_rows(read_labels(data))
    first = built.locate(rows["spectrogram_id"], rows["spectrogram_start"])
    assert first.dtype == np.int64
    for position, row in zip(first, rows.itertuples(), strict=True):
        power = read_spectrogram(spectrogram_path(data, row.spectrogram_id))
        start = row.spectrogram_start
        np.testing.assert_array_equal(
            built.values[position : position + 300], log_power(power[start : start + 300])
        )
    assert built.locate([], []).shape == (0,)


def test_windows_that_leave_their_recording(built: Pack) -> None:
    length = int(built.recordings["length"][41_000])
    assert built.locate([41_000], [length - 300]).shape == (1,)
    fix = "See what is wrong with: hms-ray check DIR"
    assert refusal(built.locate, [40_002, 41_000], [0, length - 299]) == (
        f"a row's window must lie within its recording, got positions {length - 299} to "
        f"{length + 1} of {length}, in kaggle recording 41000. {fix}"
    )
    assert refusal(built.locate, [41_000], [-1]) == (
        f"a row's window must lie within its recording, got positions -1 to 299 of {length}, "
        f"in kaggle recording 41000. {fix}"
    )


def test_unknown_recordings(built: Pack) -> None:
    assert refusal(built.locate, [40_002, 5, 5, 6], [0, 0, 0, 0]) == (
        f"a row's recording must be in the pack of kaggle, got 5 and 1 more, in {built.path}. "
        + AGAIN
    )
    with pytest.raises(ValueError, match="two lists"):
        built.locate([40_002], [0, 1])


def test_pickles_as_its_path(built: Pack) -> None:
    data = pickle.dumps(built)
    assert len(data) < 1_000
    again = pickle.loads(data)
    assert again.fingerprint == built.fingerprint
    assert isinstance(again.values, np.memmap)


def test_values_are_mapped_and_the_file_is_safe(copy: Path) -> None:
    pack = open_pack(copy)
    assert isinstance(pack.values, np.memmap)
    assert pack.values.mode == "c"
    pack.values[:] = 0  # in this process only
    assert open_pack(copy).values.any()
    verify_pack(copy)


def test_asked_again_it_is_reused(data: Path, tmp_path: Path) -> None:
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


def test_any_number_of_workers_gives_the_same(data: Path, built: Pack, tmp_path: Path) -> None:
    packs = [build_pack(data, tmp_path / str(n), workers=n) for n in (1, 2, 5)]
    assert {pack.fingerprint for pack in packs} == {built.fingerprint}
    files = {(pack.path / "values.npy").read_bytes() for pack in packs}
    assert len(files) == 1


def test_a_copied_folder_has_the_same_fingerprint(data: Path, built: Pack, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(data / "train_spectrograms", copied / "train_spectrograms")
    for file in (copied / "train_spectrograms").iterdir():
        os.utime(file, (1, 1))
    assert build_pack(copied, tmp_path).fingerprint == built.fingerprint


def test_changed_inputs_are_packed_again(data: Path, built: Pack, tmp_path: Path) -> None:
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
    # Whoever trains on the old one goes on with what it opened.
    np.testing.assert_array_equal(still_open, built.values)
    assert [path.name for path in tmp_path.iterdir() if path != changed] == [first.path.name]


def test_a_folder_of_packs_serves_one_competition_folder(data: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(data, tmp_path / "other", ignore=lambda *_: ["packed"]))
    file = next((other / "train_spectrograms").iterdir())
    packs = tmp_path / "packs"
    first = build_pack(data, packs)
    os.utime(file, ns=(1, 1))
    text = refusal(build_pack, other, packs)
    assert text == (
        f"a folder of packs must be of one competition folder, got packs of {data.resolve()}, "
        f"in {packs}. Name another folder with --pack-dir DIR."
    )
    assert open_pack(first.path).fingerprint == first.fingerprint
    # Packs that were copied with their folder are the copy's.
    shutil.copytree(packs, default_pack_dir(other))
    assert build_pack(other, default_pack_dir(other)).path.is_relative_to(other)
    # A folder that is gone or was moved keeps nobody from its packs.
    moved = build_pack(other, tmp_path / "more")
    other.rename(tmp_path / "moved")
    os.utime(tmp_path / "moved" / "train_spectrograms" / file.name, ns=(2, 2))
    assert build_pack(tmp_path / "moved", tmp_path / "more").fingerprint == moved.fingerprint


def test_two_builders_at_once(data: Path, built: Pack, tmp_path: Path) -> None:
    n = 3
    together = threading.Barrier(n)
    packs: list[Pack] = []

    def meet(done: int, total: int) -> None:
        if done == total:
            together.wait(60)  # all have written, none has published

    def work() -> None:
        packs.append(build_pack(data, tmp_path, workers=1, progress=meet))

    threads = [threading.Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pack.fingerprint for pack in packs] == [built.fingerprint] * n
    assert [path.name for path in tmp_path.iterdir()] == [built.path.name]
    verify_pack(packs[0].path)


def test_the_second_builder_drops_its_copy(data: Path, tmp_path: Path) -> None:
    firsts: list[int] = []

    def overtake(done: int, total: int) -> None:
        if done == total:
            first = build_pack(data, tmp_path)
            firsts.append((first.path / "values.npy").stat().st_ino)

    second = build_pack(data, tmp_path, progress=overtake)
    assert [(second.path / "values.npy").stat().st_ino] == firsts


def test_a_pack_that_cannot_be_replaced_stays(
    data: Path, built: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert refusal(build_pack, data, tmp_path, rebuild=True) == (
        f"a pack must be written whole, got Input/output error, in {before.parent}. "
        "Name another folder with --pack-dir DIR."
    )
    assert before.stat().st_ino == inode
    # What was written waits for the next attempt.
    (draft,) = (path for path in tmp_path.iterdir() if path != before.parent)
    assert draft.name.startswith(f".{built.path.name}.")
    monkeypatch.undo()
    seen: list[tuple[int, int]] = []
    build_pack(data, tmp_path, rebuild=True, progress=lambda *done: seen.append(done))
    assert seen == [(3, 3)]
    assert before.stat().st_ino != inode
    assert [path.name for path in tmp_path.iterdir()] == [built.path.name]


def test_drafts_of_killed_builders_are_removed(data: Path, built: Pack, tmp_path: Path) -> None:
    old = tmp_path / f".{built.path.name}.killed"
    young = tmp_path / f".{built.path.name}.working"
    for draft in (old, young):
        draft.mkdir()
        (draft / "values.npy").touch()
    os.utime(old / "values.npy", (1, 1))
    os.utime(old, (1, 1))
    os.utime(young, (1, 1))  # its file is young
    build_pack(data, tmp_path)
    assert not old.exists()
    assert young.exists()
