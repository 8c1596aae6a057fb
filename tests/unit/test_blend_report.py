"""The report of a blend, against the same numbers computed by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hms_ray.ensemble.cross_validation import Candidate
from hms_ray.ensemble.methods.arithmetic import Fixed, Simplex
from hms_ray.ensemble.methods.registry import named_methods
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.report import blend_report
from hms_ray.ensemble.result import (
    BASELINES,
    BEST_IN_SAMPLE,
    BEST_SINGLE,
    EQUAL,
    SIMPLEX,
    BlendReport,
)
from hms_ray.ensemble.selection import estimate_selection
from hms_ray.ensemble.selection_result import CandidateScore
from hms_ray.ensemble.simplex import blend_probabilities, simplex_weights
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import (
    clustered_interval,
    paired_difference,
    patient_bootstrap,
)
from hms_ray.evaluate.metric import OBJECTIVES, kl_divergence, kl_rows
from tests.ensemble_data import (
    EnsembleSample,
    ensemble_sample,
    nested_by_hand,
    nested_simplex,
    select,
)

METHODS = named_methods(["equal", "best_single", "simplex", "log_linear"])


def report_of(data: EnsembleSample, **changes: Any) -> BlendReport:
    names = [f"trial {number}" for number in range(len(data.models))]
    arguments: dict[str, Any] = {"names": names, "n_repeats": 2, **changes}
    return blend_report(
        data.targets,
        data.models,
        patients=data.patients,
        total_votes=data.votes,
        **arguments,
    )


def rated(report: BlendReport, name: str) -> CandidateScore:
    return next(entry for entry in report.selection.candidates if entry.name == name)


def tiered() -> EnsembleSample:
    """Models of which each vote tier has its own best, and few patients to choose by."""
    data = ensemble_sample(4, n_patients=14, seed=3, alike=True)
    good = data.votes >= 10
    for number, rows in ((0, good), (1, ~good), (2, ~good)):
        data.models[number, rows] = 0.6 * data.models[number, rows] + 0.4 / 6
    return data


def by_hand(
    data: EnsembleSample, chosen: np.ndarray, seeds: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Row scores of the nested blend and of the nested best single model."""
    blend, single = (
        np.mean([nested_by_hand(data, method, chosen, seed) for seed in seeds], axis=0)
        for method in (Simplex(), BestSingle())
    )
    return blend, single


