from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import (
    clustered_interval,
    independent_difference,
    intervals_by_objective,
    paired_difference,
    patient_bootstrap,
    patient_groups,
)


def test_one_row_per_patient_gives_the_textbook_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = clustered_interval(values, np.arange(40))
    expected = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)
    assert (found.n_rows, found.n_patients) == (40, 40)


def test_repeated_rows_do_not_narrow_the_interval() -> None:
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


def test_intervals_have_their_nominal_coverage() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        sizes = generator.integers(1, 15, size=60)
        patients = np.repeat(np.arange(60), sizes)
        values = generator.normal(size=60)[patients] + generator.normal(size=len(patients))
        found = clustered_interval(values, patients)
        covered += found.low <= 0 <= found.high
    assert 0.91 <= covered / 400 <= 0.985


def test_bootstrap_agrees_with_the_clustered_interval() -> None:
    generator = np.random.default_rng(1)
    patients = np.repeat(np.arange(200), generator.integers(1, 12, size=200))
    values = generator.normal(size=200)[patients] + generator.normal(size=len(patients))
    formula = clustered_interval(values, patients)
    (drawn,) = patient_bootstrap([values], patients, np.random.default_rng(0), n=4000)
    assert drawn.mean == formula.mean
    width = formula.high - formula.low
    assert abs(drawn.low - formula.low) < 0.08 * width
    assert abs(drawn.high - formula.high) < 0.08 * width


def test_bootstrap_is_reproducible_from_its_generator() -> None:
    values, patients = np.arange(60.0), np.repeat(np.arange(30), 2)
    first, second, other = (
        patient_bootstrap([values], patients, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert first == second
    assert other[0].low != first[0].low or other[0].high != first[0].high


def test_predictions_share_the_resamples_of_a_bootstrap() -> None:
    generator = np.random.default_rng(0)
    rows, patients = generator.normal(size=(3, 200)), generator.integers(0, 30, size=200)
    found = patient_bootstrap(rows, patients, np.random.default_rng(5), n=500)
    for scores, interval in zip(rows, found, strict=True):
        (alone,) = patient_bootstrap([scores], patients, np.random.default_rng(5), n=500)
        assert interval.low == pytest.approx(alone.low, rel=1e-9)
        assert interval.high == pytest.approx(alone.high, rel=1e-9)
        assert (interval.n_rows, interval.n_patients) == (200, alone.n_patients)


def test_verdicts_of_differences() -> None:
    generator = np.random.default_rng(2)
    patients = np.repeat(np.arange(50), 4)
    rows = generator.gamma(2, size=200)
    assert paired_difference(rows, rows, patients).tie
    assert paired_difference(rows, rows, patients).mean == 0
    noise = generator.normal(scale=0.1, size=200)
    assert paired_difference(rows, rows + noise, patients).verdict == "tie"
    assert paired_difference(rows, rows + 0.1 + noise, patients).verdict == "better"
    assert paired_difference(rows + 0.1 + noise, rows, patients).verdict == "worse"


def test_one_patient_gives_an_infinite_interval() -> None:
    difference = paired_difference([1.0, 2.0], [5.0, 9.0], [3, 3])
    assert (difference.mean, difference.low, difference.high) == (-5.5, -np.inf, np.inf)
    assert difference.tie
    (drawn,) = patient_bootstrap([[1.0, 2.0, 3.0]], [1, 1, 1], np.random.default_rng(0))
    assert (drawn.mean, drawn.low, drawn.high) == (2.0, -np.inf, np.inf)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(broken: float) -> None:
    message = rf"row scores must be finite numbers, got {broken}, in 1 row\(s\): 2"
    with pytest.raises(PredictionError, match=message):
        paired_difference([1.0, 2.0, broken], [5.0, 9.0, 1.0], [3, 3, 4])
    with pytest.raises(PredictionError, match=message):
        patient_bootstrap(
            [[1.0, 2.0, 3.0], [1.0, 2.0, broken]], [3, 3, 4], np.random.default_rng(0)
        )


def test_scores_must_fit_patients() -> None:
    with pytest.raises(PredictionError, match="one score and one patient for each row"):
        clustered_interval([1.0, 2.0], [1])
    with pytest.raises(PredictionError, match="an interval needs rows, got none"):
        clustered_interval([], [])
    with pytest.raises(PredictionError, match="must have the same rows"):
        paired_difference([1.0, 2.0], [1.0], [1, 2])


def test_groups_keep_patients_together_and_are_balanced() -> None:
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(100), generator.integers(1, 20, size=100))
    split = patient_groups(patients, 5, seed=0)
    for patient in np.unique(patients):
        assert len(np.unique(split[patients == patient])) == 1
    sizes = np.bincount(split, minlength=5)
    assert sizes.max() - sizes.min() <= 20
    assert (patient_groups(patients, 5, seed=0) == split).all()
    assert (patient_groups(patients, 5, seed=1) != split).any()


def test_groups_balance_the_weighted_rows() -> None:
    patients = np.repeat(np.arange(40), 5)
    weights = np.isin(patients, [3, 17])
    for seed in range(20):
        split = patient_groups(patients, 5, seed, weights)
        assert len(np.unique(split[weights])) == 2


def test_more_groups_than_patients_are_refused() -> None:
    with pytest.raises(PredictionError, match="got 5 splits for 3 patients"):
        patient_groups([1, 2, 3, 3], 5, seed=0)


@pytest.mark.parametrize("broken", [[1.0], [0.0] * 4])
def test_row_weights_of_groups_are_checked(broken: list[float]) -> None:
    with pytest.raises(PredictionError, match="row weights must be"):
        patient_groups([1, 2, 3, 3], 2, 0, row_weights=broken)


def test_independent_difference_is_welchs_if_each_patient_has_one_row() -> None:
    generator = np.random.default_rng(5)
    first, second = generator.normal(1.0, 2.0, 12), generator.normal(0.4, 0.5, 60)
    found = independent_difference(
        clustered_interval(first, np.arange(12)), clustered_interval(second, np.arange(60))
    )
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.n_rows, found.n_patients, found.verdict) == (72, 72, "tie")


def test_independent_difference_with_one_patient_or_equal_scores() -> None:
    one = clustered_interval(np.array([1.0, 2.0]), np.zeros(2))
    constant = clustered_interval(np.full(4, 0.5), np.arange(4))
    found = independent_difference(one, constant)
    assert (found.mean, found.low, found.high) == (1.0, -np.inf, np.inf)
    found = independent_difference(constant, clustered_interval(np.full(3, 0.2), np.arange(3)))
    assert (found.low, found.high) == pytest.approx((0.3, 0.3))
    assert found.verdict == "worse"


def test_intervals_by_objective_use_the_rows_of_each() -> None:
    generator = np.random.default_rng(6)
    scores, votes, patients = generator.normal(size=40), np.arange(40) % 9, np.arange(40) // 4
    found = intervals_by_objective(scores, votes, patients)
    assert found["kl_all"] == clustered_interval(scores, patients)
    assert found["kl_4"] == clustered_interval(scores[votes >= 4], patients[votes >= 4])
    assert found["kl_10"] is None
