from __future__ import annotations

import itertools

import numpy as np
import pytest

from hms_ray.ensemble.constrained import Cap
from hms_ray.ensemble.methods.arithmetic import (
    Equal,
    FittedMean,
    Simplex,
)
from hms_ray.ensemble.methods.base import Method
from hms_ray.ensemble.methods.combined import Average, FittedAverage, Stacked
from hms_ray.ensemble.methods.greedy import Greedy, add_greedily, group_equal_shares
from hms_ray.ensemble.methods.log_linear import FLOOR, FittedLogLinear, LogLinear
from hms_ray.ensemble.methods.registry import all_methods
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.simplex import blend_probabilities, simplex_weights
from hms_ray.evaluate.calibration import fit_recalibration
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import kl_divergence, kl_rows
from tests.ensemble_data import EnsembleSample, ensemble_sample, nested_simplex, softmax

METHODS = all_methods()


@pytest.fixture(scope="module")
def data() -> EnsembleSample:
    return ensemble_sample(5)


def fitted_kl(method: Method, data: EnsembleSample) -> float:
    fitted = method.fit(data.targets, data.models, None, data.patients)
    return kl_divergence(data.targets, fitted.predict(data.models))


def test_richer_methods_fit_no_worse_in_sample(data: EnsembleSample) -> None:
    kl = {name: fitted_kl(method, data) for name, method in METHODS.items()}
    assert kl["simplex"] <= min(kl["equal"], kl["greedy"], kl["best_single"]) + 1e-9
    assert kl["simplex_recalibrated"] <= kl["simplex"] + 1e-9
    members = (kl["simplex"] + kl["log_linear_context"]) / 2
    assert kl["simplex_and_context"] <= members + 1e-12


def test_simplex_is_exact_and_takes_constraints(data: EnsembleSample) -> None:
    fitted = Simplex().fit(data.targets, data.models)
    expected = simplex_weights(data.targets, data.models)
    np.testing.assert_array_equal(fitted.weights, expected.weights)
    assert fitted.facts["gap"] == expected.gap <= 1e-9
    assert fitted.facts["objective"] == expected.objective
    capped = Simplex(caps=[Cap([0, 1], 0.1)], fixed=[(2, 0.25)]).fit(data.targets, data.models)
    assert capped.weights[:2].sum() <= 0.1 + 1e-12
    assert capped.weights[2] == pytest.approx(0.25)
    assert capped.facts["gap"] <= 1e-9


def test_best_single_model_is_chosen_on_weighted_rows(data: EnsembleSample) -> None:
    good = data.votes >= 10
    models = data.models[:3].copy()
    # On rows of many votes the last one is the best, on all rows the first one.
    models[2, good] = 0.5 * (data.targets + models[2])[good]
    models[0, ~good] = 0.5 * (data.targets + models[0])[~good]
    everyone = BestSingle().fit(data.targets, models)
    some = BestSingle().fit(data.targets, models, good)
    assert (everyone.weights.tolist(), some.weights.tolist()) == ([1, 0, 0], [0, 0, 1])
    expected = kl_rows(data.targets[good], models[2, good]).mean()
    assert some.facts["objective"] == pytest.approx(expected)
    np.testing.assert_allclose(some.predict(models), models[2], atol=1e-12)
    # The first of equally good models.
    assert BestSingle().fit(data.targets, models[[2, 2]], good).weights.tolist() == [1, 0]
    # Row weights need not be 0 or 1.
    mostly = BestSingle().fit(data.targets, models, np.where(good, 1.0, 1e-6))
    np.testing.assert_array_equal(mostly.weights, some.weights)


def test_greedy_adds_the_best_model_at_each_step(data: EnsembleSample) -> None:
    fitted = Greedy(steps=4, bags=1).fit(data.targets, data.models)
    path: list[int] = []
    best: tuple[float, list[int]] = (np.inf, [])
    for _ in range(4):
        scores = [
            kl_divergence(data.targets, data.models[[*path, model]].mean(axis=0))
            for model in range(5)
        ]
        path.append(int(np.argmin(scores)))
        best = min(best, (min(scores), list(path)))
    expected = np.bincount(best[1], minlength=5) / len(best[1])
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-12)
    assert fitted.facts["objective"] == pytest.approx(best[0], abs=1e-9)


def test_greedy_bags_hold_half_of_the_models(data: EnsembleSample) -> None:
    fitted = Greedy(steps=10, bags=3, seed=1).fit(data.targets, data.models)
    assert fitted.weights.sum() == pytest.approx(1)
    other = Greedy(steps=10, bags=3, seed=2).fit(data.targets, data.models)
    assert np.abs(fitted.weights - other.weights).max() > 0
    columns = np.array([[0.5, 0.1], [0.1, 0.5]])
    # The third addition unbalances the mean, so two additions are kept.
    np.testing.assert_allclose(add_greedily(columns, np.array([0.5, 0.5]), 3), [0.5, 0.5])


def test_grouped_shares_give_the_same_greedy_weights() -> None:
    generator = np.random.default_rng(0)
    shares = generator.choice([0.25, 0.5, 1.0], size=403)
    shares[7] = 0.125
    order, n_grouped = group_equal_shares(shares)
    assert sorted(order) == list(range(403))
    # Each of the four values leaves fewer than 16 entries ungrouped.
    assert 403 - n_grouped < 4 * 16
    together = shares[order[:n_grouped]].reshape(16, -1)
    assert (together == together[0]).all()
    columns = generator.uniform(1e-15, 1, size=(6, 403)) ** 4
    plain = add_greedily(columns, shares, 20)
    np.testing.assert_array_equal(
        add_greedily(columns[:, order], shares[order], 20, n_grouped), plain
    )
    assert group_equal_shares(np.arange(5.0) + 1)[1] == 0


