"""Damaged packs, and inputs that cannot be packed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hms_ray.pack import build
from hms_ray.pack.build import build_pack, find_pack
from hms_ray.pack.store import open_pack
from hms_ray.pack.verify import verify_pack
from tests.refused import refused


@pytest.fixture(scope="module")
def data(two_patients: Path) -> Path:
    return two_patients


def test_damaged_pack_is_rebuilt(data: Path, tmp_path: Path) -> None:
    pack = build_pack(data, tmp_path)
    os.truncate(pack.path / "values.npy", 1_000)
    assert find_pack(data, tmp_path) is None
    assert build_pack(data, tmp_path).fingerprint == pack.fingerprint
    (pack.path / "manifest.json").unlink()
    assert build_pack(data, tmp_path).fingerprint == pack.fingerprint
    verify_pack(pack.path)


def test_failed_build_leaves_nothing(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data / "train_spectrograms", broken / "train_spectrograms")
    file = broken / "train_spectrograms" / "40003.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:50] + b"\xff" * 100_000 + whole[100_050:])
    for workers in (1, 2):
        error = refused(build_pack, broken, tmp_path / "packs", workers=workers)
        assert (error.got, error.where) == ("a truncated or damaged one", file)
        assert list((tmp_path / "packs").iterdir()) == []


def test_truncated_recording_is_named_before_anything_is_written(
    data: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data / "train_spectrograms", broken / "train_spectrograms")
    file = broken / "train_spectrograms" / "40003.parquet"
    os.truncate(file, 10_000)
    error = refused(build_pack, broken, tmp_path / "packs")
    assert (error.got, error.where) == ("a truncated or damaged one", file)
    assert not (tmp_path / "packs").exists()


def test_missing_pack_is_refused(tmp_path: Path) -> None:
    error = refused(open_pack, tmp_path / "none")
    assert (error.rule, error.where) == ("a pack must exist", tmp_path / "none")
    assert "hms-ray pack DIR" in (error.fix or "")


def test_truncated_and_missing_files_are_refused(pack_copy: Path) -> None:
    values = pack_copy / "values.npy"
    size = values.stat().st_size
    os.truncate(values, size - 2)
    error = refused(open_pack, pack_copy)
    assert f"{size:,} bytes" in error.rule
    assert (error.got, error.where) == (f"{size - 2:,}", values)
    assert "--rebuild" in (error.fix or "")
    values.unlink()
    error = refused(open_pack, pack_copy)
    assert (error.rule, error.where) == ("a pack's file must exist", values)


def test_other_formats_and_damaged_manifests_are_refused(pack_copy: Path) -> None:
    file = pack_copy / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"format": 1}))
    error = refused(open_pack, pack_copy)
    assert (error.rule, error.got, error.where) == ("a pack must be of format 2", "1", file)
    assert "--rebuild" in (error.fix or "")
    file.write_text(json.dumps({"format": 2, **{k: manifest[k] for k in ("source", "recipe")}}))
    error = refused(open_pack, pack_copy)
    assert str(error.got).startswith("no kind, fingerprint, panels, n_frequencies, window, step_s")
    file.write_text("{")
    assert (
        refused(open_pack, pack_copy).rule == error.rule == "a pack must be complete and unchanged"
    )


def test_verification_finds_changed_values(pack_copy: Path) -> None:
    verify_pack(pack_copy)
    values = pack_copy / "values.npy"
    with values.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\0\0")
    open_pack(pack_copy)
    error = refused(verify_pack, pack_copy)
    assert "checksum" in error.rule
    assert str(error.got).startswith("SHA-256 ")
    assert error.where == f"{values}, shard 0: recordings 40002, 40003, 41000"


def test_verification_finds_a_changed_fingerprint(pack_copy: Path) -> None:
    file = pack_copy / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
    error = refused(verify_pack, pack_copy)
    assert (error.got, error.where) == ("a fingerprint of other content", pack_copy)


def test_invalid_inputs_are_refused(tmp_path: Path) -> None:
    error = refused(build_pack, tmp_path, tmp_path)
    assert "train_spectrograms/" in error.rule
    assert error.where == tmp_path
    directory = tmp_path / "train_spectrograms"
    directory.mkdir()
    error = refused(build_pack, tmp_path, tmp_path)
    assert "must not be empty" in error.rule
    assert error.where == directory
    (directory / "._1.parquet").touch()  # written by macOS: not a recording
    (directory / "first.parquet").touch()
    error = refused(build_pack, tmp_path, tmp_path)
    assert (error.got, error.where) == ("first.parquet", directory)


def test_unwritable_folder_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refused(build_pack, data, tmp_path / "file" / "packs")
    assert (error.got, error.where) == ("Not a directory", tmp_path / "file" / "packs")
    assert "--pack-dir" in (error.fix or "")


def test_full_disk_is_refused_before_writing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: usage._replace(free=5_000))
    error = refused(build_pack, data, tmp_path)
    assert "free space" in error.rule
    assert (error.got, error.where) == ("0.00 GB", tmp_path)
    assert "--pack-dir" in (error.fix or "")
    assert list(tmp_path.iterdir()) == []
