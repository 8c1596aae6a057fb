"""Fitted blends of a ladder: nested by patient, with a method and rows to fit on."""

from typing import Any

import numpy as np
import pytest

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.ensemble.cross_validation import Candidate, checked_data
from hms_ray.ensemble.methods.log_linear import LogLinear
from hms_ray.ensemble.methods.registry import all_methods
from hms_ray.ensemble.selection import estimate_selection
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.ladder.ensemble_steps import N_SPLITS, blend_step
from hms_ray.ladder.manifest import Blend
from tests.ladder_data import ladder

ROWS, RESULTS = ladder(20)
MEMBERS = [RESULTS[0].oof, RESULTS[2].oof, RESULTS[3].oof]
STACK = np.stack([probabilities_of(oof) for oof in MEMBERS])
TARGETS = ROWS[list(TARGET_COLUMNS)].to_numpy()
PATIENTS = ROWS["patient_id"].to_numpy()
MANY = ROWS["total_votes"].to_numpy() >= 10


def blend(**values: Any) -> Blend:
    return Blend.model_validate({"kind": "optimised", "members": ["a", "b", "c"], **values})


def test_all_rows_are_predicted_by_fits_on_many_votes_of_other_patients() -> None:
    oof, weights = blend_step(blend(method="log_linear", fit_on="kl_10"), MEMBERS, ROWS, seed=3)
    found = probabilities_of(oof)
    split = patient_groups(PATIENTS, N_SPLITS, 3, MANY.astype(float))
    for part in range(N_SPLITS):
        inside = (split != part) & MANY
        fitted = LogLinear().fit(TARGETS[inside], STACK[:, inside])
        held_out = split == part
        np.testing.assert_allclose(found[held_out], fitted.predict(STACK[:, held_out]), atol=1e-9)
    whole = LogLinear().fit(TARGETS[MANY], STACK[:, MANY])
    assert weights == pytest.approx(dict(zip("abc", whole.weights[0], strict=True)))


def test_auto_is_chosen_without_the_patients_that_it_predicts() -> None:
    oof, weights = blend_step(blend(method="auto"), MEMBERS, ROWS)
    data = checked_data(TARGETS, STACK, PATIENTS, ROWS["total_votes"].to_numpy())
    candidates = [Candidate(method) for method in all_methods().values()]
    expected = estimate_selection(data, candidates, "simplex", "kl_all")
    np.testing.assert_array_equal(probabilities_of(oof), expected.probabilities)
    assert set(weights) in ({"a", "b", "c"}, set())


def test_methods_without_a_weight_per_member_have_none() -> None:
    oof, weights = blend_step(blend(method="stacked"), MEMBERS, ROWS)
    assert weights == {}
    np.testing.assert_allclose(probabilities_of(oof).sum(axis=1), 1)
    _, weights = blend_step(blend(method="simplex_recalibrated"), MEMBERS, ROWS)
    assert sum(weights.values()) == pytest.approx(1)
