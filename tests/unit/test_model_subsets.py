from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.ensemble import model_subsets as sets
from hms_ray.ensemble.error_correlation import residual_correlation
from hms_ray.ensemble.methods.base import checked_rows
from hms_ray.ensemble.model_subsets import SubsetSearch
from hms_ray.ensemble.simplex import simplex_weights
from hms_ray.ensemble.subset_optima import SubsetOptima, backward_subsets, forward_subsets
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import paired_difference
from hms_ray.evaluate.metric import kl_divergence, kl_rows
from tests.ensemble_data import EnsembleSample, ensemble_sample, nested_simplex


def sets_of(data: EnsembleSample, row_weights: np.ndarray | None = None) -> SubsetSearch:
    return SubsetSearch.from_arrays(data.targets, data.models, data.patients, row_weights)


def optimum(data: EnsembleSample, members: tuple[int, ...]) -> float:
    return simplex_weights(data.targets, data.models[list(members)]).objective


@pytest.fixture(scope="module")
def data() -> EnsembleSample:
    """Five models, of which the last repeats the first."""
    drawn = ensemble_sample(5, n_patients=60)
    models = drawn.models.copy()
    models[4] = models[0]
    return drawn._replace(models=models)


def test_leave_one_out_is_the_kl_increase_without_each_model(data: EnsembleSample) -> None:
    results = sets_of(data).leave_one_out()
    everything = optimum(data, (0, 1, 2, 3, 4))
    for result in results:
        rest = [model for model in range(5) if model != result.model]
        assert result.rise == pytest.approx(optimum(data, tuple(rest)) - everything, abs=1e-9)
        nested = [
            kl_rows(
                data.targets,
                nested_simplex(data.targets, data.models[members], data.patients),
            )
            for members in (rest, list(range(5)))
        ]
        expected = paired_difference(*nested, data.patients)
        assert result.nested.mean == pytest.approx(expected.mean, abs=1e-7)
        assert result.nested.low == pytest.approx(expected.low, abs=1e-7)
    # One of two equal models can go; the interval of what is the same is a tie.
    assert results[0].rise == pytest.approx(0, abs=1e-9)
    assert not results[0].adds
    assert not results[4].adds
    assert any(result.adds for result in results[1:4])


def test_each_forward_step_adds_the_best_model(data: EnsembleSample) -> None:
    path = sets_of(data).forward_path()
    assert [len(step.members) for step in path] == [1, 2, 3, 4, 5]
    members: tuple[int, ...] = ()
    for step in path:
        outside = [model for model in range(5) if model not in members]
        lowest = min(optimum(data, (*members, model)) for model in outside)
        assert step.kl == pytest.approx(lowest, abs=1e-9)
        assert step.members[:-1] == members
        members = step.members
        assert step.weights.sum() == pytest.approx(1)
        assert set(np.flatnonzero(step.weights)) <= set(members)
        blended = np.einsum("m,mnc->nc", step.weights, data.models)
        assert step.kl == pytest.approx(kl_divergence(data.targets, blended), abs=1e-9)
        assert step.cost == len(members)
    assert all(later.kl <= earlier.kl + 1e-9 for earlier, later in itertools.pairwise(path))


@settings(max_examples=15, deadline=None)
@given(n_models=st.integers(2, 7), seed=st.integers(0, 10**6))
def test_gain_bounds_hold(n_models: int, seed: int) -> None:
    data = ensemble_sample(n_models, n_patients=8, seed=seed)
    optima = SubsetOptima(checked_rows(data.targets, data.models, None, None))
    bounds = optima.gain_bounds((0,))
    for model in range(1, n_models):
        gain = optima.kl((0,)) - optima.kl((0, model))
        assert -1e-9 <= gain <= bounds[model] + 1e-9


def test_each_backward_step_drops_the_least_useful_model(data: EnsembleSample) -> None:
    optima = SubsetOptima(checked_rows(data.targets, data.models, None, None))
    path = backward_subsets(optima, range(5))
    for larger, smaller in itertools.pairwise(path):
        lowest = min(optimum(data, rest) for rest in itertools.combinations(larger, len(smaller)))
        assert optima.kl(smaller) == pytest.approx(lowest, abs=1e-9)


@pytest.mark.parametrize("tolerance", [0.0, 0.003, 0.02, 0.1, 10.0])
def test_no_smaller_subset_is_within_the_tolerance(data: EnsembleSample, tolerance: float) -> None:
    found = sets_of(data).minimal(tolerance)
    most = optimum(data, (0, 1, 2, 3, 4)) + tolerance
    assert found.proven
    assert found.kl <= most + 2e-9
    assert found.kl == pytest.approx(optimum(data, found.members), abs=1e-9)
    size = len(found.members)
    assert size < 5
    if size > 1:
        smaller = itertools.combinations(range(5), size - 1)
        assert min(optimum(data, members) for members in smaller) > most - 1e-8


