from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from hms_ray.ensemble.constrained import Cap
from hms_ray.ensemble.methods.arithmetic import (
    Equal,
    FittedMean,
    Simplex,
)
from hms_ray.ensemble.methods.base import Pool, tier_weights
from hms_ray.ensemble.methods.combined import Average, FittedAverage, Stacked
from hms_ray.ensemble.methods.greedy import Greedy, grouped, selected
from hms_ray.ensemble.methods.log_linear import FLOOR, FittedLogLinear, LogLinear
from hms_ray.ensemble.methods.registry import all_pools, fitted_from_json, named_pools
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.simplex import simplex_weights
from hms_ray.errors import PredictionError
from hms_ray.evaluate.calibration import fit_recalibration
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import kl_divergence, kl_rows
from tests.pool_data import PoolData, pool_data, softmax

POOLS = all_pools()


@pytest.fixture(scope="module")
def data() -> PoolData:
    return pool_data(5)


def fitted_kl(pool: Pool, data: PoolData) -> float:
    fitted = pool.fit(data.targets, data.models, None, data.patients)
    return kl_divergence(data.targets, fitted.predict(data.models))


@pytest.mark.parametrize("name", POOLS)
def test_every_pool_keeps_the_contract(name: str, data: PoolData) -> None:
    pool = POOLS[name]
    assert pool.name == name
    fitted = pool.fit(data.targets, data.models, None, data.patients)
    predicted = fitted.predict(data.models)
    assert predicted.shape == data.targets.shape
    assert predicted.min() >= 0
    np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-12)
    # Rows do not see each other, and nothing but the models is needed.
    np.testing.assert_allclose(fitted.predict(data.models[:, 7:9]), predicted[7:9], atol=1e-12)
    again = fitted_from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    np.testing.assert_array_equal(again.predict(data.models), predicted)
    message = r"combines predictions of shape \(5, rows, 6\), got \(4, "
    with pytest.raises(PredictionError, match=message):
        fitted.predict(data.models[:4])


@pytest.mark.parametrize("name", POOLS)
def test_only_rows_that_count_are_seen(name: str, data: PoolData) -> None:
    good = data.votes >= 10
    np.testing.assert_array_equal(tier_weights(data.votes, "kl_10"), good.astype(float))
    changed = data.targets.copy()
    changed[~good] = 1 / 6
    pool = POOLS[name]
    first = pool.fit(data.targets, data.models, tier_weights(data.votes, "kl_10"), data.patients)
    second = pool.fit(changed, data.models, good, data.patients)
    alone = pool.fit(data.targets[good], data.models[:, good], None, data.patients[good])
    expected = first.predict(data.models)
    np.testing.assert_array_equal(second.predict(data.models), expected)
    np.testing.assert_allclose(alone.predict(data.models), expected, atol=1e-9)
    everyone = pool.fit(data.targets, data.models, None, data.patients)
    if name not in ("equal", "best_single"):  # the same model is the best of both
        assert np.abs(everyone.predict(data.models) - expected).max() > 1e-4


@pytest.mark.parametrize("name", POOLS)
def test_every_pool_takes_one_model_zeros_and_classes_without_votes(name: str) -> None:
    data = pool_data(1, n_patients=12)
    targets = data.targets.copy()
    targets[:, 5] = 0
    targets[targets.sum(axis=1) == 0, 0] = 1
    targets /= targets.sum(axis=1, keepdims=True)
    cut = np.where(data.models < 0.05, 0.0, data.models)
    cut /= cut.sum(axis=2, keepdims=True)
    pool = all_pools()[name]
    for models in (data.models, cut, np.eye(6)[cut.argmax(axis=2)]):
        fitted = pool.fit(targets, models.astype(np.float32), None, data.patients)
        predicted = fitted.predict(models)
        assert np.isfinite(predicted).all()
        np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in POOLS if name != "greedy"])
def test_the_order_of_models_does_not_matter(name: str, data: PoolData) -> None:
    order = np.array([3, 0, 4, 1, 2])
    pool = POOLS[name]
    first = pool.fit(data.targets, data.models, None, data.patients)
    second = pool.fit(data.targets, data.models[order], None, data.patients)
    np.testing.assert_allclose(
        second.predict(data.models[order]), first.predict(data.models), atol=1e-5
    )