@pytest.mark.parametrize("kind", ["shared", "context"])
def test_log_linear_methods_meet_their_optimality_conditions(
    kind: str, data: EnsembleSample
) -> None:
    method = LogLinear(kind)  # type: ignore[arg-type]
    fitted = method.fit(data.targets, data.models)
    assert fitted.gap <= 1e-9

    def loss(weights: np.ndarray, biases: np.ndarray, context: np.ndarray) -> float:
        changed = FittedLogLinear(method.kind, weights, biases, context, FLOOR, 0.0)
        kl = kl_divergence(data.targets, changed.predict(data.models))
        counted = weights[:1] if kind == "shared" else weights
        ridge = ((counted - 0.2) ** 2).sum() + (context**2).sum()
        return float(kl + 0.5 * method.ridge * ridge + 0.5e-4 * (biases**2).sum())

    here = loss(fitted.weights, fitted.biases, fitted.context)
    generator = np.random.default_rng(0)
    for _ in range(40):
        step = 1e-3 * generator.normal(size=(6, 5))
        step = np.broadcast_to(step[:1], (6, 5)) if kind == "shared" else step
        bias = 1e-3 * generator.normal(size=6)
        context = 1e-3 * generator.normal(size=(6, 7)) * (kind == "context")
        changed = loss(fitted.weights + step, fitted.biases + bias, fitted.context + context)
        assert changed >= here - 1e-12


def test_log_linear_is_a_geometric_mean_with_temperature_and_biases(
    data: EnsembleSample,
) -> None:
    weights = np.tile([0.5, 0.25, 0.0, 0.0, 0.75], (6, 1))
    biases = np.array([0.1, -0.1, 0.2, -0.2, 0.0, 0.0])
    method = FittedLogLinear("shared", weights, biases, np.zeros((6, 7)), FLOOR, 0.0)
    floored = np.maximum(data.models, FLOOR)
    raw = floored[0] ** 0.5 * floored[1] ** 0.25 * floored[4] ** 0.75 * np.exp(biases)
    expected = raw / raw.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(method.predict(data.models), expected, atol=1e-12)
    assert method.temperature == pytest.approx(1 / 1.5)


def test_temperature_and_biases_are_recovered() -> None:
    data = ensemble_sample(1, n_patients=300, sharpness=1.0)
    sure = softmax(2.0 * np.log(data.models) + np.array([0.5, 0, 0, 0, 0, -0.5]))
    first = LogLinear(ridge=1e-6, floor=1e-12).fit(data.targets, data.models)
    second = LogLinear(ridge=1e-6, floor=1e-12).fit(data.targets, sure)
    assert second.temperature == pytest.approx(2 * first.temperature, rel=0.02)
    moved = first.biases - second.biases
    assert moved[0] - moved[5] == pytest.approx(0.5 * first.weights.sum() / 6, abs=0.05)


def test_recalibrated_method_is_corrected_on_its_own_blend(data: EnsembleSample) -> None:
    fitted = METHODS["simplex_recalibrated"].fit(data.targets, data.models)
    blended = Simplex().fit(data.targets, data.models).predict(data.models)
    expected = fit_recalibration(data.targets, blended).apply(blended)
    np.testing.assert_allclose(fitted.predict(data.models), expected, atol=1e-12)


def test_averages_and_stacks_match_a_plain_loop(data: EnsembleSample) -> None:
    members = [Equal(), LogLinear("context")]
    parts = [member.fit(data.targets, data.models).predict(data.models) for member in members]
    average = Average(members, "both").fit(data.targets, data.models)
    np.testing.assert_allclose(average.predict(data.models), np.mean(parts, axis=0), atol=1e-12)
    stack = Stacked(members, seed=2).fit(data.targets, data.models, None, data.patients)
    split = patient_groups(data.patients, 5, 2)
    validated = np.empty((2, *data.targets.shape))
    for number, (position, member) in itertools.product(range(5), enumerate(members)):
        outside, inside = split != number, split == number
        fitted = member.fit(data.targets[outside], data.models[:, outside])
        validated[position, inside] = fitted.predict(data.models[:, inside])
    expected = simplex_weights(data.targets, validated).weights
    np.testing.assert_allclose(stack.weights, expected, atol=1e-6)
    np.testing.assert_allclose(
        stack.predict(data.models), np.einsum("m,mnc->nc", stack.weights, parts), atol=1e-12
    )
    alone = FittedAverage((average, FittedMean(np.ones(5) / 5)), np.array([0.0, 1.0]))
    np.testing.assert_allclose(alone.predict(data.models), parts[0], atol=1e-12)


def test_nested_predictions_never_see_their_own_patients(data: EnsembleSample) -> None:
    good = data.votes >= 4
    sample = data.rows(good)
    nested = nested_simplex(*data[:3], n_splits=3, row_weights=good)
    split = patient_groups(sample.patients, 3, 0)
    for number in range(3):
        training = sample.rows(split != number)
        weights = simplex_weights(training.targets, training.models).weights
        inside = split == number
        expected = blend_probabilities(sample.models[:, inside], weights)
        np.testing.assert_allclose(nested[inside], expected, atol=1e-12)
    # A patient's targets must not reach that patient's own predictions.
    own = sample.patients == sample.patients[0]
    changed = sample.targets.copy()
    changed[own] = np.eye(6)[0]
    other = nested_simplex(changed, sample.models, sample.patients, n_splits=3)
    np.testing.assert_array_equal(other[own], nested[own])
    elsewhere = split != split[0]
    assert not np.allclose(other[elsewhere], nested[elsewhere])
