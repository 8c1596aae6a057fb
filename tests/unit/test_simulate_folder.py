"""A simulated folder: its format, its truth, its repeatability."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_ray import __version__
from hms_ray.competition.check import check_folder
from hms_ray.competition.read import (
    eeg_path,
    read_eeg,
    read_labels,
    read_spectrogram,
    spectrogram_path,
)
from hms_ray.competition.schema import (
    CLASSES,
    ELECTRODES,
    LABEL_COLUMNS,
    SPECTROGRAM_COLUMNS,
    VOTE_COLUMNS,
)
from hms_ray.errors import DataError, ResourceError
from hms_ray.signal.spectrogram import competition_spectrogram
from hms_ray.simulate import folder as module
from hms_ray.simulate import options
from hms_ray.simulate.cohort import (
    MAX_PATIENTS,
    N_TEST,
    TIER_TRUTH_COLUMNS,
    TRUTH_COLUMNS,
    TRUTH_FILE,
    Cohort,
    identifier,
    simulate_labels,
)
from hms_ray.simulate.folder import simulate_folder
from hms_ray.simulate.options import CONTROLS, PROFILE_NAMES
from hms_ray.simulate.profiles import PROFILES

N_PATIENTS = 3
# Patients with ordinary gain and few recordings, which is fast.
SEED = 9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_folder(tmp_path_factory.mktemp("one") / "data", N_PATIENTS, seed=SEED)


def parquet_files(folder: Path, pattern: str) -> Iterator[Path]:
    found = sorted(folder.glob(pattern))
    assert found
    yield from found


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_check_finds_no_fault(made: Path) -> None:
    report = check_folder(made)
    assert report.ok, report.to_text()


def test_folder_has_the_competition_files_and_the_truth(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {
        *("train.csv", "test.csv", "sample_submission.csv", "truth.parquet", "simulation.json"),
        *("train_eegs", "train_spectrograms", "test_eegs", "test_spectrograms"),
    }


def test_labels_have_the_format(made: Path) -> None:
    raw = pd.read_csv(made / "train.csv")
    assert tuple(raw.columns) == LABEL_COLUMNS
    assert raw["patient_id"].nunique() == N_PATIENTS
    assert raw["label_id"].is_unique
    assert not raw.duplicated(["eeg_id", "eeg_sub_id"]).any()
    assert not raw.duplicated(["spectrogram_id", "spectrogram_sub_id"]).any()
    assert (raw.groupby("eeg_id")["spectrogram_id"].nunique() == 1).all()
    assert (raw.groupby("eeg_id")["eeg_label_offset_seconds"].min() == 0).all()
    votes = raw[list(VOTE_COLUMNS)].to_numpy()
    assert (votes.sum(axis=1) > 0).all()
    assert [CLASSES[position] for position in votes.argmax(axis=1)] == list(raw.expert_consensus)
    for column in ("eeg_label_offset_seconds", "spectrogram_label_offset_seconds"):
        assert (raw[column] % 2 == 0).all()
        assert raw[column].dtype == np.float64


@pytest.mark.parametrize(("split", "time"), [("train", "int64"), ("test", "int16")])
def test_signal_files_have_the_format(made: Path, split: str, time: str) -> None:
    formats = {
        "eegs": (ELECTRODES, ["float"] * 20),
        "spectrograms": (("time", *SPECTROGRAM_COLUMNS), [time] + ["float"] * 400),
    }
    for name, (columns, types) in formats.items():
        for path in parquet_files(made, f"{split}_{name}/*.parquet"):
            file = pq.ParquetFile(path)
            assert file.metadata.num_row_groups == 1
            assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
            assert tuple(file.schema_arrow.names) == columns
            assert [str(field.type) for field in file.schema_arrow] == types
            if name == "spectrograms":
                seconds = file.read(["time"]).column(0).to_numpy()
                np.testing.assert_array_equal(seconds, np.arange(len(seconds)) * 2 + 1)


def test_recordings_are_as_long_as_their_offsets_require(made: Path) -> None:
    labels = read_labels(made)
    for eeg_id, last in labels.groupby("eeg_id")["eeg_label_offset_seconds"].max().items():
        assert len(read_eeg(made / f"train_eegs/{eeg_id}.parquet")) == (last + 50) * 200
    last_offsets = labels.groupby("spectrogram_id")["spectrogram_label_offset_seconds"].max()
    for spectrogram_id, last in last_offsets.items():
        path = made / f"train_spectrograms/{spectrogram_id}.parquet"
        assert len(read_spectrogram(path)) * 2 == last + 600


def test_eeg_file_matches_its_part_of_the_spectrogram(made: Path) -> None:
    labels = read_labels(made)
    for eeg_id, rows in labels.groupby("eeg_id"):
        first = rows.iloc[0]
        eeg = read_eeg(made / f"train_eegs/{eeg_id}.parquet")
        whole = read_spectrogram(made / f"train_spectrograms/{first.spectrogram_id}.parquet")
        lead = first.spectrogram_label_offset_seconds - first.eeg_label_offset_seconds + 275
        part = competition_spectrogram(eeg)
        start = int((lead + 1) // 2)
        stored = whole[start : start + len(part)]
        inner = slice(2, -2)
        near = (part[inner] > 0.1) & (stored[inner] > 0.1)
        residual = np.abs(np.log(part[inner][near] / stored[inner][near]))
        assert np.median(residual) < 0.005


def test_test_set_has_the_format(made: Path) -> None:
    test = pd.read_csv(made / "test.csv")
    submission = pd.read_csv(made / "sample_submission.csv")
    assert list(test.columns) == ["spectrogram_id", "eeg_id", "patient_id"]
    assert len(test) == N_TEST
    assert list(submission.columns) == ["eeg_id", *VOTE_COLUMNS]
    assert submission["eeg_id"].tolist() == test["eeg_id"].tolist()
    np.testing.assert_allclose(submission[list(VOTE_COLUMNS)], 1 / 6, rtol=1e-12)
    for row in test.itertuples():
        assert len(read_eeg(eeg_path(made, row.eeg_id, "test"))) == 10_000
        assert len(read_spectrogram(spectrogram_path(made, row.spectrogram_id, "test"))) == 300
    assert not set(test["patient_id"]) & set(pd.read_csv(made / "train.csv")["patient_id"])


def test_truth_has_one_line_per_label_row(made: Path) -> None:
    truth = pd.read_parquet(made / "truth.parquet")
    labels = read_labels(made)
    keys = ["eeg_id", "eeg_sub_id"]
    assert not truth.duplicated(keys).any()
    both = labels.merge(truth, on=keys, how="outer", indicator=True)
    assert (both["_merge"] == "both").all()
    totals = both[list(VOTE_COLUMNS)].sum(axis=1)
    for tier, columns in TIER_TRUTH_COLUMNS.items():
        own = both[both["tier"] == tier]
        np.testing.assert_array_equal(own[list(columns)], own[list(TRUTH_COLUMNS)])
        np.testing.assert_allclose(both[list(columns)].sum(axis=1), 1, atol=1e-9)
    names = pd.cut(totals, [0, 3, 9, 99], labels=["1-3", "4-9", ">=10"]).astype(str)
    assert names.tolist() == both["tier"].tolist()


def test_spectrograms_have_the_real_scale(made: Path) -> None:
    files = parquet_files(made, "train_spectrograms/*.parquet")
    logs = [np.log(np.clip(read_spectrogram(f), np.exp(-4), np.exp(8))) for f in files]
    values = np.concatenate([log.ravel() for log in logs])
    # Real data: -0.08 and 1.91. The gain of a few patients varies, so the bounds are wide.
    assert abs(np.nanmean(values)) < 1.2
    assert 1.4 < np.nanstd(values) < 2.5


def test_two_processes_write_the_same_bytes(made: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    other = simulate_folder(
        tmp_path / "data", N_PATIENTS, SEED, processes=2, progress=lambda *call: calls.append(call)
    )
    assert contents(other) == contents(made)
    total = N_PATIENTS + N_TEST
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_first_patients_depend_on_the_seed_but_not_on_their_number(
    made: Path, tmp_path: Path
) -> None:
    one = contents(simulate_folder(tmp_path / "one", 1, seed=SEED))
    whole = contents(made)
    signals = [name for name in one if name.startswith("train_")]
    assert len(signals) >= 2
    assert all(one[name] == whole[name] for name in signals)
    other = contents(simulate_folder(tmp_path / "other", 1, seed=6))
    assert not set(other.values()) & set(one.values())


def test_folder_with_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"new or empty, got a folder with 1 file") as caught:
        simulate_folder(tmp_path, 1, seed=0)
    assert caught.value.where == tmp_path
    assert "another --out" in str(caught.value.fix)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_file_as_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="must be a folder, got a file"):
        simulate_folder(tmp_path / "file", 1, seed=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_patients": 0}, "patients must be 1 to 60000, got 0"),
        ({"n_patients": 60_001}, "patients must be 1 to 60000, got 60001"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"processes": 0}, "processes must be at least 1, got 0"),
        ({"n_signals": 3}, "recordings must be 0 to 2, got 3"),
        ({"n_signals": -1}, "recordings must be 0 to 2, got -1"),
        ({"profile": "large"}, "one of small, competition, got large"),
        ({"controls": ["gain"]}, "one of permuted_votes, .*, shuffled_montage, got gain"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, given: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        simulate_folder(tmp_path / "data", **{"n_patients": 2, "seed": 0, **given})
    assert not list(tmp_path.iterdir())


def test_failed_simulation_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "_write_recording", fail)
    with pytest.raises(OSError, match="no space left"):
        simulate_folder(tmp_path / "data", 1, seed=0)
    assert not list(tmp_path.iterdir())


def test_labels_are_the_same_with_and_without_signals(made: Path) -> None:
    labels, truth = simulate_labels(N_PATIENTS, Cohort(SEED))
    pd.testing.assert_frame_equal(labels, pd.read_csv(made / "train.csv"), check_dtype=False)
    pd.testing.assert_frame_equal(truth, pd.read_parquet(made / "truth.parquet"))


def test_a_shuffled_montage_stores_electrodes_under_each_others_names(
    made: Path, tmp_path: Path
) -> None:
    """The same signals and votes, with one order of electrodes per patient."""
    shuffled = simulate_folder(tmp_path / "data", 2, SEED, controls=["shuffled_montage"])
    labels = pd.read_csv(shuffled / "train.csv")
    pd.testing.assert_frame_equal(labels, read_labels(made).iloc[: len(labels)], check_dtype=False)
    scalp = [name for name in ELECTRODES if name != "EKG"]
    orders = set()
    for _, eeg_ids in labels.groupby("patient_id")["eeg_id"]:
        found = set()
        for eeg_id in eeg_ids.unique():
            stored, own = (pd.read_parquet(eeg_path(place, eeg_id)) for place in (shuffled, made))
            pd.testing.assert_series_equal(stored["EKG"], own["EKG"])
            columns = {own[name].to_numpy().tobytes(): name for name in scalp}
            found.add(tuple(columns[stored[name].to_numpy().tobytes()] for name in scalp))
        assert len(found) == 1
        orders |= found
    assert len(orders | {tuple(scalp)}) == 3


def test_manifest_describes_the_simulation(made: Path) -> None:
    assert json.loads((made / "simulation.json").read_text()) == {
        "version": __version__,
        "seed": SEED,
        "profile": "small",
        "patients": N_PATIENTS,
        "signals": N_PATIENTS,
        "controls": [],
    }


def test_training_does_not_read_truth_and_manifest() -> None:
    package = Path(module.__file__).parents[1]
    # Pages say that data are simulated; nothing is trained there.
    others = {"simulate", "report"}
    files = [file for file in package.rglob("*.py") if file.parent.name not in others]
    assert len(files) > 50
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert TRUTH_FILE not in text, file
        assert module.MANIFEST_FILE not in text, file


def test_fewer_signals_than_patients(made: Path, tmp_path: Path) -> None:
    some = simulate_folder(tmp_path / "some", N_PATIENTS, seed=SEED, n_signals=1)
    assert check_folder(some).ok
    whole = pd.read_csv(made / "train.csv")
    pd.testing.assert_frame_equal(pd.read_csv(some / "labels.csv"), whole)
    first = whole[whole["patient_id"] == whole["patient_id"].iloc[0]]
    pd.testing.assert_frame_equal(pd.read_csv(some / "train.csv"), first)
    assert (some / "truth.parquet").read_bytes() == (made / "truth.parquet").read_bytes()
    for path in (some / "train_eegs").iterdir():
        assert path.read_bytes() == (made / "train_eegs" / path.name).read_bytes()


def test_labels_without_signals(tmp_path: Path) -> None:
    folder = simulate_folder(
        tmp_path / "data", 3, 0, profile="competition", controls=["constant_gain"], n_signals=0
    )
    names = {path.name for path in folder.iterdir()}
    assert names == {"labels.csv", "truth.parquet", "simulation.json"}
    manifest = json.loads((folder / "simulation.json").read_text())
    assert manifest["profile"] == "competition"
    assert manifest["controls"] == ["constant_gain"]
    assert manifest["signals"] == 0


def test_profiles_and_controls_match_their_types() -> None:
    assert tuple(PROFILE_NAMES) == get_args(options.ProfileName) == tuple(PROFILES)
    assert tuple(CONTROLS) == get_args(options.Control)


def test_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_write_recording", lambda *_: None)
    assert simulate_folder(tmp_path, 1, seed=0) == tmp_path
    assert (tmp_path / "train.csv").is_file()


def test_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "data")
    assert simulate_folder(tmp_path / "link", 1, seed=0, n_signals=0) == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "data" / "labels.csv").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "link"]
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["data"]


def test_mount_point_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(DataError, match=r"must not be a mount point, in .*folder below it"):
        simulate_folder(tmp_path, 1, seed=0, n_signals=0)
    assert not list(tmp_path.iterdir())
    assert simulate_folder(tmp_path / "below", 1, seed=0, n_signals=0).is_dir()


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    leftover, other = tmp_path / ".draft-data-0a", tmp_path / ".draft-other-0a"
    for draft in (leftover, other):
        (draft / "train_eegs").mkdir(parents=True)
        # A killed process leaves its lock file, which nobody holds.
        Path(f"{draft}.lock").touch()
    simulate_folder(tmp_path / "data", 1, seed=0, n_signals=0)
    kept = {"data", other.name, f"{other.name}.lock"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_killed_process_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr(module, "as_completed", broken)
    monkeypatch.setattr(module, "WorkerPool", ThreadPoolExecutor)
    with pytest.raises(ResourceError, match=r"must not end early.* fewer --processes"):
        simulate_folder(tmp_path / "data", 1, seed=0, processes=2, n_signals=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["patient", "spectrogram", "eeg", "label"])
def test_ids_are_unique_and_not_negative(kind: str) -> None:
    count = MAX_PATIENTS + N_TEST
    ids = {identifier(kind, number, seed=3) for number in range(count)}
    assert len(ids) == count
    assert min(ids) >= 0
