"""Nothing of a study depends on the votes or the signals of held-out patients."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from hms_ray.competition.read import read_labels
from hms_ray.competition.schema import VOTE_COLUMNS
from hms_ray.config.space import Space
from hms_ray.config.values import replace_values
from hms_ray.dataset.pack_command import pack_folder
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.errors import StudyError
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import plan_folds
from hms_ray.pack.build import pack_path
from hms_ray.pack.store import open_pack
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.identity import study_identity
from hms_ray.study.new import create_study
from hms_ray.train.checkpoint import load_weights
from tests.competition_folder import write_competition_folder, write_eeg, write_spectrogram
from tests.refused import refusal
from tests.trained_study import TrainedStudy, train_study

pytestmark = pytest.mark.usefixtures("one_process")

VALUES = {
    "data.holdout": 0.3,
    "data.unusable": "keep",
    "input.views": ["kaggle panels", "raw signals"],
    "input.normalisation": "global",
    "input.raw": {"centre_s": 10, "normalisation": "global", "downsample": [1, 8]},
    "input.height": 64,
}
PATIENTS = [1015, 1024, 1030]
"""Held out, of the twelve patients of the folder."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_competition_folder(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, data: Path) -> TrainedStudy:
    return train_study(tmp_path_factory.mktemp("study"), data=data, values=VALUES)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The folder with other votes and recordings of the held-out patients."""
    folder = tmp_path_factory.mktemp("changed") / "data"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("packed"))
    change(folder, PATIENTS)
    return folder


def change(folder: Path, patients: Sequence[int]) -> None:
    """Other recordings and more votes of some patients, in the same strata."""
    labels = pd.read_csv(folder / "train.csv")
    own = labels["patient_id"].isin(patients)
    many = labels.groupby("patient_id")[list(VOTE_COLUMNS)].transform("max").sum(axis=1) >= 10
    labels.loc[own, list(VOTE_COLUMNS)] *= 1 + many[own].to_numpy(int)[:, None]
    labels.to_csv(folder / "train.csv", index=False)
    rng = np.random.default_rng(8)
    for eeg_id in labels["eeg_id"][own].unique():
        file = folder / "train_eegs" / f"{eeg_id}.parquet"
        write_eeg(file, rng.normal(0, 99, (pq.read_metadata(file).num_rows, 20)).astype("f4"))
    for number in labels["spectrogram_id"][own].unique():
        file = folder / "train_spectrograms" / f"{number}.parquet"
        values = rng.exponential(5.0, (pq.read_metadata(file).num_rows + 7, 400)).astype("f4")
        write_spectrogram(file, values)


def prepared_from(data: Path, results: Path, folds: Any = None, **values: Any) -> Prepared:
    return prepare(data, experiment_of(**values), results, folds=folds)


def experiment_of(**values: Any) -> Any:
    given = {path.replace("__", "."): value for path, value in values.items()}
    return replace_values(Space().experiment, {**VALUES, "data.n_folds": 2, **given})


def keys_of(study: TrainedStudy, data: Path, results: Path) -> dict[int, str]:
    """Cache keys of the study's experiment on a folder."""
    experiment = study.folder.space().experiment
    prepared = prepare(data, experiment, results)
    placement = InProcessRunner(device="cpu").placement
    return {task.fold: task.key for task in plan_folds(experiment, prepared, results, placement)}


def test_held_out_patients_are_in_no_fold_and_no_pack(study: TrainedStudy) -> None:
    rows, labels = study.prepared.rows(), read_labels(study.data)
    assert not set(rows["patient_id"]) & set(PATIENTS)
    assert study.prepared.holdout is not None
    held_out = study.prepared.holdout.rows()
    assert sorted(held_out["patient_id"].unique()) == PATIENTS
    assert rows["patient_id"].nunique() + len(PATIENTS) == labels["patient_id"].nunique()
    own = labels[labels["patient_id"].isin(PATIENTS)]
    for key, ref in study.prepared.packs.items():
        packed = set(open_pack(ref.path).recordings.index)
        recordings = "spectrogram_id" if key == "kaggle" else "eeg_id"
        assert packed == set(rows[recordings])
        assert not packed & set(own[recordings])
    n = len(held_out)
    assert study.prepared.notes[0] == f"held out: {n} rows of 3 patients"


