"""Rows, folds and packs of several sources, and rows without a usable signal."""

import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_ray.competition.read import read_labels
from hms_ray.config.experiment import DataConfig
from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.config.values import replace_values
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.pack_command import pack_folder
from hms_ray.dataset.prepare import Prepared, open_prepared, prepare
from hms_ray.dataset.sources import source_key, sources_for
from hms_ray.errors import DataError, FaultyDataError, PackError
from hms_ray.experiment.cache_key import cache_key_inputs
from hms_ray.experiment.placement import Placement
from hms_ray.pack.store import open_pack
from tests.blend_data import written
from tests.competition_folder import write_competition_folder, write_eeg

pytestmark = pytest.mark.usefixtures("one_process")

# Short and coarse, so that packing is fast.
EEG = {"kind": "mel", "centre_s": 10}
VIEWS = ["panels", "eeg panels"]


def make_space(search: dict[str, Any] | None = None, **inputs: Any) -> Space:
    chosen = {"views": VIEWS, "eeg": EEG, **inputs}
    experiment = {
        "data": {"n_folds": 3, "unusable": "keep"},
        "input": chosen,
        "model": {"pretrained": False},
    }
    return validate_space({"experiment": experiment, "parameters": search or {}}, "test")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two EEGs are zero throughout: their rows have no usable signal."""
    folder = write_competition_folder(tmp_path_factory.mktemp("data") / "hms", n_patients=6)
    for eeg_id in sorted(read_labels(folder)["eeg_id"].unique())[2:4]:
        fill(folder / "train_eegs" / f"{eeg_id}.parquet", 0)
    return folder


def fill(file: Path, value: float) -> None:
    """Overwrites all samples of an EEG."""
    write_eeg(file, np.full((pq.read_metadata(file).num_rows, 20), value, np.float32))


def ready(data_dir: Path, results: Path, policy: str = "keep", **options: Any) -> Prepared:
    experiment = replace_values(make_space().experiment, {"data.unusable": policy})
    return prepare(data_dir, experiment, results, **options)


def test_each_source_is_packed_once_and_found_by_its_recipe(data_dir: Path, tmp_path: Path) -> None:
    space = make_space({"input.eeg.centre_s": {"values": [10, 5]}})
    sources = sources_for(space)
    assert [source.name for source in sources] == ["kaggle", "eeg", "eeg"]
    prepared = prepare(data_dir, space.experiment, tmp_path, sources=sources)
    assert list(prepared.packs) == [source_key(*source) for source in sources]
    assert len({pack.path for pack in prepared.packs.values()}) == 3
    used = []
    for seconds in (10, 5):
        experiment = make_space(eeg={**EEG, "centre_s": seconds, "downsample": [2, 1]}).experiment
        made_from = cache_key_inputs(experiment, prepared, 0, Placement())["sources"]
        pack = open_pack(prepared.packs_of(experiment.input)["eeg"].path)
        assert pack.recipe["made"]["used_samples"] == 200 * seconds
        assert made_from == {
            "kaggle": prepared.packs["kaggle"].fingerprint,
            "eeg": pack.fingerprint,
        }
        used.append(pack.fingerprint)
    assert used[0] != used[1]
    other = make_space(eeg={"kind": "stft"}).experiment
    with pytest.raises(DataError, match=r"must be prepared before .* got eeg-[0-9a-f]{12}"):
        prepared.packs_of(other.input)


def test_sources_of_a_space_are_those_of_its_points() -> None:
    def keys(search: dict[str, Any], **inputs: Any) -> list[str]:
        return [source_key(*source) for source in sources_for(make_space(search, **inputs))]

    assert [key.split("-")[0] for key in keys({})] == ["kaggle", "eeg"]
    assert keys({}, views=["statistics"]) == ["kaggle"]
    views = {"input.views": {"values": {"one": ["panels"], "two": ["raw signals"]}}}
    assert [key.split("-")[0] for key in keys(views)] == ["kaggle", "raw"]
    # The recipe is searched, but only points with the view "two" use it.
    rates = {**views, "input.raw.rate_hz": {"values": [50, 100]}}
    assert [key.split("-")[0] for key in keys(rates)] == ["kaggle", "raw", "raw"]
    # Downsampling does not make another pack.
    treated = {
        "input.eeg.downsample.0": {"min": 1, "max": 4},
        "training.learning_rate": {"min": 1, "max": 2},
    }
    assert keys(treated) == keys({})
    # The experiment's own kind is not among the choices: no point reads it.
    kinds = {"input.eeg.kind": {"values": ["multitaper"]}}
    assert len(keys(kinds)) == 2
    assert keys(kinds) != keys({})
    # A frame of 2,048 samples does not fit into the middle 10 s: no such point.
    misfits = {
        "input.eeg.centre_s": {"values": [10, 50]},
        "input.eeg.window_samples": {"values": [400, 2048]},
    }
    assert len(keys(misfits, eeg={"kind": "stft"})) == 4


def test_rows_have_the_missing_share_of_each_source(data_dir: Path, tmp_path: Path) -> None:
    rows = ready(data_dir, tmp_path).rows()
    assert rows["missing_kaggle"].between(0, 1).all()
    assert rows["missing_kaggle"].max() > 0
    assert rows["missing_kaggle"].dtype == rows["missing_eeg"].dtype == np.float64


def test_kept_unusable_rows_are_reported(data_dir: Path, tmp_path: Path) -> None:
    kept = ready(data_dir, tmp_path)
    eegs = sorted(kept.rows()["eeg_id"].unique())[2:4]
    silent = kept.rows()[kept.rows()["eeg_id"].isin(eegs)]
    note, scarce = kept.notes
    assert note.startswith("eeg-")
    assert f": {len(silent)} rows without a usable signal, zero-filled: " in note
    assert silent["row_id"].iloc[0] in note
    kaggle = make_space(views=["panels"]).experiment
    assert scarce.startswith("classes with fewer rows than the 3 folds: ")
    assert prepare(data_dir, kaggle, tmp_path).notes == (scarce,)


def test_dropping_rows_keeps_the_folds_of_the_others(data_dir: Path, tmp_path: Path) -> None:
    kept, dropped = ready(data_dir, tmp_path), ready(data_dir, tmp_path, "drop")
    before, after = kept.rows(), dropped.rows()
    eegs = sorted(before["eeg_id"].unique())[2:4]
    remaining = before[~before["eeg_id"].isin(eegs)].reset_index(drop=True)
    pd.testing.assert_frame_equal(after, remaining)
    assert "dropped: " in dropped.notes[0]
    assert dropped.rows_fingerprint != kept.rows_fingerprint
    assert dropped.packs == kept.packs


@pytest.mark.parametrize("policy", ["keep", "drop"])
def test_fold_table_of_all_rows_or_of_the_kept_rows_is_accepted(
    data_dir: Path, tmp_path: Path, policy: str
) -> None:
    first = ready(data_dir, tmp_path)
    changed = first.rows()[["row_id", "patient_id", "fold"]].assign(fold=lambda t: 2 - t["fold"])
    given = ready(data_dir, tmp_path, policy, folds=changed)
    assert not given.rows()["fold"].equals(ready(data_dir, tmp_path, policy).rows()["fold"])
    again = ready(data_dir, tmp_path, policy, folds=given.rows())
    assert again == given


def test_unusable_rows_are_an_error_by_default(data_dir: Path, tmp_path: Path) -> None:
    rule = r"usable signal in each source, got \d+ rows without: \d+-\d.*, in source eeg-.*keep"
    with pytest.raises(DataError, match=rule):
        ready(data_dir, tmp_path, DataConfig().unusable)


def test_recording_without_numbers_is_a_fault_only_with_the_policy_error(
    data_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    for file in sorted((folder / "train_eegs").glob("*.parquet"))[2:4]:
        fill(file, np.nan)
    with pytest.raises(FaultyDataError, match="got only NaN"):
        ready(folder, tmp_path, "error")
    kept, dropped = ready(folder, tmp_path), ready(folder, tmp_path, "drop")
    assert (kept.rows()["missing_eeg"] == 1).sum() == len(kept.rows()) - len(dropped.rows()) > 0
    (folder / "train_eegs" / file.name).unlink()
    with pytest.raises(FaultyDataError, match="must exist"):
        ready(folder, tmp_path)


def test_damaged_row_table_is_written_again(data_dir: Path, tmp_path: Path) -> None:
    prepared = ready(data_dir, tmp_path)
    rows = prepared.rows()
    prepared.rows_file.write_bytes(b"")
    assert ready(data_dir, tmp_path) == prepared
    pd.testing.assert_frame_equal(prepared.rows(), rows)


def test_replaced_pack_is_refused(data_dir: Path, tmp_path: Path) -> None:
    prepared = ready(data_dir, tmp_path)
    key = list(prepared.packs)[1]
    stale = replace(prepared.packs[key], fingerprint="0" * 64)
    with pytest.raises(DataError, match=r"must not change while it is in use, .* of 000000000000"):
        open_prepared(stale)
    assert open_prepared(prepared.packs[key]).path == stale.path


def test_each_pack_has_a_progress_bar(data_dir: Path, tmp_path: Path) -> None:
    shown: list[tuple[str, str, int, int]] = []

    @contextmanager
    def bars(name: str, unit: str) -> Any:
        yield lambda done, total: shown.append((name, unit, done, total))

    packs = tmp_path / "packs"
    first = ready(data_dir, tmp_path, pack_dir=packs, bars=bars)
    names = list(dict.fromkeys((name.split("-")[0], unit) for name, unit, *_ in shown))
    assert names == [("packing kaggle", "recordings"), ("packing eeg", "windows")]
    assert shown[-1][2] == shown[-1][3] > 0
    shown.clear()
    assert ready(data_dir, tmp_path, pack_dir=packs, bars=bars) == first
    assert not shown


def test_study_reads_what_pack_wrote_for_its_space(data_dir: Path, tmp_path: Path) -> None:
    space = make_space({"input.eeg.downsample.0": {"min": 1, "max": 2}})
    made = pack_folder(data_dir, space, tmp_path / "packs", workers=1)
    prepared = ready(data_dir, tmp_path, pack_dir=tmp_path / "packs")
    assert [pack.fingerprint for pack in made] == [
        pack.fingerprint for pack in prepared.packs.values()
    ]
    assert len(list((tmp_path / "packs").glob("*-*/manifest.json"))) == 2


def test_only_n_patients_are_folded_and_packed(data_dir: Path, tmp_path: Path) -> None:
    whole = ready(data_dir, tmp_path)
    space = make_space()
    experiment = replace_values(space.experiment, {"data.n_patients": 4})
    space = space.model_copy(update={"experiment": experiment})
    made = pack_folder(data_dir, space, tmp_path / "packs", workers=1)
    some = prepare(data_dir, experiment, tmp_path, pack_dir=tmp_path / "packs")
    assert [pack.fingerprint for pack in some.packs.values()] == [p.fingerprint for p in made]
    rows, everyone = some.rows(), whole.rows()
    assert rows["patient_id"].nunique() == 4
    assert sorted(rows["fold"].unique()) == [0, 1, 2]
    kept = everyone["patient_id"].isin(rows["patient_id"])
    expected = everyone[kept].reset_index(drop=True).drop(columns="fold")
    pd.testing.assert_frame_equal(rows.drop(columns="fold"), expected)
    # Windows of these patients alone; spectrograms are packed whole, and all of them.
    eeg = open_pack(list(some.packs.values())[1].path).recordings
    windows = rows[["eeg_id", "eeg_start"]].drop_duplicates().to_numpy()
    assert eeg.reset_index()[["recording_id", "start"]].to_numpy().tolist() == sorted(
        windows.tolist()
    )
    assert some.packs["kaggle"].fingerprint == whole.packs["kaggle"].fingerprint
    assert some.rows_fingerprint != whole.rows_fingerprint
    # A fold table of all patients can be used for some of them.
    table = everyone[["row_id", "patient_id", "fold"]]
    file = written(tmp_path / "mine.csv", table.assign(fold=table["fold"] + 1))
    for folds, notes in ((table, []), (read_folds(file), ["mine.csv counts folds from 1"])):
        given = prepare(data_dir, experiment, tmp_path, pack_dir=tmp_path / "packs", folds=folds)
        assert given.rows()["fold"].tolist() == everyone["fold"][kept].tolist()
        assert [note.partition(":")[0] for note in given.notes if "counts" in note] == notes
    with pytest.raises(DataError, match="unknown rows, got x"):
        ready(data_dir, tmp_path, folds=pd.concat([table, table[:1].assign(row_id="x")]))


def test_dropping_must_leave_rows_in_every_fold(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    rows = ready(folder, tmp_path).rows()
    for eeg_id in rows.loc[rows["fold"] == 2, "eeg_id"].unique():
        fill(folder / "train_eegs" / f"{eeg_id}.parquet", 0)
    with pytest.raises(DataError, match="fold"):
        ready(folder, tmp_path, "drop")
    for file in (folder / "train_eegs").iterdir():
        fill(file, 0)
    with pytest.raises(DataError, match="must have a usable signal"):
        ready(folder, tmp_path, "drop")


def test_altered_pack_is_refused_before_training(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = tmp_path / "packs"
    prepared = ready(data_dir, tmp_path, pack_dir=packs)
    with monkeypatch.context() as patched:
        # What was compared and has not changed since is not read again.
        patched.setattr("hms_ray.pack.verify.verify_pack", lambda path: pytest.fail(str(path)))
        assert ready(data_dir, tmp_path, pack_dir=packs) == prepared
    values = prepared.packs["kaggle"].path / "values.npy"
    with values.open("r+b") as file:
        file.seek(5_000)
        file.write(b"\1\1")
    with pytest.raises(PackError, match=r"got SHA-256 .* shard 0: recordings"):
        ready(data_dir, tmp_path, pack_dir=packs)