@pytest.mark.parametrize(("objective", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_every_baseline_is_scored(objective: str, fewest: int) -> None:
    data = tiered()
    report = report_of(data, objective=objective, seed=4)
    chosen = data.votes >= fewest
    scores = np.stack([kl_rows(data.targets, model) for model in data.models])
    best = int(np.argmin(scores[:, chosen].mean(axis=1)))
    equal = kl_rows(data.targets, data.models.mean(axis=0))
    blend, single = by_hand(data, chosen, seeds=(4, 5))
    # Otherwise a choice made in sample, or on other rows, would not show.
    assert (single != scores[best]).any()
    assert fewest == 0 or best != int(np.argmin(scores.mean(axis=1)))
    assert report.best == best
    fit = simplex_weights(data.targets[chosen], data.models[:, chosen])
    assert report.weights is not None
    np.testing.assert_allclose(report.weights, fit.weights, atol=1e-6)
    assert report.nested.weights is not None
    assert report.nested.weights.shape == (10, 4)
    inside = kl_rows(data.targets, blend_probabilities(data.models, fit.weights))
    expected = {
        "equal": (equal, equal),
        "best_single": (scores[best], single),
        "simplex": (inside, blend),
    }
    assert [entry.name for entry in report.selection.candidates] == list(expected)
    for name, (in_sample, nested) in expected.items():
        found = rated(report, name)
        assert found.in_sample == pytest.approx(in_sample[chosen].mean(), abs=1e-7)
        assert found.nested == pytest.approx(nested[chosen].mean(), abs=1e-7)
        for tier, least in OBJECTIVES.items():
            rows = data.votes >= least
            assert report.n_rows[tier] == rows.sum()
            assert found.by_objective[tier] == pytest.approx(nested[rows].mean(), abs=1e-7)
    assert report.nested.scores == pytest.approx(rated(report, "simplex").by_objective)
    assert report.in_sample_scores["kl_4"] == pytest.approx(inside[data.votes >= 4].mean())


@pytest.mark.parametrize(("objective", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_nested_predictions_are_compared_row_by_row(objective: str, fewest: int) -> None:
    data = tiered()
    report = report_of(data, objective=objective, seed=4)
    chosen, patients = data.votes >= fewest, data.patients
    blend, single = by_hand(data, chosen, seeds=(4, 5))
    alternatives = {
        BEST_IN_SAMPLE: kl_rows(data.targets, data.models[report.best]),
        BEST_SINGLE: single,
        EQUAL: kl_rows(data.targets, data.models.mean(axis=0)),
    }
    assert [comparison.against for comparison in report.nested.comparisons] == list(alternatives)
    for comparison in report.nested.comparisons:
        other = alternatives[comparison.against]
        for tier, least in OBJECTIVES.items():
            rows = data.votes >= least
            expected = paired_difference(blend[rows], other[rows], patients[rows])
            found = comparison.differences[tier]
            assert found is not None
            assert found.mean == pytest.approx(expected.mean, abs=1e-7)
            assert found.low == pytest.approx(expected.low, abs=1e-7)
            assert (found.n_rows, found.n_patients) == (rows.sum(), expected.n_patients)
        assert comparison.fitted == comparison.differences[objective]
        assert comparison.verdict == comparison.fitted.verdict
        (drawn,) = patient_bootstrap(
            [(blend - other)[chosen]], patients[chosen], np.random.default_rng(4)
        )
        assert comparison.bootstrap.low == pytest.approx(drawn.low, abs=1e-7)
        assert comparison.bootstrap.high == pytest.approx(drawn.high, abs=1e-7)
        to_other = rated(report, "simplex").minus_others[comparison.against]
        assert to_other == comparison.differences[objective]
    expected = clustered_interval(blend[chosen], patients[chosen])
    assert (report.nested.interval.low, report.nested.interval.high) == pytest.approx(
        (expected.low, expected.high), abs=1e-7
    )
    (drawn,) = patient_bootstrap([blend[chosen]], patients[chosen], np.random.default_rng(4))
    assert report.nested.bootstrap.high == pytest.approx(drawn.high, abs=1e-7)


def test_verdict_is_that_of_the_fitted_rows() -> None:
    data = ensemble_sample(4)
    good = data.votes >= 10
    # Equal models on the rows of many votes: only those of few tell them apart.
    data.models[:, good] = data.models[0, good]
    against = report_of(data, objective="kl_10").nested.comparisons[0]
    everywhere = against.differences["kl_all"]
    assert everywhere is not None
    assert (everywhere.verdict, against.verdict) == ("better", "tie")


def test_nested_kl_by_tier_and_class() -> None:
    data = ensemble_sample(4)
    report = report_of(data, objective="kl_all")
    by_class = [part for part in report.nested.by_class.values() if part is not None]
    assert sum(by_class) == pytest.approx(report.nested.scores["kl_all"])
    blend, _ = by_hand(data, np.ones(len(data.votes), bool), seeds=(0, 1))
    for name, fewest, most in (("1-3", 1, 3), ("4-9", 4, 9), (">=10", 10, 99)):
        rows = (data.votes >= fewest) & (data.votes <= most)
        assert report.nested.by_tier[name] == pytest.approx(blend[rows].mean(), abs=1e-7)


def test_given_method_is_compared_with_the_baselines() -> None:
    data = ensemble_sample(3)
    report = report_of(data, candidates=METHODS, method="log_linear", objective="kl_4", seed=3)
    assert (report.method, report.selection_estimate, report.weights) == ("log_linear", None, None)
    assert report.nested.weights is None
    assert report.gap is not None
    assert 0 <= report.gap < 1e-9
    chosen = select(data, METHODS, "kl_4", seeds=(3, 4))
    for found, expected in zip(report.selection.candidates, chosen.candidates, strict=True):
        assert (found.nested, found.in_sample) == (
            expected.nested,
            expected.in_sample,
        )
        assert found.minus_reference == expected.minus_reference
    assert [one.against for one in report.nested.comparisons] == [
        BEST_IN_SAMPLE, BEST_SINGLE, EQUAL, SIMPLEX,
    ]  # fmt: skip
    good = data.votes >= 4
    fitted = METHODS[3].fit(data.targets, data.models, good)
    np.testing.assert_allclose(report.in_sample, fitted.predict(data.models), atol=1e-9)
    assert report.nested.comparisons[-1].fitted == rated(report, "log_linear").minus_reference
    stored = report.to_json()
    assert (stored["selection"], stored["chosen_by_nested_kl"]) == (None, False)
    assert (stored["weights"], stored["nested_weights"]) == (None, None)


def test_nested_predictions_are_those_of_the_first_seed() -> None:
    data = ensemble_sample(4)
    report = report_of(data, objective="kl_all", seed=3)
    nested = [nested_simplex(*data[:3], seed=seed) for seed in (3, 4)]
    np.testing.assert_allclose(report.nested.probabilities, nested[0], atol=1e-12)
    mean = np.mean([kl_divergence(data.targets, one) for one in nested])
    assert report.nested.scores["kl_all"] == pytest.approx(mean)


def test_method_may_be_fitted_on_other_rows_than_scored() -> None:
    data = ensemble_sample(4)
    own = Candidate(Simplex(), "kl_all")
    report = report_of(data, candidates=[*BASELINES, own], method="simplex@kl_all")
    assert report.method == "simplex@kl_all"
    assert report.selection.objective == "kl_10"
    fit = simplex_weights(data.targets, data.models)
    assert report.weights is not None
    np.testing.assert_allclose(report.weights, fit.weights, atol=1e-6)
    data = data._replace(votes=np.where(data.patients == 0, 12, 3))
    message = r"simplex@kl_10 needs rows of at least 10 votes of the patients .*, got none"
    with pytest.raises(PredictionError, match=message):
        report_of(
            data,
            candidates=[*BASELINES, Candidate(Simplex(), "kl_10")],
            method="simplex@kl_10",
            objective="kl_all",
        )


def test_selected_method_has_the_nested_estimate_of_the_selection() -> None:
    data = ensemble_sample(3)
    report = report_of(data, candidates=METHODS, method=None, objective="kl_all")
    assert report.method == report.selection.name
    candidates = [Candidate(method) for method in METHODS]
    expected = estimate_selection(data.data(), candidates, "simplex", "kl_all")
    np.testing.assert_array_equal(report.nested.probabilities, expected.probabilities)
    assert report.selection_estimate is not None
    assert report.nested.interval == expected.nested
    rows = kl_rows(data.targets, report.nested.probabilities)
    assert report.nested.scores["kl_all"] == pytest.approx(rows.mean())
    against = {one.against: one for one in report.nested.comparisons}
    single = kl_rows(data.targets, data.models[report.best])
    by_hand = paired_difference(rows, single, data.patients)
    assert against[BEST_IN_SAMPLE].fitted.high == pytest.approx(by_hand.high)
    # The simplex of the same splits is the one that the estimate itself compares with.
    assert against[SIMPLEX].fitted.mean == pytest.approx(expected.minus_reference.mean, abs=1e-9)
    stored = report.to_json()
    assert stored["chosen_by_nested_kl"] is True
    assert stored["selection"]["times_chosen"] == expected.times_chosen
    assert stored["methods"]["chosen_on_the_scored_rows"] is True


def test_given_weights_are_not_changed() -> None:
    data = ensemble_sample(3)
    methods = [*BASELINES, Fixed([0.5, 0.5, 0.0], "halves")]
    report = report_of(data, candidates=methods, method="halves", n_repeats=1)
    np.testing.assert_allclose(report.nested.probabilities, report.in_sample, atol=1e-15)
    np.testing.assert_allclose(report.nested.probabilities, data.models[:2].mean(axis=0))
    assert rated(report, "halves").optimism == pytest.approx(0, abs=1e-12)
    wrong = [*BASELINES, Fixed([0.5, 0.6, 0.0], "halves")]
    with pytest.raises(PredictionError, match="weights must be at least 0 and sum to 1"):
        report_of(data, candidates=wrong, method="halves", n_repeats=1)


def test_marks_may_be_an_array() -> None:
    report = report_of(ensemble_sample(4), optimistic=np.array([False, True, False, False]))
    assert report.optimistic == (False, True, False, False)
    assert report_of(ensemble_sample(4)).optimistic == (False,) * 4


def test_rows_of_one_patient_are_refused() -> None:
    data = ensemble_sample(4)
    alone = data._replace(patients=np.zeros_like(data.patients))
    message = r"for kl_4 needs rows of at least two patients .* of 1 patient\(s\)\."
    with pytest.raises(PredictionError, match=message):
        report_of(alone, objective="kl_4")
    few = data._replace(votes=np.where(data.patients == 3, 12, 3))
    with pytest.raises(PredictionError, match="for kl_10 needs rows of at least two patients"):
        report_of(few, objective="kl_10")
    # The tier of one patient has no interval, but the blend for all rows stands.
    stored = report_of(few, objective="kl_all")
    alone_there = stored.nested.comparisons[0].to_json()["kl_10"]
    assert (alone_there["low"], alone_there["high"]) == (None, None)
    assert alone_there["verdict"] == "tie"


def test_report_is_plain_json() -> None:
    report = report_of(ensemble_sample(4), optimistic=[True] * 4)
    stored = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert sum(stored["weights"].values()) == pytest.approx(1)
    assert stored["optimistic"] == [f"trial {number}" for number in range(4)]
    assert stored["gap"] <= 1e-9
    low, high = stored["nested_weights"]["trial 0"]
    assert low < stored["weights"]["trial 0"] < high
    against = stored["nested_minus"][EQUAL]
    assert set(against) == {"verdict", "kl_all", "kl_4", "kl_10", "bootstrap"}
    assert against["bootstrap"]["low"] < against["kl_10"]["mean"] < against["bootstrap"]["high"]
    assert stored["nested_interval"]["mean"] == pytest.approx(stored["nested"]["kl_10"])


def test_equal_models_are_a_tie() -> None:
    data = ensemble_sample(4)
    data = data._replace(models=np.repeat(data.models[:1], 3, axis=0))
    report = report_of(data)
    assert [comparison.verdict for comparison in report.nested.comparisons] == ["tie"] * 3


def test_tiers_without_rows_are_none() -> None:
    data = ensemble_sample(4)
    data = data._replace(votes=np.minimum(data.votes, 5))
    report = report_of(data, objective="kl_4")
    assert report.nested.scores["kl_10"] is None
    assert report.nested.comparisons[0].differences["kl_10"] is None
    with pytest.raises(PredictionError, match=r"at least 10 votes, got 0 row\(s\) of 0 patient"):
        report_of(data, objective="kl_10")


def test_few_patients_make_fewer_splits() -> None:
    assert report_of(ensemble_sample(4, n_patients=3), objective="kl_all").selection.n_splits == 3


@pytest.mark.parametrize(
    ("n_patients", "method", "message"),
    [
        (
            2,
            "stacked",
            "nested cross-validation with stacked needs rows of at least 3 patients, got 2",
        ),
        (
            3,
            None,
            "nested selection among methods with stacked .* at least 4 patients, got 3",
        ),
    ],
)
def test_too_few_patients_are_refused(n_patients: int, method: str | None, message: str) -> None:
    methods = named_methods(["equal", "best_single", "simplex", "stacked"])
    data = ensemble_sample(2, n_patients=n_patients)
    arguments = {"candidates": methods, "method": method, "objective": "kl_all"}
    steps: list[int] = []
    with pytest.raises(PredictionError, match=message):
        report_of(data, **arguments, progress=lambda done, _: steps.append(done))
    assert steps == []  # refused before the first fit
    enough = report_of(ensemble_sample(2, n_patients=n_patients + 1), **arguments, n_repeats=1)
    assert np.isfinite(enough.nested.interval.mean)


def test_error_of_too_few_patients_names_the_rows() -> None:
    data = ensemble_sample(2, n_patients=8)
    data = data._replace(votes=np.where(data.patients < 2, 12, 3))
    methods = named_methods(["equal", "best_single", "simplex", "stacked"])
    message = "stacked needs rows of at least 10 votes of at least 3 patients, got 2"
    with pytest.raises(PredictionError, match=message):
        report_of(data, candidates=methods, method="stacked", objective="kl_10")


def test_method_may_be_any_candidate() -> None:
    data = ensemble_sample(3)
    report = report_of(data, candidates=METHODS, method="equal")
    assert report.weights is not None
    np.testing.assert_allclose(report.weights, [1 / 3] * 3)
    np.testing.assert_allclose(report.in_sample, data.models.mean(axis=0), atol=1e-12)
    assert report.nested.weights is not None
    np.testing.assert_allclose(report.nested.weights, 1 / 3)
    against = [one.against for one in report.nested.comparisons]
    assert against == [BEST_IN_SAMPLE, BEST_SINGLE, SIMPLEX]


def test_inputs_that_do_not_match_are_refused() -> None:
    data = ensemble_sample(4)
    with pytest.raises(PredictionError, match="2 names and 4 marks for 4 models"):
        report_of(data, names=["a", "b"])
    with pytest.raises(PredictionError, match="unique, got a, a, b, c"):
        report_of(data, names=["a", "a", "b", "c"])
    message = "must include equal, best_single, simplex, got no best_single among equal, s"
    with pytest.raises(PredictionError, match=message):
        report_of(data, candidates=named_methods(["equal", "simplex"]))
    with pytest.raises(PredictionError, match="got no stacked among equal, best_single, simplex"):
        report_of(data, method="stacked")
    with pytest.raises(PredictionError, match="one patient and one number of votes"):
        report_of(data._replace(votes=data.votes[1:]))


@pytest.mark.parametrize(("method", "total"), [("simplex", 10), (None, 10 + 5 * 5)])
def test_progress_runs_from_zero_to_the_total(method: str | None, total: int) -> None:
    calls: list[tuple[int, int]] = []
    report_of(
        ensemble_sample(2),
        method=method,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, total) for done in range(total + 1)]