def test_other_votes_and_signals_of_held_out_patients_change_no_bit_of_a_fold(
    study: TrainedStudy, changed: Path, tmp_path: Path
) -> None:
    again = train_study(tmp_path, data=changed, values=VALUES)
    before, after = study.prepared, again.prepared
    assert before.holdout is not None
    assert after.holdout is not None
    assert not before.holdout.rows().equals(after.holdout.rows()), "the votes are others"
    assert after.holdout.rows()["patient_id"].unique().tolist() == PATIENTS
    pd.testing.assert_frame_equal(before.rows(), after.rows())
    assert again.result.keys == study.result.keys
    assert not again.result.reused, "trained anew"
    pd.testing.assert_frame_equal(again.result.oof, study.result.oof, check_exact=True)
    for key in study.result.keys.values():
        first, second = (FoldStore(one.results).read(key) for one in (study, again))
        assert first.record["normalisation"] == second.record["normalisation"]
        assert first.record["made_from"] == second.record["made_from"]
        weights = load_weights(second.weights)
        assert all(torch.equal(weights[k], v) for k, v in load_weights(first.weights).items())


def test_other_votes_or_signals_of_a_training_patient_change_every_fold(
    study: TrainedStudy, data: Path, tmp_path: Path
) -> None:
    """The control of the test above."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("packed"))
    change(folder, [int(study.prepared.rows()["patient_id"].iloc[0])])
    assert keys_of(study, data, tmp_path) == study.result.keys
    keys = keys_of(study, folder, tmp_path)
    assert set(keys) == set(study.result.keys)
    assert not set(keys.values()) & set(study.result.keys.values())


def test_held_out_patients_stay_the_same_whatever_rows_are_used(data: Path, tmp_path: Path) -> None:
    for values in (
        {"data__n_patients": 6},
        {"data__unusable": "drop"},
        {"data__fold_seed": 3},
        {"data__n_folds": 3},
        {"data__unit": "eeg"},
    ):
        prepared = prepared_from(data, tmp_path, input__views=["panels"], **values)
        assert prepared.holdout is not None
        assert sorted(prepared.holdout.rows()["patient_id"].unique()) == PATIENTS, values
        assert not set(prepared.rows()["patient_id"]) & set(PATIENTS)


@pytest.mark.parametrize("columns", [["row_id", "fold"], ["patient_id", "fold"]])
def test_a_given_fold_table_keeps_the_hold_out(
    data: Path, tmp_path: Path, columns: list[str]
) -> None:
    one = {"input__views": ["panels"]}
    whole = prepared_from(data, tmp_path, data__holdout=0.0, **one).rows()
    prepared = prepared_from(data, tmp_path, folds=whole[columns], **one)
    rows = prepared.rows()
    assert not set(rows["patient_id"]) & set(PATIENTS)
    expected = whole.set_index("row_id")["fold"]
    assert rows.set_index("row_id")["fold"].to_dict() == expected[rows["row_id"]].to_dict()
    n = int(whole["patient_id"].isin(PATIENTS).sum())
    assert f"fold table: {n} rows of held-out patients dropped" in prepared.notes


def test_packing_ahead_makes_the_packs_of_the_study(
    study: TrainedStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    packs = pack_folder(study.data, Space(experiment=experiment_of()))
    capsys.readouterr()
    assert {pack.path.resolve() for pack in packs} == {
        ref.path for ref in study.prepared.packs.values()
    }


def test_the_identity_of_a_study_has_its_hold_out(study: TrainedStudy, changed: Path) -> None:
    identity = study.folder.identity
    assert identity["experiment"]["data"]["holdout"] == 0.3
    assert study.prepared.holdout is not None
    assert identity["data"]["holdout"] == study.prepared.holdout.fingerprint
    held_out = study.folder.held_out_rows()
    assert held_out is not None
    pd.testing.assert_frame_equal(held_out, study.prepared.holdout.rows())
    # Other votes of held-out patients are another study, which reuses all folds.
    other = replace(study.prepared.holdout, fingerprint="0" * 64)
    with refusal(StudyError, "resumed with its own space and data", got="data.holdout was"):
        create_study(
            study.results,
            study.name,
            study.folder.space(),
            replace(study.prepared, holdout=other),
        )


def test_a_study_without_a_hold_out_has_the_identity_that_it_had_before(
    data: Path, tmp_path: Path
) -> None:
    space = Space(experiment=experiment_of(data__holdout=0.0, input__views=["panels"]))
    prepared = prepare(data, space.experiment, tmp_path)
    identity = study_identity(space, prepared)
    assert "holdout" not in identity["data"]
    assert not {"holdout", "holdout_seed"} & set(identity["experiment"]["data"])
    assert create_study(tmp_path, "plain", space, prepared).held_out_rows() is None
    assert prepared.holdout is None
    # All recordings are packed: one pack serves every choice of rows.
    assert prepared.packs["kaggle"].path == pack_path(data / "packed").resolve()
