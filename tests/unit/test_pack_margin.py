"""Packs with a margin: unshifted windows, strips, room, killed packers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hms_ray.competition.read import eeg_path, read_eeg, read_spectrogram
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe
from hms_ray.dataset.sources import source_key
from hms_ray.pack import parallel, plan
from hms_ray.pack.build import build_pack
from hms_ray.pack.sources import eeg_source, log_power
from hms_ray.pack.store import Pack, open_pack
from hms_ray.pack.verify import verify_pack
from hms_ray.pack.windows import Windows
from hms_ray.signal.strip import make_strip
from tests.competition_folder import eeg_values, write_competition_folder, write_eeg
from tests.killed_packer import BETWEEN_SHARDS, WITHIN_A_SHARD, content, kill_packer

LONG, SHORT = 500_007, 500_014
WINDOWS = Windows(np.array([LONG, LONG, LONG, LONG, SHORT]), np.array([0, 300, 1_500, 2_400, 0]))
NAMES = ["mel", "mel_fixed", "multitaper", "stft", "pairs", "raw"]


def recipe(kind: str, margin_s: float, **options: float) -> SignalRecipe:
    values = {"margin_s": margin_s, **options}
    if kind == "raw":
        return RawRecipe.model_validate(values)
    if kind == "pairs":
        return PairsRecipe.model_validate(values)
    return EegRecipe.model_validate({"kind": kind, **values})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An EEG of 62 s with gaps and one of 50 s; only read."""
    folder = write_competition_folder(tmp_path_factory.mktemp("data") / "competition", n_patients=2)
    rng = np.random.default_rng(5)
    values = eeg_values(rng, 12_400)
    values[1_000:1_200, :3] = np.nan
    values[11_900:, 5] = np.inf
    write_eeg(eeg_path(folder, LONG), values)
    write_eeg(eeg_path(folder, SHORT), eeg_values(rng, 10_000))
    return folder


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Pack, Pack]]:
    """For each kind of recipe, a pack without and one with a margin of 4 s."""
    folder = tmp_path_factory.mktemp("packs")
    return {
        kind: tuple(  # type: ignore[misc]
            build_pack(data, folder, _source(kind, margin_s), WINDOWS, workers=1)
            for margin_s in (0.0, 4.0)
        )
        for kind in NAMES
    }


def _source(kind: str, margin_s: float) -> plan.PackSource:
    return eeg_source(kind if kind in ("pairs", "raw") else "eeg", recipe(kind, margin_s))


def window(pack: Pack, at: int) -> np.ndarray:
    return np.asarray(pack.values[at : at + pack.window])


@pytest.mark.parametrize("kind", NAMES)
def test_unshifted_windows_do_not_depend_on_the_margin(
    kind: str, built: dict[str, tuple[Pack, Pack]]
) -> None:
    without, padded = built[kind]
    places = without.locate(WINDOWS.eeg_ids, WINDOWS.starts)
    for before, after in zip(places, padded.locate(WINDOWS.eeg_ids, WINDOWS.starts), strict=True):
        np.testing.assert_array_equal(window(padded, after), window(without, before))
    for pack in built[kind]:
        shares = pack.missing_share(WINDOWS.eeg_ids, WINDOWS.starts)
        np.testing.assert_allclose(shares * 190_000, [600, 600, 0, 500, 0], atol=1e-6)
    assert (without.margin, padded.margin) == (0, round(4 / padded.step_s))
    assert padded.fingerprint != without.fingerprint


@pytest.mark.parametrize("kind", NAMES)
def test_shifted_windows_are_slices_of_the_strip(
    kind: str, data: Path, built: dict[str, tuple[Pack, Pack]]
) -> None:
    pack = built[kind][1]
    room = pack.room(WINDOWS.eeg_ids, WINDOWS.starts)
    first = pack.locate(WINDOWS.eeg_ids, WINDOWS.starts)
    n_moved = 0
    for number, start, at, (before, after) in zip(
        WINDOWS.eeg_ids, WINDOWS.starts, first, room.tolist(), strict=True
    ):
        eeg = read_eeg(eeg_path(data, int(number)))
        eeg[~np.isfinite(eeg)] = np.nan
        strip = make_strip(torch.from_numpy(eeg), int(start), recipe(kind, 4.0))
        assert (strip.before, strip.after) == (before, after)
        whole = strip.values.permute(2, 0, 1).flatten(1).half().numpy()
        for by in {-before, -1, 1, after} - {0}:
            if -before <= by <= after:
                (moved,) = pack.moved(np.array([at]), np.array([by]))
                expected = whole[before + by : before + by + pack.window]
                np.testing.assert_array_equal(window(pack, moved), expected)
                n_moved += 1
        # Beyond the ends of the EEG all values are NaN.
        stored = pack.values[at + pack.window : at + 2 * (pack.window + pack.margin)]
        missing = np.isnan(stored).all(axis=1)
        assert missing[: pack.margin - before].all()
        assert missing[len(missing) - (pack.margin - after) :].all()
        assert not np.isnan(stored[~missing]).any()
        assert missing.sum() == 2 * pack.margin - before - after
    assert n_moved > 5
    assert pack.moved(first, np.zeros(5, np.int64)).tolist() == first.tolist()


