from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hms_ray.ensemble.cross_validation import Candidate, cross_validate
from hms_ray.ensemble.methods.arithmetic import Equal, Simplex
from hms_ray.ensemble.methods.base import FitRows, Method
from hms_ray.ensemble.methods.combined import Average, Recalibrated
from hms_ray.ensemble.methods.log_linear import LogLinear
from hms_ray.ensemble.methods.registry import all_methods
from hms_ray.ensemble.selection import estimate_selection, simplest_within_one_se
from hms_ray.ensemble.selection_result import SelectionEstimate
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import clustered_interval, patient_groups
from hms_ray.evaluate.metric import kl_rows
from tests.ensemble_data import EnsembleSample, ensemble_sample, nested_by_hand, select

METHODS: list[Method] = [Equal(), Simplex(), LogLinear(), LogLinear("context")]


def estimate(
    sample: EnsembleSample,
    methods: list[Method] = METHODS,
    objective: Any = "kl_all",
    **options: Any,
) -> SelectionEstimate:
    candidates = [Candidate(method) for method in methods]
    return estimate_selection(sample.data(), candidates, "simplex", objective, **options)


@pytest.fixture(scope="module")
def overconfident() -> EnsembleSample:
    """Models that are twice as confident as they should be: a temperature helps much."""
    return ensemble_sample(4, n_patients=80, sharpness=2.0)