def test_richer_pools_fit_no_worse_in_sample(data: PoolData) -> None:
    kl = {name: fitted_kl(pool, data) for name, pool in POOLS.items()}
    assert kl["simplex"] <= min(kl["equal"], kl["greedy"], kl["best_single"]) + 1e-9
    assert kl["simplex_recalibrated"] <= kl["simplex"] + 1e-9
    members = (kl["simplex"] + kl["log_linear_context"]) / 2
    assert kl["simplex_and_context"] <= members + 1e-12


def test_simplex_is_the_exact_solver_and_takes_constraints(data: PoolData) -> None:
    fitted = Simplex().fit(data.targets, data.models)
    expected = simplex_weights(data.targets, data.models)
    np.testing.assert_array_equal(fitted.weights, expected.weights)
    assert fitted.facts["gap"] == expected.gap <= 1e-9
    assert fitted.facts["objective"] == expected.objective
    capped = Simplex(caps=[Cap([0, 1], 0.1)], fixed=[(2, 0.25)]).fit(data.targets, data.models)
    assert capped.weights[:2].sum() <= 0.1 + 1e-12
    assert capped.weights[2] == pytest.approx(0.25)
    assert capped.facts["gap"] <= 1e-9


def test_the_best_single_model_is_that_of_the_rows_that_count(data: PoolData) -> None:
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
    # Of equally good ones it is the first.
    assert BestSingle().fit(data.targets, models[[2, 2]], good).weights.tolist() == [1, 0]
    # Rows may also count by parts.
    mostly = BestSingle().fit(data.targets, models, np.where(good, 1.0, 1e-6))
    np.testing.assert_array_equal(mostly.weights, some.weights)


def test_greedy_takes_the_best_next_model_each_time(data: PoolData) -> None:
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


def test_greedy_bags_draw_half_of_the_models(data: PoolData) -> None:
    fitted = Greedy(steps=10, bags=3, seed=1).fit(data.targets, data.models)
    assert fitted.weights.sum() == pytest.approx(1)
    other = Greedy(steps=10, bags=3, seed=2).fit(data.targets, data.models)
    assert np.abs(fitted.weights - other.weights).max() > 0
    columns = np.array([[0.5, 0.1], [0.1, 0.5]])
    # The third addition can only unbalance the mean, so the second one's is kept.
    np.testing.assert_allclose(selected(columns, np.array([0.5, 0.5]), 3), [0.5, 0.5])


def test_entries_of_equal_shares_are_taken_together() -> None:
    generator = np.random.default_rng(0)
    shares = generator.choice([0.25, 0.5, 1.0], size=403)
    shares[7] = 0.125
    order, n_grouped = grouped(shares)
    assert sorted(order) == list(range(403))
    # Of each of the three, and of the one of its own, fewer than sixteen are left over.
    assert 403 - n_grouped < 4 * 16
    together = shares[order[:n_grouped]].reshape(16, -1)
    assert (together == together[0]).all()
    columns = generator.uniform(1e-15, 1, size=(6, 403)) ** 4
    plain = selected(columns, shares, 20)
    np.testing.assert_array_equal(selected(columns[:, order], shares[order], 20, n_grouped), plain)
    assert grouped(np.arange(5.0) + 1)[1] == 0


@pytest.mark.parametrize("kind", ["shared", "context"])
def test_log_linear_pools_meet_their_optimality_conditions(kind: str, data: PoolData) -> None:
    pool = LogLinear(kind)  # type: ignore[arg-type]
    fitted = pool.fit(data.targets, data.models)
    assert fitted.gap <= 1e-9

    def loss(weights: np.ndarray, biases: np.ndarray, context: np.ndarray) -> float:
        changed = FittedLogLinear(pool.kind, weights, biases, context, FLOOR, 0.0)
        kl = kl_divergence(data.targets, changed.predict(data.models))
        counted = weights[:1] if kind == "shared" else weights
        ridge = ((counted - 0.2) ** 2).sum() + (context**2).sum()
        return float(kl + 0.5 * pool.ridge * ridge + 0.5e-4 * (biases**2).sum())

    here = loss(fitted.weights, fitted.biases, fitted.context)
    generator = np.random.default_rng(0)
    for _ in range(40):
        step = 1e-3 * generator.normal(size=(6, 5))
        step = np.broadcast_to(step[:1], (6, 5)) if kind == "shared" else step
        bias = 1e-3 * generator.normal(size=6)
        context = 1e-3 * generator.normal(size=(6, 7)) * (kind == "context")
        changed = loss(fitted.weights + step, fitted.biases + bias, fitted.context + context)
        assert changed >= here - 1e-12


