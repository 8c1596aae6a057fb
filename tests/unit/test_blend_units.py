"""Units of row ids: stated by a study, a ladder, a file or an option, or unknown."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.align import Aligned, align
from hms_ray.blend.fit_command import blend
from hms_ray.blend.members import read_members, targets_of
from hms_ray.blend.settings import Settings
from hms_ray.competition.rows import Unit, make_rows
from hms_ray.competition.schema import VOTE_COLUMNS
from hms_ray.config.loading import validate_space
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.errors import PredictionError
from hms_ray.evaluate.oof import make_oof, write_oof
from hms_ray.ladder.folder import write_ladder
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from tests.blend_data import add_trials, predictions, written
from tests.ladder_data import ABOUT, ladder
from tests.refused import refusal

N_EEGS = 20
"""Of two patients each; every EEG has four label rows in two or three groups of votes."""


def labels() -> pd.DataFrame:
    votes = np.zeros((N_EEGS, 4, 6), int)
    for eeg in range(N_EEGS):
        for sub in range(4):
            votes[eeg, sub, (eeg + sub // (2 if eeg % 2 else 3)) % 6] = 3 + sub // 3
    table = pd.DataFrame(
        {
            "eeg_id": np.repeat(np.arange(100, 100 + N_EEGS), 4),
            "eeg_sub_id": np.tile(np.arange(4), N_EEGS),
            "spectrogram_id": 1,
            "patient_id": np.repeat(np.arange(N_EEGS) // 2, 4),
            "eeg_label_offset_seconds": np.tile([0.0, 2, 4, 6], N_EEGS),
            "spectrogram_label_offset_seconds": np.tile([0.0, 2, 4, 6], N_EEGS),
        }
    )
    table[list(VOTE_COLUMNS)] = votes.reshape(-1, 6)
    return table


def rows_of(unit: Unit) -> pd.DataFrame:
    rows = make_rows(labels(), unit)
    return rows.assign(fold=rows["patient_id"] % 3)


def study(
    folder: Path, unit: Unit, rows: pd.DataFrame | None = None, name: str | None = None
) -> StudyFolder:
    """A study with one trial, named by its unit unless a name is given."""
    rows = rows_of(unit) if rows is None else rows
    file = folder / f"rows of {name or unit}.parquet"
    rows.to_parquet(file)
    prepared = Prepared(file, {"kaggle": PackRef(folder / "pack", "p")}, "r", "f", 3)
    space = validate_space({"experiment": {"data": {"unit": unit}}}, "test")
    made = create_study(folder / "results", name or unit, space, prepared)
    add_trials(made, [0])
    return made


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for unit in get_args(Unit):
        study(tmp_path, unit)
    return tmp_path / "results"


def aligned(
    results: Path, words: list[Any], targets: str | None = None, unit: Unit | None = None
) -> Aligned:
    members = read_members(words, results, row_unit=unit)
    return align(members, targets_of(members, targets, results, row_unit=unit), "common")


def test_row_ids_of_two_units_look_alike() -> None:
    """Otherwise the tests below would prove nothing."""
    both = set(rows_of("label")["row_id"]) & set(rows_of("eeg_votes")["row_id"])
    assert len(both) > N_EEGS


@pytest.mark.parametrize("choice", ["same", "common"])
@pytest.mark.parametrize("other", ["label", "eeg"])
def test_studies_of_two_units_are_refused(results: Path, other: str, choice: Any) -> None:
    members = read_members(["eeg_votes", other], results)
    got = f"eeg_votes in eeg_votes and {other} in {other}/0000"
    with refusal(PredictionError, "the same unit", got=got, fix="same data.unit"):
        align(members, targets_of(members, None, results), choice)


def test_label_rows_in_a_file_are_recognised_by_its_columns(results: Path, tmp_path: Path) -> None:
    rows = rows_of("label")
    file = predictions(tmp_path / "mine.csv", rows)
    subs = rows["row_id"].str.rpartition("-")[2].astype(int)
    full = pd.read_csv(file).assign(eeg_id=rows["eeg_id"], eeg_sub_id=subs)
    for frame in (full, full.drop(columns="row_id")):
        written(file, frame)
        assert len(aligned(results, ["label", file]).rows) == len(rows)
        with refusal(
            PredictionError, "the same unit", got="eeg_votes in eeg_votes and label in mine"
        ):
            aligned(results, ["eeg_votes", file])
    # Ids of vote groups stay such if the table also has the first eeg_sub_id of each group.
    groups = rows_of("eeg_votes")
    frame = pd.read_csv(predictions(file, groups)).assign(eeg_id=groups["eeg_id"], eeg_sub_id=0)
    written(file, frame)
    assert [member.keys for member in read_members([file])] == ["row_id"]
    assert len(aligned(results, ["eeg_votes", file]).rows) == len(groups)


def test_a_file_of_eegs_has_the_rows_of_the_unit_eeg(results: Path, tmp_path: Path) -> None:
    votes = rows_of("eeg")[["eeg_id", "patient_id", "total_votes", *VOTE_COLUMNS]]
    file = written(tmp_path / "votes.csv", votes)
    assert len(aligned(results, ["eeg"], str(file)).rows) == N_EEGS
    with refusal(PredictionError, "the same unit", got=f"eeg in {file} and label in 0000"):
        aligned(results, ["label"], str(file))


@pytest.mark.parametrize("kind", ["predictions", "targets"])
def test_row_ids_of_another_unstated_unit_are_refused(
    results: Path, tmp_path: Path, kind: str
) -> None:
    rows = rows_of("label")
    words: tuple[list[Any], str | None]
    if kind == "predictions":
        words, name = (["eeg_votes", predictions(tmp_path / "mine.csv", rows)], None), "mine"
        found = "EEGs of eeg_votes of which mine has "
    else:
        file = written(tmp_path / "votes.csv", rows.drop(columns="eeg_id"))
        words, name = (["eeg_votes"], str(file)), str(file)
        found = f"EEGs of {file} of which 0000 lacks "
    rule = "row ids of unknown unit must match all rows of an EEG or none"
    with refusal(PredictionError, rule, got=found, fix=f"State the unit of {name} with --row-unit"):
        aligned(results, *words)
    with refusal(PredictionError, rule, got="(100-2, 100-3, "):
        aligned(results, *words)
    with refusal(PredictionError, "the same unit", got=f"label in {name}"):
        aligned(results, *words, unit="label")
    if kind == "predictions":  # a stated unit is not checked further
        assert len(aligned(results, *words, unit="eeg_votes").rows) == len(rows_of("eeg_votes"))
    else:  # a study has its own votes
        with refusal(PredictionError, "same targets", got="total_votes 4 in eeg_votes and 3 in"):
            aligned(results, *words, unit="eeg_votes")


def test_dropped_patients_and_dropped_rows_leave_common_rows(tmp_path: Path, results: Path) -> None:
    """A smaller number of patients drops whole EEGs; unusable rows drop some of an EEG's."""
    rows = rows_of("label")
    few = rows[rows["patient_id"] < 6]
    file = predictions(tmp_path / "few.csv", few)
    found = aligned(results, ["label", file])
    assert (len(found.rows), found.n_dropped) == (len(few), len(rows) - len(few))
    usable = rows[rows["row_id"] != "101-2"].reset_index(drop=True)
    study(tmp_path, "label", usable, "dropped")
    assert aligned(results, ["label", "dropped"], "label").n_dropped == 1, "both know their unit"
    whole = predictions(tmp_path / "whole.csv", rows)
    with refusal(PredictionError, "unknown unit", got="of which whole has 1 more (101-2)"):
        aligned(results, ["dropped", whole])
    assert len(aligned(results, ["dropped", whole], unit="label").rows) == len(usable)


