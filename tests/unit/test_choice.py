from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hms_ray.ensemble.cross_validation import Candidate, checked_data, nested_rows
from hms_ray.ensemble.methods.arithmetic import Equal, Simplex
from hms_ray.ensemble.methods.base import Pool
from hms_ray.ensemble.methods.combined import Average, Recalibrated
from hms_ray.ensemble.methods.log_linear import LogLinear
from hms_ray.ensemble.methods.registry import all_pools
from hms_ray.ensemble.one_standard_error import simplest_within, standard_error
from hms_ray.ensemble.selection import (
    choose_pool,
    nested_choice_estimate,
)
from hms_ray.ensemble.selection_result import Choice, ChoiceEstimate
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import clustered_interval, patient_groups
from hms_ray.evaluate.metric import kl_rows
from tests.pool_data import PoolData, pool_data

POOLS: list[Pool] = [Equal(), Simplex(), LogLinear(), LogLinear("context")]


def choose(data: PoolData, pools: Any = POOLS, **options: Any) -> Choice:
    return choose_pool(
        data.targets, data.models, data.patients, data.votes, pools, **{"seeds": (0, 1), **options}
    )


def estimate(data: PoolData, pools: Any = POOLS, **options: Any) -> ChoiceEstimate:
    return nested_choice_estimate(
        data.targets, data.models, data.patients, data.votes, pools, "simplex", **options
    )


@pytest.fixture(scope="module")
def sure() -> PoolData:
    """Models that are twice as sure as they should be: a temperature is worth much."""
    return pool_data(4, n_patients=80, sharpness=2.0)


def nested_by_hand(data: PoolData, pool: Pool, counted: np.ndarray, seed: int) -> np.ndarray:
    split = patient_groups(data.patients, 5, seed, counted)
    rows = np.empty(len(split))
    for number in range(5):
        inside, outside = split == number, (split != number) & counted
        fitted = pool.fit(data.targets[outside], data.models[:, outside])
        rows[inside] = kl_rows(data.targets[inside], fitted.predict(data.models[:, inside]))
    return rows


