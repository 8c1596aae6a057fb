from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hms_ray.ensemble.cross_validation import nested_blend
from hms_ray.ensemble.simplex import blend_probabilities, simplex_weights
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import (
    clustered_interval,
    paired_difference,
    patient_bootstrap,
    patient_groups,
)


def problem(n_models: int = 4, n_patients: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    """Models that see the truth through noise, rows clustered by patient."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), generator.integers(1, 20, size=n_patients))
    n_rows = len(patients)
    truth = generator.normal(size=(n_patients, 6))[patients] * 2
    truth = truth + generator.normal(size=(n_rows, 6))
    logits = truth + generator.normal(size=(n_models, n_rows, 6))
    models = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    chances = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    votes = generator.choice([1, 3, 5, 12, 15], size=n_rows)
    drawn = generator.multinomial(votes, chances)
    return {
        "targets": drawn / votes[:, None],
        "models": models,
        "patients": patients,
        "votes": votes,
    }


def test_one_row_a_patient_gives_the_textbook_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = clustered_interval(values, np.arange(40))
    expected = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)
    assert (found.n_rows, found.n_patients) == (40, 40)


def test_repeating_rows_of_patients_adds_no_certainty() -> None:
    values = np.random.default_rng(0).normal(size=40)
    once = clustered_interval(values, np.arange(40))
    often = clustered_interval(np.repeat(values, 25), np.repeat(np.arange(40), 25))
    np.testing.assert_allclose([often.low, often.high], [once.low, once.high], rtol=1e-12)
    rows_alone = clustered_interval(np.repeat(values, 25), np.arange(1000))
    assert rows_alone.high - rows_alone.low < 0.25 * (once.high - once.low)


def test_unequal_patients_follow_the_formula() -> None:
    values, patients = np.array([1.0, 2.0, 6.0, 3.0, 3.0]), np.array([5, 5, 5, 9, 2])
    found = clustered_interval(values, patients)
    # Residual sums by patient: 0, 0 and 0 but for patient 5 (9 - 9 = 0).
    residuals = np.array([9 - 3 * 3.0, 3 - 3.0, 3 - 3.0])
    variance = 3 / 2 * (residuals**2).sum() / 25
    assert found.mean == 3.0
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 2) * variance**0.5)
    skewed = clustered_interval(values + np.array([0, 0, 0, 5.0, 0]), patients)
    residuals = np.array([9 - 3 * 4.0, 8 - 4.0, 3 - 4.0])
    variance = 3 / 2 * (residuals**2).sum() / 25
    assert skewed.high - skewed.mean == pytest.approx(stats.t.ppf(0.975, 2) * variance**0.5)


def test_intervals_cover_as_often_as_they_say() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        sizes = generator.integers(1, 15, size=60)
        patients = np.repeat(np.arange(60), sizes)
        values = generator.normal(size=60)[patients] + generator.normal(size=len(patients))
        found = clustered_interval(values, patients)
        covered += found.low <= 0 <= found.high
    assert 0.91 <= covered / 400 <= 0.985


def test_bootstrap_agrees_with_the_formula() -> None:
    generator = np.random.default_rng(1)
    patients = np.repeat(np.arange(200), generator.integers(1, 12, size=200))
    values = generator.normal(size=200)[patients] + generator.normal(size=len(patients))
    formula = clustered_interval(values, patients)
    drawn = patient_bootstrap(values, patients, np.random.default_rng(0), n=4000)
    assert drawn.mean == formula.mean
    width = formula.high - formula.low
    assert abs(drawn.low - formula.low) < 0.08 * width
    assert abs(drawn.high - formula.high) < 0.08 * width


def test_bootstrap_is_that_of_its_generator() -> None:
    values, patients = np.arange(60.0), np.repeat(np.arange(30), 2)
    first, second, other = (
        patient_bootstrap(values, patients, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert first == second
    assert other.low != first.low or other.high != first.high


def test_differences_tell_ties() -> None:
    generator = np.random.default_rng(2)
    patients = np.repeat(np.arange(50), 4)
    rows = generator.gamma(2, size=200)
    assert paired_difference(rows, rows, patients).tie
    assert paired_difference(rows, rows, patients).mean == 0
    noise = generator.normal(scale=0.1, size=200)
    assert paired_difference(rows, rows + noise, patients).verdict == "tie"
    assert paired_difference(rows, rows + 0.1 + noise, patients).verdict == "better"
    assert paired_difference(rows + 0.1 + noise, rows, patients).verdict == "worse"


def test_one_patient_tells_nothing() -> None:
    difference = paired_difference([1.0, 2.0], [5.0, 9.0], [3, 3])
    assert (difference.mean, difference.low, difference.high) == (-5.5, -np.inf, np.inf)
    assert difference.tie
    drawn = patient_bootstrap([1.0, 2.0, 3.0], [1, 1, 1], np.random.default_rng(0))
    assert (drawn.mean, drawn.low, drawn.high) == (2.0, -np.inf, np.inf)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(broken: float) -> None:
    message = rf"row scores must be finite numbers, got {broken}, in 1 row\(s\): 2"
    with pytest.raises(PredictionError, match=message):
        paired_difference([1.0, 2.0, broken], [5.0, 9.0, 1.0], [3, 3, 4])
    with pytest.raises(PredictionError, match=message):
        patient_bootstrap([1.0, 2.0, broken], [3, 3, 4], np.random.default_rng(0))


def test_scores_must_fit_patients() -> None:
    with pytest.raises(PredictionError, match="one score and one patient a row"):
        clustered_interval([1.0, 2.0], [1])
    with pytest.raises(PredictionError, match="an interval needs rows, got none"):
        clustered_interval([], [])
    with pytest.raises(PredictionError, match="must have the same rows"):
        paired_difference([1.0, 2.0], [1.0], [1, 2])


def test_groups_keep_patients_together_and_are_even() -> None:
    patients = problem(n_patients=100)["patients"]
    split = patient_groups(patients, 5, seed=0)
    for patient in np.unique(patients):
        assert len(np.unique(split[patients == patient])) == 1
    sizes = np.bincount(split, minlength=5)
    assert sizes.max() - sizes.min() <= 20
    assert (patient_groups(patients, 5, seed=0) == split).all()
    assert (patient_groups(patients, 5, seed=1) != split).any()


def test_groups_spread_the_weighted_rows() -> None:
    patients = np.repeat(np.arange(40), 5)
    weights = np.isin(patients, [3, 17])
    for seed in range(20):
        split = patient_groups(patients, 5, seed, weights)
        assert len(np.unique(split[weights])) == 2


def test_groups_need_patients() -> None:
    with pytest.raises(PredictionError, match="got 5 splits for 3 patients"):
        patient_groups([1, 2, 3, 3], 5, seed=0)


def test_a_nested_blend_never_sees_its_own_patients() -> None:
    data = problem()
    nested = nested_blend(data["targets"], data["models"], data["patients"], n_splits=3)
    for number in range(3):
        outside = nested.split != number
        fit = simplex_weights(data["targets"][outside], data["models"][:, outside])
        np.testing.assert_allclose(nested.weights[number], fit.weights, atol=1e-9)
        expected = blend_probabilities(data["models"][:, ~outside], fit.weights)
        np.testing.assert_allclose(nested.probabilities[~outside], expected, atol=1e-9)
    # What happens to a patient's targets must not reach that patient's own blend.
    changed = data["targets"].copy()
    own = data["patients"] == data["patients"][0]
    changed[own] = np.eye(6)[0]
    other = nested_blend(changed, data["models"], data["patients"], n_splits=3)
    np.testing.assert_array_equal(nested.probabilities[own], other.probabilities[own])
    elsewhere = nested.split != nested.split[0]
    assert not np.allclose(nested.probabilities[elsewhere], other.probabilities[elsewhere])


def test_a_nested_blend_weighs_rows_by_tier() -> None:
    data = problem()
    good = data["votes"] >= 10
    nested = nested_blend(
        data["targets"], data["models"], data["patients"], n_splits=3, row_weights=good
    )
    outside = (nested.split != 1) & good
    fit = simplex_weights(data["targets"][outside], data["models"][:, outside])
    np.testing.assert_allclose(nested.weights[1], fit.weights, atol=1e-8)
    assert nested.probabilities.sum(axis=1) == pytest.approx(1)


def test_rows_of_one_patient_cannot_be_nested() -> None:
    data = problem()
    with pytest.raises(PredictionError, match=r"got rows of one patient only\. Fit on a tier"):
        nested_blend(
            data["targets"], data["models"], data["patients"], row_weights=data["patients"] == 3
        )


def test_weights_of_two_patients_can_always_be_nested() -> None:
    data = problem(n_models=2)
    weighted = np.isin(data["patients"], [3, 17])
    for seed in range(25):
        nested = nested_blend(
            data["targets"], data["models"], data["patients"], seed=seed, row_weights=weighted
        )
        assert len(np.unique(nested.split[weighted])) == 2


def test_a_nested_blend_must_fit_its_rows() -> None:
    data = problem()
    n_rows = len(data["votes"])
    with pytest.raises(PredictionError, match=rf"one patient for each of {n_rows} rows, got"):
        nested_blend(data["targets"], data["models"], data["patients"][1:])
    with pytest.raises(PredictionError, match=rf"one number for each of {n_rows} rows, got"):
        nested_blend(
            data["targets"], data["models"], data["patients"], row_weights=np.ones(n_rows - 1)
        )
    with pytest.raises(PredictionError, match="finite, at least 0 and not all 0"):
        nested_blend(
            data["targets"], data["models"], data["patients"], row_weights=np.zeros(n_rows)
        )
    with pytest.raises(PredictionError, match="one number for each of 4 rows, got"):
        patient_groups([1, 2, 3, 3], 2, 0, row_weights=[1.0])
