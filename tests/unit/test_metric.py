from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hms_ray.competition.schema import CLASSES
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import (
    check_distributions,
    kl_by_class,
    kl_divergence,
    kl_report,
    kl_rows,
    mean_by_tier,
)


def independent_kl(targets: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """The definition in plain Python, one number at a time."""
    rows = []
    for target_row, probability_row in zip(targets.tolist(), probabilities.tolist(), strict=True):
        terms = []
        for target, probability in zip(target_row, probability_row, strict=True):
            clipped = min(max(probability, 1e-15), 1 - 1e-15)
            terms.append(target * (math.log(target) - math.log(clipped)) if target else 0.0)
        rows.append(math.fsum(terms))
    return rows


def shares(generator: np.random.Generator, n_rows: int) -> np.ndarray:
    votes = generator.integers(0, 4, size=(n_rows, 6))
    votes[votes.sum(axis=1) == 0, 0] = 1
    return votes / votes.sum(axis=1, keepdims=True)


def softmax(generator: np.random.Generator, n_rows: int, scale: float = 2.0) -> np.ndarray:
    logits = generator.normal(scale=scale, size=(n_rows, 6))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [0.1, 2.0, 50.0, 1000.0])
def test_random_rows_match_the_definition(scale: float) -> None:
    generator = np.random.default_rng(0)
    targets, probabilities = shares(generator, 500), softmax(generator, 500, scale)
    expected = independent_kl(targets, probabilities)
    np.testing.assert_allclose(kl_rows(targets, probabilities), expected, rtol=1e-12, atol=1e-14)
    assert kl_divergence(targets, probabilities) == pytest.approx(
        math.fsum(expected) / 500, rel=1e-12
    )


ONE_HOT = np.eye(6)
EDGES = {
    "both one-hot, equal": (ONE_HOT[0], ONE_HOT[0], 0.0),
    "both one-hot, different": (ONE_HOT[0], ONE_HOT[1], 15 * math.log(10)),
    "zeros in the target": ([0.5, 0.5, 0, 0, 0, 0], [0.25] * 4 + [0, 0], math.log(2)),
    "zero where the target is not": (
        [0.5, 0.5, 0, 0, 0, 0],
        ONE_HOT[0],
        0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-15),
    ),
    "uniform prediction": (ONE_HOT[3], [1 / 6] * 6, math.log(6)),
    "below the clip": (ONE_HOT[5], [1 - 1e-30, 0, 0, 0, 0, 1e-30], 15 * math.log(10)),
}


@pytest.mark.parametrize("name", EDGES)
def test_edge_cases_match_the_definition(name: str) -> None:
    target, probability, expected = EDGES[name]
    targets, probabilities = np.array([target], float), np.array([probability], float)
    found = kl_rows(targets, probabilities)
    np.testing.assert_allclose(found, independent_kl(targets, probabilities), atol=1e-14)
    np.testing.assert_allclose(found, [expected], rtol=1e-12, atol=1e-14)


def test_clipped_predictions_are_not_renormalised() -> None:
    # Renormalising would give ln(1 + 5e-15), far from the clip at 1 - 1e-15.
    found = kl_rows(ONE_HOT[:1], ONE_HOT[:1])[0]
    assert found == pytest.approx(1e-15, rel=0.2)


@given(arrays(np.int64, (5, 6), elements=st.integers(0, 20)), st.integers(0, 1000))
def test_kl_is_non_negative_and_zero_for_equal_distributions(votes: np.ndarray, seed: int) -> None:
    votes[:, 2] += 1
    targets = votes / votes.sum(axis=1, keepdims=True)
    assert kl_rows(targets, softmax(np.random.default_rng(seed), 5)).min() >= -1e-12
    np.testing.assert_allclose(kl_rows(targets, targets), 0, atol=1e-14)


