"""The nested estimate of choosing the best of many predictions."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from hms_ray.ensemble.cross_validation import Candidate, cross_validate
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.nested_choice import nested_choice
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import (
    PatientSums,
    clustered_interval,
    paired_difference,
    patient_groups,
    sum_by_patient,
)
from hms_ray.evaluate.metric import kl_rows
from tests.ensemble_data import ensemble_sample
from tests.refused import refusal


def test_each_patient_is_scored_by_the_choice_of_the_others() -> None:
    # Three predictions of six patients; the first is best overall, thanks to patient 5.
    patients = np.array([3, 3, 5, 5, 5, 1, 2, 2, 4, 6])
    rows = np.array(
        [
            [1.0, 1.2, 0.1, 0.2, 0.1, 0.9, 1.1, 0.8, 1.0, 0.7],
            [0.8, 0.9, 0.9, 0.8, 0.9, 0.7, 0.8, 0.9, 0.6, 0.8],
            [0.9, 0.7, 1.1, 1.2, 0.9, 0.8, 0.6, 0.9, 0.9, 0.9],
        ]
    )
    found = nested_choice(sum_by_patient(rows, patients), patients, seeds=[0, 7], n_splits=3)
    expected, winners = np.empty((2, len(patients))), []
    for repeat, seed in enumerate([0, 7]):
        split = patient_groups(patients, 3, seed)
        for row in range(len(patients)):
            others = [n for n in range(len(patients)) if split[n] != split[row]]
            winner = min(range(3), key=lambda one: sum(rows[one, n] for n in others))
            expected[repeat, row] = rows[winner, row]
            winners.append(winner)
    assert len(set(winners)) > 1, "the splits must disagree"
    mean = sum(expected.mean(axis=0)) / len(patients)
    assert found.nested.mean == pytest.approx(mean)
    np.testing.assert_allclose(found.by_seed, expected.mean(axis=1))
    assert (found.best, found.in_sample) == (0, pytest.approx(rows[0].mean()))
    assert found.optimism == pytest.approx(mean - rows[0].mean())
    assert found.optimism > 0
    assert sum(found.times_chosen.values()) == 6
    # The interval is that of patients, by hand.
    residuals = [
        sum(expected.mean(axis=0)[patients == one] - mean) for one in sorted(set(patients))
    ]
    error = (6 / 5 * sum(value**2 for value in residuals)) ** 0.5 / len(patients)
    assert found.nested.high - mean == pytest.approx(2.5705818366 * error)
    assert mean - found.nested.low == pytest.approx(2.5705818366 * error)


@pytest.mark.parametrize(("objective", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_it_is_cross_validation_of_the_best_single_model(objective: Any, fewest: int) -> None:
    sample = ensemble_sample(6, n_patients=40, alike=True)
    scored = sample.votes >= fewest
    rows = np.stack([kl_rows(sample.targets, model) for model in sample.models])[:, scored]
    sums = sum_by_patient(rows, sample.patients[scored])
    found = nested_choice(sums, sample.patients, scored, seeds=[0, 1, 2])
    blend = cross_validate(sample.data(), [Candidate(BestSingle())], objective, [0, 1, 2], 5)
    expected = blend.scores[0][:, scored]
    np.testing.assert_allclose(found.by_seed, expected.mean(axis=1))
    interval = clustered_interval(expected.mean(axis=0), sample.patients[scored])
    assert found.nested.low == pytest.approx(interval.low)
    assert found.nested.high == pytest.approx(interval.high)


def test_nested_score_is_unbiased_where_the_best_is_too_low() -> None:
    """Equally good predictions: whichever is chosen, fresh patients score 1."""
    generator = np.random.default_rng(11)
    patients = np.repeat(np.arange(60), 4)
    nested, best, covered = [], [], 0
    for _ in range(150):
        # As with trials, patients differ more than predictions of one patient.
        difficulty = generator.normal(scale=0.5, size=60)
        noise = generator.normal(scale=0.3, size=(30, 60))
        rows = 1 + (difficulty + noise)[:, patients]
        rows += generator.normal(scale=0.2, size=rows.shape)
        found = nested_choice(sum_by_patient(rows, patients), patients, seeds=[0, 1])
        nested.append(found.nested.mean)
        best.append(found.in_sample)
        covered += found.nested.low <= 1 <= found.nested.high
    error = np.std(nested) / np.sqrt(len(nested))
    assert abs(np.mean(nested) - 1) < 2.5 * error
    # The lowest of 30 means with a deviation of 0.3 / sqrt(60) lies about two of these below.
    assert np.mean(best) - 1 == pytest.approx(-2 * 0.3 / 60**0.5, abs=0.03)
    assert np.mean(best) < 1 - 8 * error
    # Rows as independent draws would give intervals of half the width: a coverage near 0.7.
    assert 0.9 <= covered / 150 <= 0.985


def test_one_prediction_or_equal_ones_have_no_optimism() -> None:
    rows = np.random.default_rng(0).gamma(2, size=(1, 200))
    patients = np.arange(200) // 3
    for scores in (rows, np.repeat(rows, 4, axis=0)):
        found = nested_choice(sum_by_patient(scores, patients), patients)
        assert found.optimism == pytest.approx(0, abs=1e-12)
        assert found.times_chosen == {0: 25}


def test_few_patients() -> None:
    rows = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 1.0]])
    found = nested_choice(sum_by_patient(rows, [1, 2, 2]), [1, 2, 2])
    # Each of two patients alone: patient 1 is scored by the second, patient 2 by the first.
    assert (found.n_splits, found.nested.mean) == (2, pytest.approx((2 + 2 + 3) / 3))
    assert found.recalibrated is None
    corrected = sum_by_patient(np.array([[9.0, 0.6, 0.7], [0.2, 9.0, 9.0]]), [1, 2, 2])
    found = nested_choice(sum_by_patient(rows, [1, 2, 2]), [1, 2, 2], recalibrated=corrected)
    assert found.recalibrated == pytest.approx((0.2 + 0.6 + 0.7) / 3)
    with refusal(PredictionError, "at least two patients", got="1"):
        nested_choice(sum_by_patient(rows, [4, 4, 4]), [4, 4, 4])


def test_five_hundred_trials_take_less_than_a_second() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 17, size=1950)
    patients = generator.permutation(np.repeat(np.arange(1950), sizes))
    scores = PatientSums(generator.gamma(2, size=(500, 1950)), sizes.astype(float))
    start = time.perf_counter()
    nested_choice(scores, patients)
    assert time.perf_counter() - start < 1


def test_sums_by_patient_give_the_paired_differences_of_rows() -> None:
    generator = np.random.default_rng(3)
    patients = generator.integers(0, 25, size=300)
    rows = generator.gamma(2, size=(4, 300))
    for row, found in zip(rows, sum_by_patient(rows, patients).minus(2), strict=True):
        expected = paired_difference(row, rows[2], patients)
        assert found.mean == pytest.approx(expected.mean, abs=1e-12)
        assert (found.low, found.verdict) == (pytest.approx(expected.low), expected.verdict)