@pytest.mark.parametrize(("objective", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_sharing_fits_changes_no_score(objective: Any, fewest: int) -> None:
    data = pool_data(4, n_patients=30)
    counted = data.votes >= fewest
    pools = list(all_pools().values())
    checked = checked_data(data.targets, data.models, data.patients, data.votes)
    shared = nested_rows(checked, [Candidate(pool) for pool in pools], objective, 3, 5)
    split = patient_groups(data.patients, 5, 3, counted)
    for pool, scores in zip(pools, shared, strict=True):
        for number in range(5):
            inside, outside = split == number, (split != number) & counted
            fitted = pool.fit(
                data.targets[outside], data.models[:, outside], None, data.patients[outside]
            )
            alone = kl_rows(data.targets[inside], fitted.predict(data.models[:, inside]))
            np.testing.assert_allclose(scores[inside], alone, atol=1e-7, err_msg=pool.name)


def test_members_are_fitted_once_a_split_and_objective() -> None:
    data = pool_data(3, n_patients=20)
    seen: list[int] = []

    class Counted:
        name = "counted"

        def fit(self, targets: Any, *others: Any) -> Any:
            seen.append(len(targets))
            return Simplex().fit(targets, *others)

    member = Counted()
    pools: list[Pool | Candidate] = [
        member,
        Average("both", [member, Equal()]),
        Recalibrated(member),
        Candidate(member, "kl_10"),
    ]
    entries = [pool if isinstance(pool, Candidate) else Candidate(pool) for pool in pools]
    checked = checked_data(data.targets, data.models, data.patients, data.votes)
    nested_rows(checked, entries, "kl_all", 0, 5)
    split = patient_groups(data.patients, 5, 0)
    expected = [
        [int((split != number).sum()), int(((split != number) & (data.votes >= 10)).sum())]
        for number in range(5)
    ]
    assert seen == [size for sizes in expected for size in sizes]


@pytest.mark.parametrize(("objective", "fewest"), [("kl_all", 0), ("kl_10", 10)])
def test_figures_are_those_of_a_plain_loop(objective: Any, fewest: int) -> None:
    data = pool_data(4)
    counted = data.votes >= fewest
    choice = choose(data, objective=objective, reference="simplex")
    by_hand = [
        np.stack([nested_by_hand(data, pool, counted, seed) for seed in (0, 1)]) for pool in POOLS
    ]
    for rated, rows, pool in zip(choice.rated, by_hand, POOLS, strict=True):
        assert rated.name == pool.name
        assert rated.nested == pytest.approx(rows[:, counted].mean(), abs=1e-7)
        np.testing.assert_allclose(rated.by_seed, rows[:, counted].mean(axis=1), atol=1e-7)
        fitted = pool.fit(data.targets, data.models, counted)
        inside = kl_rows(data.targets, fitted.predict(data.models))[counted].mean()
        assert rated.in_sample == pytest.approx(inside, abs=1e-9)
        assert rated.optimism == pytest.approx(rated.nested - rated.in_sample)
        difference = (rows - by_hand[1]).mean(axis=0)[counted]
        expected = clustered_interval(difference, data.patients[counted])
        assert rated.to_reference is not None
        found = [rated.to_reference.mean, rated.to_reference.low, rated.to_reference.high]
        np.testing.assert_allclose(found, [expected.mean, expected.low, expected.high], atol=1e-7)
        assert rated.by_objective["kl_all"] == pytest.approx(rows.mean(), abs=1e-7)
        assert rated.seconds > 0
    assert choice.best == int(np.argmin([rated.nested for rated in choice.rated]))
    assert choice.rated[choice.best].to_best.mean == 0
    assert (choice.n_rows, choice.n_patients) == (
        counted.sum(),
        len(np.unique(data.patients[counted])),
    )


def test_the_simplest_within_one_standard_error_is_taken() -> None:
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(50), 4)
    best = generator.normal(size=200)
    noise = generator.normal(size=200)
    noise -= noise.mean()
    error = standard_error(clustered_interval(noise, patients))
    far, near = best + noise + 1.01 * error, best + noise + 0.99 * error
    assert simplest_within(np.stack([far, near, best]), patients)[:2] == (2, 1)
    assert simplest_within(np.stack([far, best, near]), patients)[:2] == (1, 1)
    assert simplest_within(np.stack([near, far, best]), patients)[:2] == (2, 0)
    # What predicts the same is a tie whatever the order.
    assert simplest_within(np.stack([best, best]), patients)[:2] == (0, 0)


def test_the_standard_error_is_the_one_of_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    interval = clustered_interval(values, np.arange(40))
    assert standard_error(interval) == pytest.approx(stats.sem(values))


def test_a_correction_that_is_needed_is_chosen(sure: PoolData) -> None:
    choice = choose(sure, reference="simplex")
    assert choice.name.startswith("log_linear")
    chosen = choice.rated[choice.chosen]
    assert chosen.to_reference is not None
    assert chosen.to_reference.verdict == "better"
    assert not choice.rated[1].within
    found = estimate(sure)
    assert found.to_reference.verdict == "better"
    assert sum(found.taken.values()) == 5
    assert all(name.startswith("log_linear") for name in found.taken)


def test_equal_weights_are_chosen_where_models_are_the_same() -> None:
    data = pool_data(1)
    data = data._replace(models=np.repeat(data.models, 3, axis=0))
    choice = choose(data, POOLS[:2])
    assert choice.name == "equal"
    assert choice.rated[1].to_best.tie


def test_the_nested_estimate_of_choosing_is_a_plain_loop() -> None:
    data = pool_data(3, n_patients=14)
    found = estimate(data, POOLS[:3], seed=4, objective="kl_4")
    counted = data.votes >= 4
    split = patient_groups(data.patients, 5, 4, counted)
    rows, taken = np.empty(len(split)), []
    for number in range(5):
        outside, inside = split != number, split == number
        part = PoolData(
            data.targets[outside],
            data.models[:, outside],
            data.patients[outside],
            data.votes[outside],
        )
        name = choose(part, POOLS[:3], seeds=(0,), objective="kl_4").name
        taken.append(name)
        pool = next(pool for pool in POOLS if pool.name == name)
        fitted = pool.fit(part.targets, part.models, part.votes >= 4)
        rows[inside] = kl_rows(data.targets[inside], fitted.predict(data.models[:, inside]))
    expected = clustered_interval(rows[counted], data.patients[counted])
    assert found.nested.mean == pytest.approx(expected.mean, abs=1e-9)
    assert found.nested.high == pytest.approx(expected.high, abs=1e-9)
    assert found.taken == {name: taken.count(name) for name in set(taken)}


def test_nothing_of_held_out_patients_reaches_a_fit() -> None:
    data = pool_data(3, n_patients=20)
    recorded: list[tuple[np.ndarray, np.ndarray]] = []

    class Watched:
        name = "watched"

        def fit(self, targets: Any, probabilities: Any, row_weights: Any, patients: Any) -> Any:
            recorded.append((np.asarray(patients), np.asarray(probabilities)))
            return Equal().fit(targets, probabilities, row_weights, patients)

    choose(data, [Watched()], seeds=(0,))
    split = patient_groups(data.patients, 5, 0)
    for number, (patients, models) in enumerate(recorded[:5]):
        assert set(patients) == set(data.patients[split != number])
        assert models.shape[1] == len(patients)


def test_candidates_may_be_fitted_on_rows_of_their_own() -> None:
    data = pool_data(4)
    pools = [Simplex(), Candidate(Simplex(), "kl_10")]
    choice = choose(data, pools, objective="kl_all", reference="simplex@kl_10")
    assert [rated.name for rated in choice.rated] == ["simplex", "simplex@kl_10"]
    fitted = Simplex().fit(data.targets, data.models, data.votes >= 10)
    inside = kl_rows(data.targets, fitted.predict(data.models)).mean()
    assert choice.rated[1].in_sample == pytest.approx(inside, abs=1e-9)


def test_a_choice_is_plain_json() -> None:
    data = pool_data(3)
    told = json.loads(json.dumps(choose(data, reference="simplex").to_json(), allow_nan=False))
    assert told["chosen_on_the_scored_rows"] is True
    assert told["chosen"] in [candidate["name"] for candidate in told["candidates"]]
    assert told["candidates"][1]["minus_reference"]["verdict"] == "tie"
    assert set(told["candidates"][0]["by_objective"]) == {"kl_all", "kl_4", "kl_10"}
    assert choose(data).to_json()["candidates"][0]["minus_reference"] is None
    told = json.loads(json.dumps(estimate(data).to_json(), allow_nan=False))
    assert set(told) == {"nested", "minus_reference", "taken", "choices", "splittings_a_choice"}
    assert (told["choices"], told["splittings_a_choice"]) == (5, 1)


def test_few_patients_make_fewer_splits() -> None:
    data = pool_data(2, n_patients=3)
    assert choose(data, POOLS[:2]).n_splits == 3
    assert sum(estimate(data, POOLS[:2]).taken.values()) == 3


def test_what_does_not_fit_is_refused() -> None:
    data = pool_data(3)
    with pytest.raises(PredictionError, match="of different names, got simplex, simplex"):
        choose(data, [Simplex(), Simplex()])
    with pytest.raises(PredictionError, match="at least one, of different names, got none"):
        choose(data, [])
    with pytest.raises(PredictionError, match="one of the candidates equal, simplex, got best"):
        choose(data, POOLS[:2], reference="best")
    message = (
        r"a nested estimate for kl_10 needs rows of at least two patients with at least 10 "
        r"votes, got 0 row\(s\) of 0 patient\(s\)\. What one patient's rows choose must be "
    )
    with pytest.raises(PredictionError, match=message):
        choose(data._replace(votes=np.minimum(data.votes, 5)), objective="kl_10")
    with pytest.raises(PredictionError, match=r"one patient and one number of votes for each of"):
        choose(data._replace(votes=data.votes[1:]))
    message = "among methods, equal one of them, needs rows of at least 3 patients, got 2"
    with pytest.raises(PredictionError, match=message):
        estimate(pool_data(2, n_patients=2), POOLS[:2])