@pytest.mark.parametrize(("objective", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_shared_fits_give_the_scores_of_separate_fits(objective: Any, fewest: int) -> None:
    sample = ensemble_sample(4, n_patients=30)
    methods = list(all_methods().values())
    candidates = [Candidate(method) for method in methods]
    shared = cross_validate(sample.data(), candidates, objective, [3], 5).scores[:, 0]
    for method, scores in zip(methods, shared, strict=True):
        expected = nested_by_hand(sample, method, sample.votes >= fewest, 3)
        np.testing.assert_allclose(scores, expected, atol=1e-7, err_msg=method.name)


class Recorder(Method):
    """Equal weights; records the rows of each fit."""

    name = "recorder"

    def __init__(self) -> None:
        self.fits: list[FitRows] = []

    def fit_rows(self, rows: FitRows) -> Any:
        self.fits.append(rows)
        return Equal().fit_rows(rows)


def test_members_are_fitted_once_per_split_and_objective() -> None:
    sample = ensemble_sample(3, n_patients=20)
    member = Recorder()
    candidates = [
        Candidate(member),
        Candidate(Average([member, Equal()], "both")),
        Candidate(Recalibrated(member)),
        Candidate(member, "kl_10"),
    ]
    cross_validate(sample.data(), candidates, "kl_all", [0], 5)
    split = patient_groups(sample.patients, 5, 0)
    expected = []
    for number in range(5):
        training = split != number
        expected += [int(training.sum()), int((training & (sample.votes >= 10)).sum())]
    assert [len(rows.targets) for rows in member.fits] == expected


def test_held_out_patients_never_reach_a_fit() -> None:
    sample, method = ensemble_sample(3, n_patients=20), Recorder()
    cross_validate(sample.data(), [Candidate(method)], "kl_all", [0], 5)
    split = patient_groups(sample.patients, 5, 0)
    for number, rows in enumerate(method.fits):
        np.testing.assert_array_equal(rows.patients, sample.patients[split != number])
        np.testing.assert_array_equal(rows.models, sample.models[:, split != number])


@pytest.mark.parametrize(("objective", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_scores_match_a_plain_loop(objective: Any, fewest: int) -> None:
    sample = ensemble_sample(4)
    counted = sample.votes >= fewest
    selection = select(sample, METHODS, objective)
    by_hand = [
        np.stack([nested_by_hand(sample, method, counted, seed) for seed in (0, 1)])
        for method in METHODS
    ]
    for found, rows, method in zip(selection.candidates, by_hand, METHODS, strict=True):
        assert found.name == method.name
        assert found.nested == pytest.approx(rows[:, counted].mean(), abs=1e-7)
        np.testing.assert_allclose(found.by_seed, rows[:, counted].mean(axis=1), atol=1e-7)
        fitted = method.fit(sample.targets, sample.models, counted)
        inside = kl_rows(sample.targets, fitted.predict(sample.models))[counted].mean()
        assert found.in_sample == pytest.approx(inside, abs=1e-9)
        assert found.optimism == pytest.approx(found.nested - found.in_sample)
        difference = (rows - by_hand[1]).mean(axis=0)[counted]
        expected = clustered_interval(difference, sample.patients[counted])
        reference = found.minus_reference
        np.testing.assert_allclose(
            [reference.mean, reference.low, reference.high],
            [expected.mean, expected.low, expected.high],
            atol=1e-7,
        )
        assert found.by_objective["kl_all"] == pytest.approx(rows.mean(), abs=1e-7)
        assert found.fit_seconds > 0
    assert selection.best == int(np.argmin([found.nested for found in selection.candidates]))
    assert selection.candidates[selection.best].minus_best.mean == 0
    assert selection.n_rows == counted.sum()
    assert selection.n_patients == len(np.unique(sample.patients[counted]))


def test_simplest_candidate_within_one_standard_error_is_selected() -> None:
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(50), 4)
    best = generator.normal(size=200)
    noise = generator.normal(size=200)
    noise -= noise.mean()
    error = clustered_interval(noise, patients).standard_error
    far, near = best + noise + 1.01 * error, best + noise + 0.99 * error
    assert simplest_within_one_se(np.stack([far, near, best]), patients)[:2] == (2, 1)
    assert simplest_within_one_se(np.stack([far, best, near]), patients)[:2] == (1, 1)
    assert simplest_within_one_se(np.stack([near, far, best]), patients)[:2] == (2, 0)
    # Equal predictions are a tie in any order.
    assert simplest_within_one_se(np.stack([best, best]), patients)[:2] == (0, 0)


def test_standard_error_is_that_of_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    interval = clustered_interval(values, np.arange(40))
    assert interval.standard_error == pytest.approx(stats.sem(values))


def test_a_needed_temperature_is_selected(overconfident: EnsembleSample) -> None:
    selection = select(overconfident, METHODS)
    assert selection.name.startswith("log_linear")
    assert selection.candidates[selection.chosen].minus_reference.verdict == "better"
    assert not selection.candidates[1].within_one_se
    found = estimate(overconfident)
    assert found.minus_reference.verdict == "better"
    assert sum(found.times_chosen.values()) == 5
    assert all(name.startswith("log_linear") for name in found.times_chosen)


def test_equal_weights_are_selected_for_identical_models() -> None:
    sample = ensemble_sample(1)
    sample = sample._replace(models=np.repeat(sample.models, 3, axis=0))
    selection = select(sample, METHODS[:2])
    assert selection.name == "equal"
    assert selection.candidates[1].minus_best.tie


def test_nested_estimate_of_selection_matches_a_plain_loop() -> None:
    sample = ensemble_sample(3, n_patients=14)
    found = estimate(sample, METHODS[:3], seed=4, objective="kl_4")
    counted = sample.votes >= 4
    split = patient_groups(sample.patients, 5, 4, counted)
    rows, chosen = np.empty(len(split)), []
    for number in range(5):
        inside, part = split == number, sample.rows(split != number)
        name = select(part, METHODS[:3], "kl_4", seeds=(0,)).name
        chosen.append(name)
        method = next(method for method in METHODS if method.name == name)
        fitted = method.fit(part.targets, part.models, part.votes >= 4)
        rows[inside] = kl_rows(sample.targets[inside], fitted.predict(sample.models[:, inside]))
    expected = clustered_interval(rows[counted], sample.patients[counted])
    assert found.nested.mean == pytest.approx(expected.mean, abs=1e-9)
    assert found.nested.high == pytest.approx(expected.high, abs=1e-9)
    assert found.times_chosen == {name: chosen.count(name) for name in set(chosen)}


def test_candidates_may_be_fitted_on_other_rows_than_scored() -> None:
    sample = ensemble_sample(4)
    methods = [Simplex(), Candidate(Simplex(), "kl_10")]
    selection = select(sample, methods, reference="simplex@kl_10")
    assert [found.name for found in selection.candidates] == ["simplex", "simplex@kl_10"]
    fitted = Simplex().fit(sample.targets, sample.models, sample.votes >= 10)
    inside = kl_rows(sample.targets, fitted.predict(sample.models)).mean()
    assert selection.candidates[1].in_sample == pytest.approx(inside, abs=1e-9)


def test_selection_is_plain_json() -> None:
    sample = ensemble_sample(3)
    stored = json.loads(json.dumps(select(sample, METHODS).to_json(), allow_nan=False))
    assert stored["chosen_on_the_scored_rows"] is True
    assert stored["chosen"] in [candidate["name"] for candidate in stored["candidates"]]
    assert stored["candidates"][1]["minus_reference"]["verdict"] == "tie"
    assert set(stored["candidates"][0]["by_objective"]) == {"kl_all", "kl_4", "kl_10"}
    stored = json.loads(json.dumps(estimate(sample).to_json(), allow_nan=False))
    assert set(stored) == {"nested", "minus_reference", "times_chosen", "inner_repeats"}
    assert (sum(stored["times_chosen"].values()), stored["inner_repeats"]) == (5, 1)


def test_few_patients_make_fewer_splits() -> None:
    sample = ensemble_sample(2, n_patients=3)
    assert select(sample, METHODS[:2]).n_splits == 3
    assert sum(estimate(sample, METHODS[:2]).times_chosen.values()) == 3


def test_invalid_candidates_and_too_few_patients_are_refused() -> None:
    sample = ensemble_sample(3)
    with pytest.raises(PredictionError, match="names must be unique, got simplex, simplex"):
        select(sample, [Simplex(), Simplex()])
    with pytest.raises(PredictionError, match="got none"):
        select(sample, [])
    with pytest.raises(PredictionError, match="at least two patients") as caught:
        select(sample._replace(votes=np.minimum(sample.votes, 5)), METHODS, "kl_10")
    assert caught.value.got == "0 row(s) of 0 patient(s)"
    with pytest.raises(PredictionError, match="one patient and one number of votes"):
        select(sample._replace(votes=sample.votes[1:]), METHODS)
    with pytest.raises(PredictionError, match=r"nested selection .* at least 3 patients, got 2"):
        estimate(ensemble_sample(2, n_patients=2), METHODS[:2])
