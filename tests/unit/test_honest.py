from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hms_ray.errors import PredictionError
from hms_ray.evaluate.blend import blend_probabilities, simplex_weights
from hms_ray.evaluate.blend_report import BEST_SINGLE, BEST_TRIAL, EQUAL, BlendReport, blend_report
from hms_ray.evaluate.honest import (
    clustered_interval,
    nested_blend,
    nested_choice,
    paired_difference,
    patient_bootstrap,
    patient_groups,
)
from hms_ray.evaluate.metric import OBJECTIVES, kl_rows


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


def report_of(data: dict[str, np.ndarray], **changes: Any) -> BlendReport:
    names = [f"trial {number}" for number in range(len(data["models"]))]
    arguments: dict[str, Any] = {"names": names, "n_repeats": 2, **changes}
    return blend_report(
        data["targets"],
        data["models"],
        patients=data["patients"],
        total_votes=data["votes"],
        **arguments,
    )


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


def test_nested_choices_are_made_on_other_splits() -> None:
    scores = np.array([[0.0, 0.0, 9.0, 9.0], [1.0, 1.0, 1.0, 1.0]])
    split = np.array([0, 0, 1, 1])
    assert nested_choice(scores, split, np.ones(4)).tolist() == [1, 0]
    assert nested_choice(scores, split, np.array([1.0, 1, 0, 0])).tolist() == [0, 0]


def tiered(seed: int = 3) -> dict[str, np.ndarray]:
    """Models of which each vote tier has its own best, and few patients to choose by."""
    data = problem(n_patients=12, seed=seed)
    good = data["votes"] >= 10
    for number, rows in ((0, good), (1, ~good), (2, ~good)):
        data["models"][number, rows] = 0.6 * data["models"][number, rows] + 0.4 / 6
    return data


