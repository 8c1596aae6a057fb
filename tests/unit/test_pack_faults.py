"""Packs that are damaged_pack, and what cannot be packed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hms_ray.pack import build
from hms_ray.pack.build import build_pack, default_pack_dir, find_pack
from hms_ray.pack.store import Pack, open_pack
from hms_ray.pack.verify import verify_pack
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


def test_a_damaged_pack_is_built_again(data: Path, tmp_path: Path) -> None:
    pack = build_pack(data, tmp_path)
    os.truncate(pack.path / "values.npy", 1_000)
    assert find_pack(data, tmp_path) is None
    assert build_pack(data, tmp_path).fingerprint == pack.fingerprint
    (pack.path / "manifest.json").unlink()
    assert build_pack(data, tmp_path).fingerprint == pack.fingerprint
    verify_pack(pack.path)


def test_a_failed_build_leaves_nothing(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data / "train_spectrograms", broken / "train_spectrograms")
    file = broken / "train_spectrograms" / "40003.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:50] + b"\xff" * 100_000 + whole[100_050:])
    for workers in (1, 2):
        message = refusal(build_pack, broken, tmp_path / "packs", workers=workers)
        assert f"got a truncated or damaged one, in {file}" in message
        assert list((tmp_path / "packs").iterdir()) == []


def test_a_cut_recording_is_named_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data / "train_spectrograms", broken / "train_spectrograms")
    file = broken / "train_spectrograms" / "40003.parquet"
    os.truncate(file, 10_000)
    message = refusal(build_pack, broken, tmp_path / "packs")
    assert f"got a truncated or damaged one, in {file}" in message
    assert not (tmp_path / "packs").exists()


def test_no_pack(tmp_path: Path) -> None:
    assert refusal(open_pack, tmp_path / "none") == (
        f"a pack must have been built, in {tmp_path / 'none'}. "
        "Build it with: hms-ray pack DIR [--space FILE]"
    )


def test_cut_and_missing_files(copy: Path) -> None:
    values = copy / "values.npy"
    size = values.stat().st_size
    os.truncate(values, size - 2)
    assert refusal(open_pack, copy) == (
        f"a pack's file must have {size:,} bytes, got {size - 2:,}, in {values}. {AGAIN}"
    )
    values.unlink()
    assert refusal(open_pack, copy) == f"a pack's file must exist, in {values}. {AGAIN}"


def test_other_formats_and_damaged_manifests(copy: Path) -> None:
    file = copy / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"format": 1}))
    assert refusal(open_pack, copy) == f"a pack must be of format 2, got 1, in {file}. {AGAIN}"
    file.write_text(json.dumps({"format": 2, **{k: manifest[k] for k in ("source", "recipe")}}))
    assert refusal(open_pack, copy) == (
        "a pack must be whole, got no kind, fingerprint, panels, n_frequencies, window, step_s, "
        f"n_samples, files, shards, input_signature, in {file}. {AGAIN}"
    )
    file.write_text("{")
    assert refusal(open_pack, copy).startswith("a pack must be whole, got ")


def test_changed_values_are_found_by_verifying(copy: Path) -> None:
    verify_pack(copy)
    values = copy / "values.npy"
    with values.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\0\0")
    open_pack(copy)
    message = refusal(verify_pack, copy)
    assert message.startswith("a pack's file must be as it was written, got SHA-256 ")
    assert message.endswith(f", in {values}, shard 0: recordings 40002, 40003, 41000. {AGAIN}")


def test_changed_fingerprint_is_found_by_verifying(copy: Path) -> None:
    file = copy / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
    assert refusal(verify_pack, copy) == (
        f"a pack must be whole, got a fingerprint of other content, in {copy}. {AGAIN}"
    )


def test_inputs_that_cannot_be_packed(data: Path, tmp_path: Path) -> None:
    assert refusal(build_pack, tmp_path, tmp_path) == (
        f"a competition folder must hold train_spectrograms/, in {tmp_path}"
    )
    directory = tmp_path / "train_spectrograms"
    directory.mkdir()
    assert refusal(build_pack, tmp_path, tmp_path) == (
        f"a folder of recordings must hold files, got none, in {directory}"
    )
    (directory / "._1.parquet").touch()  # of a Mac: no recording
    (directory / "first.parquet").touch()
    assert refusal(build_pack, tmp_path, tmp_path) == (
        f"a recording's file must be named by its id, got first.parquet, in {directory}"
    )
    assert refusal(build_pack, data, tmp_path, "ecg") == (
        "a source must be one of kaggle, eeg, raw, got ecg"
    )


def test_a_folder_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(build_pack, data, tmp_path / "file" / "packs") == (
        f"the folder of packs must be writable, got Not a directory, "
        f"in {tmp_path / 'file' / 'packs'}. Name another folder with --pack-dir DIR."
    )


def test_a_full_disk(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: usage._replace(free=5_000))
    assert refusal(build_pack, data, tmp_path) == (
        "a pack of these files needs 0.00 GB of free space, got 0.00 GB, "
        f"in {tmp_path}. Name another folder with --pack-dir DIR."
    )
    assert list(tmp_path.iterdir()) == []
