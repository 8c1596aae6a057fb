"""Which patients are held out: against plain Python, and independent of other settings."""

import hashlib
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.held_out import held_out_patients
from hms_ray.competition.rows import make_rows, split_rows
from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS
from hms_ray.config.experiment import DataConfig, Experiment, canonical
from hms_ray.errors import ConfigError
from tests.competition_folder import make_labels
from tests.refused import refusal

LABELS = make_labels(np.random.default_rng(0), n_patients=150, eegs_per_patient=2)


def stratum(labels: pd.DataFrame, patient: int) -> tuple[bool, str]:
    """Whether a patient has a row of >= 10 votes, and the commonest class of its rows."""
    own = labels[labels["patient_id"] == patient]
    distinct = {
        (int(eeg), *map(int, votes))
        for eeg, votes in zip(own["eeg_id"], own[list(VOTE_COLUMNS)].to_numpy(), strict=True)
    }
    counts = Counter(CLASSES[votes.index(max(votes))] for _, *votes in distinct)
    most = max(counts.values())
    first = next(name for name in CLASSES if counts[name] == most)
    return any(sum(votes) >= 10 for _, *votes in distinct), first


def plain(labels: pd.DataFrame, share: float, seed: int) -> list[int]:
    strata: dict[tuple[bool, str], list[int]] = {}
    for patient in set(labels["patient_id"].tolist()):
        strata.setdefault(stratum(labels, patient), []).append(patient)
    found = []
    for patients in strata.values():
        patients.sort(key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
        found += patients[: math.floor(share * len(patients) + 0.5)]
    return sorted(found)


@pytest.mark.parametrize("share", [0.1, 0.15, 0.3, 0.49])
@pytest.mark.parametrize("seed", [0, 7])
def test_each_stratum_gives_its_share_in_the_order_of_hashes(share: float, seed: int) -> None:
    found = held_out_patients(LABELS, share, seed)
    assert found.tolist() == plain(LABELS, share, seed)
    assert found.dtype == np.int64
    strata = {stratum(LABELS, patient) for patient in found.tolist()}
    assert {many for many, _ in strata} == {True, False}
    assert len({name for _, name in strata}) > 2


def test_of_equally_common_classes_the_first_counts() -> None:
    """Patients 0-3 have two rows of GPD, 4-7 one of Other and one of GPD: one stratum."""
    labels = pd.DataFrame({"patient_id": np.repeat(np.arange(8), 2), "eeg_id": np.arange(16)})
    votes = np.zeros((16, 6), int)
    votes[:, CLASSES.index("GPD")] = 3
    votes[8::2] = [0, 0, 0, 0, 0, 3]
    labels[list(VOTE_COLUMNS)] = votes
    found = held_out_patients(labels, 0.125, 0)
    assert found.tolist() == plain(labels, 0.125, 0)
    assert len(found) == 1, "two strata would give one patient each"


def test_a_larger_share_holds_out_the_same_patients_and_more() -> None:
    few, many = (set(held_out_patients(LABELS, share, 0).tolist()) for share in (0.15, 0.4))
    assert few < many


def test_order_of_labels_does_not_matter_but_the_seed_does() -> None:
    found = held_out_patients(LABELS, 0.3, 0)
    shuffled = LABELS.sample(frac=1, random_state=3)
    assert held_out_patients(shuffled, 0.3, 0).tolist() == found.tolist()
    assert held_out_patients(LABELS, 0.3, 1).tolist() != found.tolist()


def test_a_repeated_label_row_does_not_move_a_patient_to_another_stratum() -> None:
    """Long recordings have hundreds of label rows with the same votes."""
    repeated = pd.concat([LABELS, *[LABELS.iloc[::7]] * 5], ignore_index=True)
    expected = held_out_patients(LABELS, 0.3, 0).tolist()
    assert held_out_patients(repeated, 0.3, 0).tolist() == expected


@pytest.mark.parametrize("n_patients", [None, 5, 20])
@pytest.mark.parametrize("unit", ["eeg_votes", "eeg", "label"])
def test_no_other_setting_changes_the_held_out_patients(n_patients: int | None, unit: str) -> None:
    config = DataConfig.model_validate(
        {"holdout": 0.2, "n_patients": n_patients, "unit": unit, "fold_seed": n_patients or 1}
    )
    training, held_out = split_rows(LABELS, config)
    expected = held_out_patients(LABELS, 0.2, 0).tolist()
    assert sorted(held_out["patient_id"].unique()) == expected
    assert not set(training["patient_id"]) & set(expected)
    n_others = LABELS["patient_id"].nunique() - len(expected)
    assert training["patient_id"].nunique() == (n_patients or n_others)
    # No row of a held-out patient is lost.
    all_rows = make_rows(LABELS, config.unit)
    own = all_rows[all_rows["patient_id"].isin(expected)].reset_index(drop=True)
    pd.testing.assert_frame_equal(held_out, own)


def test_strata_that_are_too_small_are_refused() -> None:
    labels = make_labels(np.random.default_rng(0), n_patients=6)
    with refusal(
        ConfigError,
        "the hold-out must have at least one patient",
        got="0.1 of 6 patients",
        fix="Raise data.holdout",
    ):
        held_out_patients(labels, 0.1, 0)


def test_without_a_hold_out_its_settings_are_not_part_of_an_experiment() -> None:
    plain_data = canonical(Experiment())["data"]
    assert not {"holdout", "holdout_seed"} & set(plain_data)
    seeded = Experiment(data=DataConfig(holdout_seed=5))
    assert canonical(seeded)["data"] == plain_data
    held_out = canonical(Experiment(data=DataConfig(holdout=0.2)))["data"]
    assert (held_out["holdout"], held_out["holdout_seed"]) == (0.2, 0)