def by_hand(
    data: dict[str, np.ndarray], chosen: np.ndarray, seeds: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Row scores of the nested blend and the nested best single, and the choices."""
    targets, models = data["targets"], data["models"]
    scores = [kl_rows(targets, model) for model in models]
    blends, singles, picks = [], [], []
    for seed in seeds:
        split = patient_groups(data["patients"], 5, seed, chosen)
        blend, single = np.empty(len(targets)), np.empty(len(targets))
        for number in range(5):
            inside = split == number
            others = chosen & ~inside
            picks.append(int(np.argmin([score[others].mean() for score in scores])))
            single[inside] = scores[picks[-1]][inside]
            weights = simplex_weights(targets[others], models[:, others]).weights
            mixed = np.einsum("m,mnk->nk", weights, models[:, inside])
            blend[inside] = kl_rows(targets[inside], mixed)
        blends.append(blend)
        singles.append(single)
    return np.mean(blends, axis=0), np.mean(singles, axis=0), picks


@pytest.mark.parametrize(("fit_rows", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_the_report_scores_every_method(fit_rows: str, fewest: int) -> None:
    data = tiered()
    report = report_of(data, fit_rows=fit_rows, seed=4)
    chosen = data["votes"] >= fewest
    scores = np.stack([kl_rows(data["targets"], model) for model in data["models"]])
    best = int(np.argmin(scores[:, chosen].mean(axis=1)))
    equal = kl_rows(data["targets"], data["models"].mean(axis=0))
    blend, single, picks = by_hand(data, chosen, seeds=(4, 5))
    # Otherwise a choice made in sample, or on other rows, would not show.
    assert len(set(picks)) > 1
    assert fewest == 0 or best != int(np.argmin(scores.mean(axis=1)))
    assert report.best == best
    assert report.nested_best == {n: picks.count(n) / len(picks) for n in sorted(set(picks))}
    fit = simplex_weights(data["targets"][chosen], data["models"][:, chosen])
    np.testing.assert_allclose(report.fit.weights, fit.weights, atol=1e-6)
    assert report.nested_weights.shape == (10, 4)
    inside = kl_rows(data["targets"], blend_probabilities(data["models"], fit.weights))
    expected = {
        "best single": (scores[best], single),
        "equal weights": (equal, equal),
        "simplex weights": (inside, blend),
    }
    assert [method.name for method in report.methods] == list(expected)
    for objective, least in OBJECTIVES.items():
        rows = data["votes"] >= least
        assert report.n_rows[objective] == rows.sum()
        for method in report.methods:
            in_sample, nested = expected[method.name]
            assert method.in_sample[objective] == pytest.approx(in_sample[rows].mean(), abs=1e-7)
            assert method.nested[objective] == pytest.approx(nested[rows].mean(), abs=1e-7)


@pytest.mark.parametrize(("fit_rows", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_the_report_compares_the_nested_blend(fit_rows: str, fewest: int) -> None:
    data = tiered()
    report = report_of(data, fit_rows=fit_rows, seed=4)
    chosen, patients = data["votes"] >= fewest, data["patients"]
    blend, single, _ = by_hand(data, chosen, seeds=(4, 5))
    alternatives = {
        BEST_TRIAL: kl_rows(data["targets"], data["models"][report.best]),
        BEST_SINGLE: single,
        EQUAL: kl_rows(data["targets"], data["models"].mean(axis=0)),
    }
    assert [comparison.against for comparison in report.comparisons] == list(alternatives)
    for comparison in report.comparisons:
        other = alternatives[comparison.against]
        for objective, least in OBJECTIVES.items():
            rows = data["votes"] >= least
            expected = paired_difference(blend[rows], other[rows], patients[rows])
            found = comparison.differences[objective]
            assert found is not None
            assert found.mean == pytest.approx(expected.mean, abs=1e-7)
            assert found.low == pytest.approx(expected.low, abs=1e-7)
            assert (found.n_rows, found.n_patients) == (rows.sum(), expected.n_patients)
        assert comparison.fitted == comparison.differences[fit_rows]
        assert comparison.verdict == comparison.fitted.verdict
        drawn = patient_bootstrap(
            (blend - other)[chosen], patients[chosen], np.random.default_rng(4)
        )
        assert comparison.bootstrap.low == pytest.approx(drawn.low, abs=1e-7)
        assert comparison.bootstrap.high == pytest.approx(drawn.high, abs=1e-7)


def test_a_verdict_is_that_of_the_rows_that_are_fitted_on() -> None:
    data = problem()
    good = data["votes"] >= 10
    # Equal models on the rows of many votes: only those of few tell them apart.
    data["models"][:, good] = data["models"][0, good]
    against = report_of(data, fit_rows="kl_10").comparisons[0]
    everywhere = against.differences["kl_all"]
    assert everywhere is not None
    assert (everywhere.verdict, against.verdict) == ("better", "tie")


def test_the_nested_blend_is_told_by_tier_and_class() -> None:
    data = problem()
    report = report_of(data, fit_rows="kl_all")
    nested = report.methods[2].nested["kl_all"]
    assert sum(report.by_class.values()) == pytest.approx(nested)
    blend, _, _ = by_hand(data, np.ones(len(data["votes"]), bool), seeds=(0, 1))
    for name, fewest, most in (("1-3", 1, 3), ("4-9", 4, 9), (">=10", 10, 99)):
        rows = (data["votes"] >= fewest) & (data["votes"] <= most)
        assert report.by_tier[name] == pytest.approx(blend[rows].mean(), abs=1e-7)
    told = report.to_json()["nested_blend"]
    assert told == {"by_tier": report.by_tier, "by_class": report.by_class}


def test_marks_may_be_an_array() -> None:
    report = report_of(problem(), optimistic=np.array([False, True, False, False]))
    assert report.optimistic == (False, True, False, False)
    assert report_of(problem()).optimistic == (False,) * 4


def test_rows_of_one_patient_are_no_blend() -> None:
    data = problem()
    data["patients"] = np.zeros_like(data["patients"])
    message = r"kl_4 needs rows of at least two patients, got one patient\. What one"
    with pytest.raises(PredictionError, match=message):
        report_of(data, fit_rows="kl_4")
    data = problem()
    data["votes"] = np.where(data["patients"] == 3, 12, 3)
    with pytest.raises(PredictionError, match="kl_10 needs rows of at least two patients"):
        report_of(data, fit_rows="kl_10")
    # The tier of one patient has no interval, but the blend for all rows stands.
    told = report_of(data, fit_rows="kl_all")
    alone = told.comparisons[0].to_json()["kl_10"]
    assert (alone["low"], alone["high"], alone["verdict"]) == (None, None, "tie")


def test_the_report_is_plain_json() -> None:
    text = json.dumps(report_of(problem(), optimistic=[True] * 4).to_json(), allow_nan=False)
    told = json.loads(text)
    assert sum(told["weights"].values()) == pytest.approx(1)
    assert told["optimistic"] == [f"trial {number}" for number in range(4)]
    assert told["gap"] <= 1e-9
    against = told["nested_blend_minus"][EQUAL]
    assert set(against) == {"verdict", "kl_all", "kl_4", "kl_10", "bootstrap"}
    assert against["bootstrap"]["low"] < against["kl_10"]["mean"] < against["bootstrap"]["high"]


def test_equal_models_are_a_tie() -> None:
    data = problem()
    data["models"] = np.repeat(data["models"][:1], 3, axis=0)
    report = report_of(data)
    assert [comparison.verdict for comparison in report.comparisons] == ["tie"] * 3


def test_tiers_without_rows_are_none() -> None:
    data = problem()
    data["votes"] = np.minimum(data["votes"], 5)
    report = report_of(data, fit_rows="kl_4")
    assert report.methods[2].nested["kl_10"] is None
    assert report.comparisons[0].differences["kl_10"] is None
    with pytest.raises(PredictionError, match="kl_10 needs rows of at least 10 votes, got none"):
        report_of(data, fit_rows="kl_10")


def test_few_patients_make_fewer_splits() -> None:
    report = report_of(problem(n_patients=3))
    assert report.n_splits == 3


def test_report_inputs_must_fit() -> None:
    data = problem()
    with pytest.raises(PredictionError, match="2 names and 4 marks for 4 models"):
        report_of(data, names=["a", "b"])
    with pytest.raises(PredictionError, match="different names, got a, a, b, c"):
        report_of(data, names=["a", "a", "b", "c"])
    data["votes"] = data["votes"][1:]
    with pytest.raises(PredictionError, match="one patient and one number of votes"):
        report_of(data)