def test_room_is_limited_by_eeg_and_margin(
    built: dict[str, tuple[Pack, Pack]],
) -> None:
    without, stft = built["stft"]
    ids, starts = WINDOWS.eeg_ids, WINDOWS.starts
    # Steps of 40 samples and a margin of 20 steps; 300 samples are 7 steps.
    assert stft.room(ids, starts).tolist() == [[0, 20], [7, 20], [20, 20], [20, 0], [0, 0]]
    assert built["multitaper"][1].room(ids, starts).tolist() == [
        *([0, 2], [0, 2], [2, 2], [2, 0], [0, 0])
    ]
    assert without.room(ids, starts).tolist() == [[0, 0]] * 5
    assert stft.recordings.columns.tolist()[-2:] == ["before", "after"]
    assert open_pack(stft.path).room(ids[::-1], starts[::-1]).tolist()[-1] == [0, 20]


def test_centred_window_can_move_within_the_50_s(data: Path, tmp_path: Path) -> None:
    source = eeg_source("eeg", EegRecipe(kind="stft", centre_s=10, margin_s=6))
    pack = build_pack(data, tmp_path, source, WINDOWS, workers=1)
    assert pack.room([SHORT], [0]).tolist() == [[30, 30]]


def test_room_of_recordings_is_limited_by_their_ends(data: Path, tmp_path: Path) -> None:
    pack = build_pack(data, tmp_path, workers=1)
    ids, lengths = pack.recordings.index.to_numpy(), pack.recordings["length"].to_numpy()
    starts = lengths - pack.window
    room = pack.room(ids, starts)
    assert room.tolist() == [[start, 0] for start in starts.tolist()]
    k = int(np.argmax(starts))
    assert starts[k] > 2
    (at,) = pack.moved(pack.locate([ids[k]], [starts[k]]), np.array([-2]))
    power = read_spectrogram(data / "train_spectrograms" / f"{ids[k]}.parquet")
    expected = log_power(power[starts[k] - 2 : starts[k] - 2 + 300])
    np.testing.assert_array_equal(window(pack, at), expected)


def test_window_without_signal_is_zeros_and_cannot_move(data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    values = np.zeros((12_400, 20), np.float32)
    values[11_000:] = eeg_values(np.random.default_rng(1), 1_400)
    write_eeg(eeg_path(folder, LONG), values)
    pack = build_pack(folder, tmp_path / "packs", _source("stft", 4), WINDOWS, workers=1)
    assert pack.usable([LONG, LONG], [300, 1_500]).tolist() == [False, True]
    assert pack.room([LONG, LONG], [300, 1_500]).tolist() == [[0, 0], [20, 20]]
    (at,) = pack.locate([LONG], [300])
    assert not pack.values[at : at + 2 * (pack.window + pack.margin)].any()


def test_golden_names_of_packs_without_margin() -> None:
    """A change of these names makes all users rebuild their packs."""
    assert source_key("eeg", EegRecipe()) == "eeg-39ecf27d1a50"
    assert source_key("raw", RawRecipe()) == "raw-70372a612e79"
    assert source_key("eeg", EegRecipe(margin_s=0.001)) == source_key("eeg", EegRecipe())
    assert source_key("eeg", EegRecipe(margin_s=1)) != source_key("eeg", EegRecipe())


def test_margin_is_in_the_manifest_only_if_set(
    built: dict[str, tuple[Pack, Pack]],
) -> None:
    without, padded = (
        json.loads((pack.path / "manifest.json").read_text()) for pack in built["mel"]
    )
    assert "margin" not in without
    assert "margin" not in without["recipe"]["made"]
    assert padded["margin"] == padded["recipe"]["made"]["margin"] == 21
    assert (padded["n_samples"], padded["window"]) == (10_000, 256)


@pytest.mark.parametrize(
    ("moment", "workers"), [(BETWEEN_SHARDS, 2), (WITHIN_A_SHARD, 1)], ids=["between", "within"]
)
def test_killed_packer_of_strips_resumes_with_identical_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, workers: int
) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 1)
    monkeypatch.setattr(parallel, "SOLO_S", 0.0)
    source = eeg_source("eeg", EegRecipe(kind="stft", margin_s=1))
    whole = build_pack(data, tmp_path / "whole", source, WINDOWS, workers=1)
    ids, starts = WINDOWS.eeg_ids.tolist(), WINDOWS.starts.tolist()
    what = (
        'eeg_source("eeg", EegRecipe(kind="stft", margin_s=1)), '
        f"Windows(np.array({ids}), np.array({starts}))"
    )
    kill_packer(data, tmp_path / "killed", moment, what)
    seen: list[tuple[int, int]] = []
    pack = build_pack(
        data,
        tmp_path / "killed",
        source,
        WINDOWS,
        workers=workers,
        progress=lambda *done: seen.append(done),
    )
    assert seen[0] == (2, 5)
    assert content(pack) == content(whole)
    assert verify_pack(pack.path).fingerprint == whole.fingerprint