def test_files_of_this_package_state_their_unit(results: Path, tmp_path: Path) -> None:
    rows = rows_of("label")
    blend(["label"], results, Settings(fit_on="kl_all", n_splits=2, out=tmp_path))
    trial = StudyFolder(results / "label").trial_path(0)
    for file in (tmp_path / "oof_nested", tmp_path / "oof_in_sample", trial / "oof"):
        (member,) = read_members([file.with_suffix(".parquet")])
        assert member.keys == "label"
    rule, got = "--row-unit must be the unit that the file states", "eeg_votes for row ids of label"
    with refusal(PredictionError, rule, got=got, where="nested.parquet", fix="--row-unit label"):
        read_members([tmp_path / "oof_nested.parquet"], row_unit="eeg_votes")
    unknown = make_oof(rows, 0, np.full((len(rows), 6), 1 / 6))
    unknown.attrs["row_unit"] = "anything"
    write_oof(tmp_path / "oof.parquet", unknown)
    (member,) = read_members([tmp_path / "oof.parquet"])
    assert member.keys == "row_id"
    alone = aligned(results, [tmp_path / "oof.parquet"], "label")
    assert alone.rows.attrs == {"row_unit": "label"}


def test_a_ladder_states_the_unit_of_its_rows(tmp_path: Path) -> None:
    rows, steps = ladder()
    for unit in ("label", None):
        about = ABOUT if unit is None else {**ABOUT, "rows": {"unit": unit}}
        write_ladder(tmp_path / "rungs", rows, steps, about)
        members = read_members(["rungs"], tmp_path)
        assert {member.keys for member in members} == {unit or "row_id"}
        assert targets_of(members, "rungs", tmp_path).keys == (unit or "row_id")