def test_exhaustive_search_corrects_an_incomplete_search(
    data: EnsembleSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sets_of(data).minimal(0.02)
    monkeypatch.setattr(sets, "backward_subsets", lambda *_: [])
    monkeypatch.setattr(sets, "forward_subsets", lambda *_: [(0, 1, 2, 3, 4)])
    found = sets_of(data).minimal(0.02)
    assert found.proven
    assert len(found.members) == len(expected.members) < 4


def test_too_many_subsets_leave_the_result_unproven(
    data: EnsembleSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "_MAX_SUBSETS", 0)
    found = sets_of(data).minimal(0.003)
    assert not found.proven
    assert found.kl <= optimum(data, (0, 1, 2, 3, 4)) + 0.003 + 2e-9


def test_cost_front_rises_in_cost_and_falls_in_kl(data: EnsembleSample) -> None:
    costs = np.array([5.0, 1.0, 2.0, 3.0, 4.0])
    front = sets_of(data).cost_front(costs)
    for cheaper, dearer in itertools.pairwise(front):
        assert cheaper.cost < dearer.cost
        assert cheaper.kl > dearer.kl
    for found in front:
        assert found.cost == pytest.approx(costs[list(found.members)].sum())
    # Of two equal models the cheaper one is in the best set.
    assert 0 not in front[-1].members
    assert front[-1].kl == pytest.approx(optimum(data, (0, 1, 2, 3, 4)), abs=2e-9)
    alone = min(range(5), key=lambda model: costs[model])
    assert front[0].members == (alone,)


def test_of_sets_of_one_cost_the_best_is_on_the_front(data: EnsembleSample) -> None:
    front = sets_of(data).cost_front(np.full(5, 0.1))
    for cheaper, dearer in itertools.pairwise(front):
        assert cheaper.cost < dearer.cost - 0.05
        assert cheaper.kl > dearer.kl
    best = min(range(5), key=lambda model: optimum(data, (model,)))
    assert front[0].members == (best,)


def test_rows_of_weight_zero_are_ignored(data: EnsembleSample) -> None:
    good = data.votes >= 10
    part = EnsembleSample(
        data.targets[good], data.models[:, good], data.patients[good], data.votes[good]
    )
    first, second = sets_of(data, good).forward_path(), sets_of(part).forward_path()
    assert [step.members for step in first] == [step.members for step in second]
    np.testing.assert_allclose([s.nested for s in first], [s.nested for s in second], atol=1e-9)


def test_residual_correlation_is_pearsons(data: EnsembleSample) -> None:
    found = residual_correlation(data.targets, data.models)
    residuals = (data.models - data.targets).reshape(5, -1)
    np.testing.assert_allclose(found, np.corrcoef(residuals), atol=1e-6)
    assert found[0, 4] == pytest.approx(1)
    weights = np.random.default_rng(0).integers(0, 3, size=len(data.targets))
    weighted = residual_correlation(data.targets, data.models, weights)
    repeated = residual_correlation(
        np.repeat(data.targets, weights, axis=0), np.repeat(data.models, weights, axis=1)
    )
    np.testing.assert_allclose(weighted, repeated, atol=1e-12)
    exact = residual_correlation(data.targets, np.stack([data.targets, data.models[0]]))
    np.testing.assert_allclose(exact, np.eye(2), atol=1e-12)


def test_answers_are_plain_json(data: EnsembleSample) -> None:
    made = sets_of(data)
    stored = [made.minimal(0.01).to_json(), *(result.to_json() for result in made.leave_one_out())]
    again = json.loads(json.dumps(stored, allow_nan=False))
    assert set(again[0]) == {"members", "weights", "kl", "nested", "cost", "proven"}
    assert set(again[1]) == {"model", "weight", "rise", "nested_rise", "adds"}


def test_one_model_is_a_subset() -> None:
    made = sets_of(ensemble_sample(1))
    assert [step.members for step in made.forward_path()] == [(0,)]
    assert made.minimal(0.0).members == (0,)
    assert forward_subsets(made.optima) == [(0,)]
    with pytest.raises(PredictionError, match="leave-one-out needs at least two models, got one"):
        made.leave_one_out()


def test_invalid_arguments_are_refused(data: EnsembleSample) -> None:
    made = sets_of(data)
    with pytest.raises(PredictionError, match=r"a tolerance must be at least 0, got -0\.1"):
        made.minimal(-0.1)
    with pytest.raises(PredictionError, match=r"one number for each of 5 models, got \(2,\)"):
        made.cost_front([1, 2])
    with pytest.raises(PredictionError, match="finite and above 0, got values from 0 to 4"):
        made.cost_front(np.arange(5))
    with pytest.raises(PredictionError, match="a comparison of subsets needs rows of at least two"):
        SubsetSearch.from_arrays(data.targets, data.models, np.zeros(len(data.targets)))