def test_a_log_linear_pool_is_a_geometric_mean_with_temperature_and_biases(data: PoolData) -> None:
    weights = np.tile([0.5, 0.25, 0.0, 0.0, 0.75], (6, 1))
    biases = np.array([0.1, -0.1, 0.2, -0.2, 0.0, 0.0])
    pool = FittedLogLinear("shared", weights, biases, np.zeros((6, 7)), FLOOR, 0.0)
    floored = np.maximum(data.models, FLOOR)
    raw = floored[0] ** 0.5 * floored[1] ** 0.25 * floored[4] ** 0.75 * np.exp(biases)
    expected = raw / raw.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pool.predict(data.models), expected, atol=1e-12)
    assert pool.temperature == pytest.approx(1 / 1.5)


def test_temperature_and_biases_are_found_again() -> None:
    data = pool_data(1, n_patients=300, sharpness=1.0)
    sure = softmax(2.0 * np.log(data.models) + np.array([0.5, 0, 0, 0, 0, -0.5]))
    first = LogLinear(ridge=1e-6, floor=1e-12).fit(data.targets, data.models)
    second = LogLinear(ridge=1e-6, floor=1e-12).fit(data.targets, sure)
    assert second.temperature == pytest.approx(2 * first.temperature, rel=0.02)
    moved = first.biases - second.biases
    assert moved[0] - moved[5] == pytest.approx(0.5 * first.weights.sum() / 6, abs=0.05)


def test_a_recalibrated_pool_is_corrected_on_its_own_blend(data: PoolData) -> None:
    fitted = POOLS["simplex_recalibrated"].fit(data.targets, data.models)
    blended = Simplex().fit(data.targets, data.models).predict(data.models)
    expected = fit_recalibration(data.targets, blended).apply(blended)
    np.testing.assert_allclose(fitted.predict(data.models), expected, atol=1e-12)


def test_averages_and_stacks(data: PoolData) -> None:
    members = [Equal(), LogLinear("context")]
    parts = [member.fit(data.targets, data.models).predict(data.models) for member in members]
    average = Average("both", members).fit(data.targets, data.models)
    np.testing.assert_allclose(average.predict(data.models), np.mean(parts, axis=0), atol=1e-12)
    stack = Stacked("stack", members, seed=2).fit(data.targets, data.models, None, data.patients)
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


def test_names_are_looked_up_in_the_order_of_simplicity() -> None:
    names = ["log_linear", "equal", "simplex"]
    assert [pool.name for pool in named_pools(names)] == ["equal", "simplex", "log_linear"]
    assert list(POOLS)[:4] == ["equal", "best_single", "greedy", "simplex"]
    with pytest.raises(PredictionError, match=r"one of equal, best_single, .*stacked, got best$"):
        named_pools(["best"])


def test_what_does_not_fit_is_refused(data: PoolData) -> None:
    with pytest.raises(PredictionError, match="stacked needs the patient of each row"):
        POOLS["stacked"].fit(data.targets, data.models)
    with pytest.raises(PredictionError, match="stacked needs rows of at least two patients"):
        POOLS["stacked"].fit(data.targets, data.models, None, np.zeros(len(data.targets)))
    with pytest.raises(PredictionError, match=r"one patient for each of \d+ rows, got \(3,\)"):
        Equal().fit(data.targets, data.models, None, [1, 2, 3])
    with pytest.raises(PredictionError, match="each row of predictions of model 1 must sum to 1"):
        Equal().fit(data.targets, data.models * np.array([1, 2, 1, 1, 1])[:, None, None])
    with pytest.raises(PredictionError, match="each row of predictions of model 2 must sum to 1"):
        LogLinear().fit(data.targets, data.models).predict(
            data.models * np.array([1, 1, 2, 1, 1])[:, None, None]
        )
