"""Packs of EEG windows: exact values, lookups, gaps, windows without signal, errors."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.read import eeg_path, read_eeg, read_labels
from hms_ray.competition.rows import make_rows
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.pack import plan
from hms_ray.pack.build import build_pack, find_pack, pack_path
from hms_ray.pack.eeg import make_values
from hms_ray.pack.make import signal_facts
from hms_ray.pack.sources import KAGGLE, PackSource, eeg_source
from hms_ray.pack.store import Pack, open_pack
from hms_ray.pack.verify import verify_pack
from hms_ray.pack.windows import Windows, distinct_windows
from tests.competition_folder import eeg_values, write_competition_folder, write_eeg
from tests.refused import refused

MEL = eeg_source("eeg", EegRecipe())
# The gap of this EEG's file: samples 1,000 to 1,199 of three channels.
GAPPED = 500_007


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four EEGs, some with gaps; only read."""
    folder = write_competition_folder(tmp_path_factory.mktemp("data") / "competition", n_patients=2)
    rng = np.random.default_rng(5)
    values = eeg_values(rng, 12_000)
    values[1_000:1_200, :3] = np.nan
    values[1_300, 4] = np.inf
    write_eeg(eeg_path(folder, GAPPED), values)
    return folder


WINDOWS = Windows(
    np.array([500_000, GAPPED, GAPPED, GAPPED, 500_014]), np.array([0, 0, 1_100, 2_000, 0])
)


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Five windows of three EEGs; only read."""
    return build_pack(data, tmp_path_factory.mktemp("packs"), MEL, WINDOWS, workers=1)


def made_alone(source: PackSource, data: Path, number: int, start: int) -> np.ndarray:
    eeg = read_eeg(eeg_path(data, number))[start : start + 10_000]
    assert source.eeg_recipe is not None
    return make_values(source.eeg_recipe, np.ascontiguousarray(eeg)[None])[0]


def test_windows_of_rows_are_distinct_and_sorted(data: Path) -> None:
    rows = make_rows(read_labels(data), "label")
    windows = distinct_windows(pd.concat([rows, rows]).sample(frac=1, random_state=1))
    pairs = list(zip(windows.eeg_ids.tolist(), windows.starts.tolist(), strict=True))
    assert pairs == sorted(set(zip(rows["eeg_id"], rows["eeg_start"], strict=True)))
    assert windows.digest != WINDOWS.digest
    assert len(windows.digest) == 64


def test_invalid_windows_are_refused() -> None:
    error = refused(Windows, np.array([7, 7]), np.array([-2, 0]))
    assert (error.got, error.where) == ("sample -2", "EEG 7")
    assert "hms-ray check" in (error.fix or "")
    error = refused(Windows, np.array([], np.int64), np.array([], np.int64))
    assert "at least one window" in error.rule
    with pytest.raises(ValueError, match="distinct and sorted"):
        Windows(np.array([7, 7]), np.array([4, 4]))


def test_packed_windows_equal_windows_made_alone(data: Path, built: Pack) -> None:
    assert built.values.shape == (5 * 256, 4 * 128)
    assert (built.kind, built.window, built.n_samples) == ("windows", 256, 10_000)
    first = built.locate(WINDOWS.eeg_ids, WINDOWS.starts)
    assert first.tolist() == [0, 256, 512, 768, 1_024]
    for number, start, at in zip(WINDOWS.eeg_ids, WINDOWS.starts, first, strict=True):
        np.testing.assert_array_equal(
            built.values[at : at + 256], made_alone(MEL, data, int(number), int(start))
        )


def test_attributes_of_a_pack_of_windows(built: Pack) -> None:
    assert built.path.name.startswith("eeg-")
    assert sorted(file.name for file in built.path.iterdir()) == [
        *("manifest.json", "recordings.parquet", "values.npy")
    ]
    assert built.recordings.columns.tolist() == [
        *("start", "offset", "length", "n_missing", "usable")
    ]
    assert built.panels == ("LL", "LP", "RL", "RP")


def test_raw_source_is_packed(data: Path, tmp_path: Path) -> None:
    source = eeg_source("raw", RawRecipe())
    pack = build_pack(data, tmp_path, source, WINDOWS, workers=1)
    assert (len(pack.panels), pack.n_frequencies, pack.window) == (18, 1, 5_000)
    (at,) = pack.locate([GAPPED], [1_100])
    np.testing.assert_array_equal(
        pack.values[at : at + 5_000], made_alone(source, data, GAPPED, 1_100)
    )


def test_gaps_are_counted_before_they_are_filled(built: Pack) -> None:
    # 200 samples of three channels and an infinite one; then half of the gap; then none.
    assert built.recordings["n_missing"].tolist()[1:4] == [601, 301, 0]
    share = built.missing_share([GAPPED, GAPPED], [1_100, 0])
    np.testing.assert_allclose(share, [301 / 190_000, 601 / 190_000], rtol=1e-12)
    assert np.isfinite(built.values).all()
    manifest = json.loads((built.path / "manifest.json").read_text())
    assert manifest["missing"]["n_unusable"] == 0
    assert manifest["missing"]["n_with_gaps"] == (built.recordings["n_missing"] > 0).sum()


def test_gaps_outside_the_used_samples_do_not_count(data: Path, tmp_path: Path) -> None:
    centre = eeg_source("eeg", EegRecipe(centre_s=10))
    pack = build_pack(data, tmp_path, centre, WINDOWS, workers=1)
    assert pack.n_samples == 2_000
    assert pack.recordings["n_missing"].tolist()[1:4] == [0, 0, 0]


def test_rows_without_signal_are_listed_and_stored_as_zeros(data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    flat = np.full((12_000, 20), 3.0, np.float32)
    flat[:, 5] = np.nan
    flat[:, 19] = np.arange(12_000)  # the EKG does not count as signal
    flat[10_500:, 7] = 4.0
    write_eeg(eeg_path(folder, GAPPED), flat)
    source = eeg_source("eeg", EegRecipe(kind="mel_fixed"))
    pack = build_pack(folder, tmp_path / "packs", source, WINDOWS, workers=1)
    ids, starts = WINDOWS.eeg_ids, WINDOWS.starts
    assert pack.usable(ids, starts).tolist() == [True, False, True, True, True]
    assert np.flatnonzero(~pack.usable(ids[::-1], starts[::-1])).tolist() == [3]
    at = int(pack.locate([GAPPED], [0])[0])
    assert not pack.values[at : at + pack.window].any()
    assert pack.missing_share([GAPPED], [0])[0] == pytest.approx(1 / 19)
    manifest = json.loads((pack.path / "manifest.json").read_text())
    assert manifest["missing"]["n_unusable"] == 1
    assert manifest["missing"]["first_unusable"] == [[GAPPED, 0]]


def test_missing_samples_and_signal_of_a_window() -> None:
    pairs = [(0, 4), (4, 5)]

    def facts() -> tuple[int, bool]:
        return signal_facts(window, pairs)

    window = np.zeros((100, 20), np.float32)
    assert facts() == (0, False)
    window[:, 19] = np.arange(100)  # the EKG is in no pair
    window[:, 0] = window[:, 4] = np.arange(100)  # equal at both electrodes: no signal
    window[:, 5] = window[:, 4] + 3
    assert facts() == (0, False)
    window[3, 4] += 1
    assert facts() == (0, True)
    window[:, :19] = np.nan
    assert facts() == (1_900, False)
    window[5:7, 4] = (1, 2)  # varies, but the other electrode is missing
    assert facts() == (1_898, False)
    window[5:7, 5] = (0, 0)
    assert facts() == (1_896, True)


def test_windows_absent_from_the_pack_are_refused(built: Pack) -> None:
    for call in (built.locate, built.missing_share, built.usable):
        error = refused(call, [500_000, GAPPED, 9], [0, 1_101, 0])
        assert error.rule == "a row's window must be in the pack of eeg"
        assert error.got == f"EEG {GAPPED} from sample 1101 and 1 more"
        assert error.where == built.path
        assert "--space FILE" in (error.fix or "")
    assert built.locate([], []).shape == (0,)


def test_windows_and_recipes_determine_the_pack(data: Path, built: Pack, tmp_path: Path) -> None:
    fewer = Windows(WINDOWS.eeg_ids[:2], WINDOWS.starts[:2])
    assert find_pack(data, built.path.parent, MEL, WINDOWS) is not None
    assert find_pack(data, built.path.parent, MEL, fewer) is None
    names = {
        pack_path(tmp_path, source, windows).name
        for source in (MEL, eeg_source("eeg", EegRecipe(gaps="zero")))
        for windows in (WINDOWS, fewer)
    }
    assert len(names) == 4
    other = build_pack(data, tmp_path, MEL, fewer, workers=1)
    np.testing.assert_array_equal(other.values, built.values[: 2 * 256])
    assert other.fingerprint != built.fingerprint


def test_only_needed_files_are_read(data: Path, built: Pack, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    for file in (folder / "train_eegs").iterdir():
        if int(file.stem) not in set(WINDOWS.eeg_ids.tolist()):
            file.write_bytes(b"")
    pack = build_pack(folder, tmp_path, MEL, WINDOWS, workers=1)
    assert pack.fingerprint == built.fingerprint
    missing = eeg_path(folder, 500_014)
    missing.unlink()
    error = refused(build_pack, folder, tmp_path, MEL, WINDOWS)
    assert (error.rule, error.where) == ("a recording's file must exist", missing)


def test_number_of_shards_does_not_change_values(
    data: Path, built: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 2)
    pack = build_pack(data, tmp_path, MEL, WINDOWS, workers=1)
    np.testing.assert_array_equal(pack.values, built.values)
    pd.testing.assert_frame_equal(pack.recordings, built.recordings)
    shards = json.loads((pack.path / "manifest.json").read_text())["shards"]
    assert [(shard["first"], shard["n"]) for shard in shards] == [
        (0, 512),
        (512, 512),
        (1_024, 256),
    ]


def test_verification_names_shard_and_windows(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 2)
    pack = build_pack(data, tmp_path, MEL, WINDOWS, workers=1)
    file = pack.path / "values.npy"
    with file.open("r+b") as stream:
        stream.seek(128 + 600 * 1_024)
        stream.write(b"\1\1")
    open_pack(pack.path)
    error = refused(verify_pack, pack.path)
    assert "checksum" in error.rule
    assert error.where == f"{file}, shard 1: 2 windows of EEGs {GAPPED}"
    assert "--rebuild" in (error.fix or "")


def test_short_eeg_is_refused(data: Path, tmp_path: Path) -> None:
    windows = Windows(np.array([500_000, GAPPED]), np.array([0, 2_001]))
    file = eeg_path(data, GAPPED)
    error = refused(build_pack, data, tmp_path, MEL, windows, workers=1)
    assert error.rule == "a row's window must lie within its EEG"
    assert error.got == "samples 2001 to 12001 of 12000"
    assert error.where == f"EEG {GAPPED}, window from 2001: {file}"
    assert list(tmp_path.iterdir()) == []


def test_file_that_changes_during_packing_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 1)
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    file = eeg_path(folder, 500_014)

    def change(done: int, total: int) -> None:
        if done == 1:
            os.utime(file, (1, 1))

    error = refused(
        build_pack, folder, tmp_path / "packs", MEL, WINDOWS, workers=1, progress=change
    )
    assert (error.rule, error.where) == ("a file must not change while it is packed", file)
    assert list((tmp_path / "packs").iterdir()) == []


def test_windows_are_required_exactly_by_sources_of_windows(data: Path, tmp_path: Path) -> None:
    for source, windows in ((MEL, None), (KAGGLE, WINDOWS)):
        with pytest.raises(ValueError, match=f"sources of windows only, got {source.name}"):
            build_pack(data, tmp_path, source, windows)


@pytest.mark.parametrize(
    "source", [KAGGLE, MEL, eeg_source("raw", RawRecipe())], ids=lambda s: s.name
)
def test_sources_pickle(source: PackSource) -> None:
    assert pickle.loads(pickle.dumps(source)) == source