def test_float32_and_six_decimals_are_accepted() -> None:
    generator = np.random.default_rng(1)
    probabilities = softmax(generator, 2000)
    targets = shares(generator, 2000)
    exact = kl_divergence(targets, probabilities)
    assert kl_divergence(targets, probabilities.astype(np.float32)) == pytest.approx(exact, 1e-6)
    check_distributions(probabilities.round(6))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-0.1, r"predictions must not be negative.*in 1 row\(s\): b"),
        (math.nan, r"predictions must be finite numbers.*in 1 row\(s\): b"),
        (math.inf, r"predictions must be finite numbers.*in 1 row\(s\): b"),
        (0.5, r"each row of predictions must sum to 1 within 1e-05, got 1\.5, in 1 row\(s\): b"),
    ],
)
def test_invalid_rows_are_refused_and_named(value: float, message: str) -> None:
    probabilities = np.array([ONE_HOT[0], ONE_HOT[1], ONE_HOT[2]])
    probabilities[1, 0] = value
    with pytest.raises(PredictionError, match=message):
        kl_rows(ONE_HOT[:3], probabilities, ids=["a", "b", "c"])


def test_invalid_targets_are_refused() -> None:
    with pytest.raises(PredictionError, match=r"each row of targets must sum to 1.*row\(s\): 0, 1"):
        kl_rows(np.full((2, 6), 3.0), ONE_HOT[:2])


def test_many_invalid_rows_are_counted() -> None:
    with pytest.raises(PredictionError, match=r"in 9 row\(s\): 0, 1, 2, 3, 4 and 4 more"):
        check_distributions(np.zeros((9, 6)))


def test_half_precision_is_refused() -> None:
    probabilities = softmax(np.random.default_rng(0), 2000).astype(np.float16)
    with pytest.raises(PredictionError, match="must sum to 1"):
        check_distributions(probabilities)


def test_shapes_are_checked() -> None:
    with pytest.raises(PredictionError, match=r"shape \(rows, 6\), got \(2, 5\)"):
        check_distributions(np.full((2, 5), 0.2))
    with pytest.raises(PredictionError, match=r"at least one row, got 0 rows"):
        check_distributions(np.empty((0, 6)))
    with pytest.raises(PredictionError, match="must be numbers"):
        check_distributions([["a"] * 6])
    with pytest.raises(PredictionError, match="got 3 and 2 rows"):
        kl_rows(ONE_HOT[:3], ONE_HOT[:2])
    with pytest.raises(PredictionError, match=r"one number for each of 2 rows, got \(3,\)"):
        kl_report(ONE_HOT[:2], ONE_HOT[:2], [1, 2, 3])


def test_scores_average_the_rows_of_their_votes() -> None:
    generator = np.random.default_rng(2)
    targets, probabilities = shares(generator, 6), softmax(generator, 6)
    rows = kl_rows(targets, probabilities)
    votes = np.array([1, 3, 4, 9, 10, 28])
    assert kl_report(targets, probabilities, votes) == {
        "kl_all": pytest.approx(rows.mean()),
        "kl_4": pytest.approx(rows[2:].mean()),
        "kl_10": pytest.approx(rows[4:].mean()),
    }
    assert mean_by_tier(rows, votes) == {
        "1-3": pytest.approx(rows[:2].mean()),
        "4-9": pytest.approx(rows[2:4].mean()),
        ">=10": pytest.approx(rows[4:].mean()),
    }


def test_scores_without_rows_are_none() -> None:
    few = kl_report(ONE_HOT[:2], ONE_HOT[:2], [1, 4])
    assert few["kl_10"] is None
    assert few["kl_4"] is not None
    assert mean_by_tier(np.zeros(2), [1, 4])[">=10"] is None


def test_class_parts_sum_to_the_score() -> None:
    generator = np.random.default_rng(3)
    targets, probabilities = shares(generator, 200), softmax(generator, 200)
    parts = kl_by_class(targets, probabilities)
    assert tuple(parts) == CLASSES
    assert sum(parts.values()) == pytest.approx(kl_divergence(targets, probabilities))
    only_lpd = np.tile(ONE_HOT[1], (4, 1))
    parts = kl_by_class(only_lpd, np.full((4, 6), 1 / 6))
    assert parts["LPD"] == pytest.approx(math.log(6))
    assert parts["GPD"] == 0
