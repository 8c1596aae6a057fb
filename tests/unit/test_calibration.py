from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from hms_ray.errors import PredictionError
from hms_ray.evaluate.calibration import (
    RIDGE,
    SHARPNESS,
    Recalibration,
    fit_recalibration,
    nested_recalibration,
    recalibrated_scores,
)
from hms_ray.evaluate.metric import CLIP, kl_divergence, kl_rows
from tests.ladder_data import softmax

BIASES = np.array([0.5, -0.3, 0.2, -0.4, 0.1, -0.1])
TEMPERATURE = 1.7


def problem(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets drawn from known odds, and a distortion of the odds that is known too."""
    generator = np.random.default_rng(seed)
    odds = softmax(2 * generator.normal(size=(n, 6)))
    votes = generator.choice([1, 3, 12], size=n)
    targets = generator.multinomial(votes, odds) / votes[:, None]
    distorted = (odds * np.exp(-BIASES)) ** TEMPERATURE
    return targets, distorted / distorted.sum(axis=1, keepdims=True)


def test_a_known_distortion_is_recovered_from_exact_targets() -> None:
    _, distorted = problem()
    truth = Recalibration(BIASES, TEMPERATURE).apply(distorted)
    found = fit_recalibration(truth, distorted)
    np.testing.assert_allclose(found.biases, BIASES, atol=2e-3)
    assert found.temperature == pytest.approx(TEMPERATURE, rel=2e-3)
    assert found.biases.sum() == pytest.approx(0, abs=1e-12)
    assert kl_divergence(truth, found.apply(distorted)) < 1e-6


def test_a_known_distortion_is_recovered_from_drawn_targets() -> None:
    targets, distorted = problem(20_000)
    found = fit_recalibration(targets, distorted)
    np.testing.assert_allclose(found.biases, BIASES, atol=0.06)
    assert found.temperature == pytest.approx(TEMPERATURE, rel=0.04)


def test_formula_matches_the_documentation() -> None:
    _, predicted = problem(20)
    by_hand = np.exp(BIASES) * predicted ** (1 / TEMPERATURE)
    by_hand /= by_hand.sum(axis=1, keepdims=True)
    found = Recalibration(BIASES, TEMPERATURE).apply(predicted)
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_in_sample_kl_never_rises(seed: int) -> None:
    generator = np.random.default_rng(seed)
    targets = np.eye(6)[generator.integers(0, 6, size=50)]
    predicted = softmax(generator.normal(size=(50, 6)) * 5)
    weights = generator.random(50)
    after = kl_rows(targets, fit_recalibration(targets, predicted, weights).apply(predicted))
    assert weights @ after < weights @ kl_rows(targets, predicted)


@pytest.mark.parametrize("opposite", [False, True])
def test_fit_ends_where_a_general_solver_does(opposite: bool) -> None:
    targets, predicted = problem(200)
    weights = np.random.default_rng(1).random(200)
    if opposite:  # s lies at its lower bound
        predicted = 1 / predicted
        predicted /= predicted.sum(axis=1, keepdims=True)

    def loss(parameters: np.ndarray) -> float:
        biases, sharpness = parameters[:6], parameters[6]
        recalibrated = Recalibration(biases, 1 / sharpness).apply(predicted)
        penalty = 0.5 * RIDGE * (biases @ biases + (sharpness - 1) ** 2)
        return float(np.average(kl_rows(targets, recalibrated), weights=weights) + penalty)

    reference = minimize(
        loss,
        np.append(np.zeros(6), 1.0),
        method="L-BFGS-B",
        bounds=[(None, None)] * 6 + [SHARPNESS],
        options={"ftol": 1e-15, "gtol": 1e-9},
    )
    found = fit_recalibration(targets, predicted, weights)
    assert loss(np.append(found.biases, 1 / found.temperature)) <= reference.fun + 1e-10
    np.testing.assert_allclose(found.biases, reference.x[:6] - reference.x[:6].mean(), atol=1e-3)
    assert 1 / found.temperature == pytest.approx(reference.x[6], abs=1e-3)


def test_opposite_predictions_become_almost_uniform() -> None:
    targets, predicted = problem()
    opposite = 1 / predicted
    opposite /= opposite.sum(axis=1, keepdims=True)
    found = fit_recalibration(targets, opposite)
    assert found.temperature == pytest.approx(1 / SHARPNESS[0])
    uniform = np.full(targets.shape, 1 / 6)
    assert found.apply(opposite) == pytest.approx(uniform, abs=0.1)
    assert kl_divergence(targets, found.apply(opposite)) < kl_divergence(targets, uniform) * 1.05


def test_classes_without_targets_and_one_hot_predictions_have_a_fit() -> None:
    targets, predicted = problem()
    targets = targets.copy()
    targets[:, 5] += targets[:, 0]
    targets[:, 0] = 0
    found = fit_recalibration(targets, predicted)
    assert -20 < found.biases[0] < -3
    certain = np.eye(6)[predicted.argmax(axis=1)]
    found = fit_recalibration(targets, certain)
    assert np.isfinite(found.biases).all()
    assert found.temperature > 5
    assert found.apply(certain).min() > CLIP


def test_earlier_recalibration_does_not_change_the_result() -> None:
    targets, predicted = problem()
    once = fit_recalibration(targets, predicted).apply(predicted)
    changed = Recalibration(-2 * BIASES, 0.6).apply(predicted)
    again = fit_recalibration(targets, changed).apply(changed)
    np.testing.assert_allclose(again, once, atol=2e-3)


def test_order_of_rows_and_scale_of_weights_do_not_matter() -> None:
    targets, predicted = problem(500)
    weights = np.random.default_rng(0).integers(0, 3, size=500)
    found = fit_recalibration(targets, predicted, weights)
    order = np.random.default_rng(1).permutation(500)
    other = fit_recalibration(targets[order], predicted[order], 7 * weights[order])
    repeated = np.repeat(np.arange(500), weights)
    copies = fit_recalibration(targets[repeated], predicted[repeated])
    for one in (other, copies):
        np.testing.assert_allclose(one.biases, found.biases, atol=1e-6)
        assert one.temperature == pytest.approx(found.temperature, abs=1e-6)


def test_targets_of_a_patient_never_reach_its_own_recalibration() -> None:
    targets, predicted = problem(300)
    patients = np.arange(300) // 10
    before = nested_recalibration(targets, predicted, patients, seed=3)
    np.testing.assert_allclose(before.sum(axis=1), 1)
    own = patients == 4
    changed = targets.copy()
    changed[own] = np.eye(6)[0]
    after = nested_recalibration(changed, predicted, patients, seed=3)
    np.testing.assert_allclose(after[own], before[own], rtol=1e-12, atol=1e-15)
    assert np.abs(after[~own] - before[~own]).max() > 1e-4


def test_nested_rows_match_fits_on_the_other_splits() -> None:
    targets, predicted = problem(300)
    patients = np.arange(300) // 150
    found = nested_recalibration(targets, predicted, patients)
    for inside, outside in ((slice(150), slice(150, None)), (slice(150, None), slice(150))):
        fit = fit_recalibration(targets[outside], predicted[outside])
        np.testing.assert_allclose(found[inside], fit.apply(predicted[inside]), atol=1e-5)


def test_rows_of_weight_zero_are_recalibrated_but_not_fitted_on() -> None:
    targets, predicted = problem(400)
    patients = np.arange(400) // 10
    weights = np.arange(400) % 2
    found = nested_recalibration(targets, predicted, patients, row_weights=weights)
    changed = targets.copy()
    changed[weights == 0] = np.eye(6)[1]
    again = nested_recalibration(changed, predicted, patients, row_weights=weights)
    np.testing.assert_allclose(again, found, rtol=1e-12)
    assert np.abs(found - predicted).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": np.full((9, 6), 0.5)}, r"each row of targets must sum to 1"),
        ({"probabilities": np.full((9, 6), 0.2)}, r"each row of predictions must sum to 1"),
        ({"probabilities": np.full((8, 6), 1 / 6)}, r"same rows, got 9 and 8 rows"),
        ({"row_weights": np.zeros(9)}, r"row weights must be finite, at least 0 and not all 0"),
        ({"patients": np.arange(8)}, r"one patient for each of 9 rows, got \(8,\)"),
        ({"patients": np.zeros(9)}, r"other patients' rows, got rows of one patient only"),
        ({"row_weights": np.eye(9)[0]}, r"other patients' rows, got rows of one patient only"),
    ],
)
def test_invalid_inputs_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "targets": np.eye(6)[np.arange(9) % 6],
        "probabilities": np.full((9, 6), 1 / 6),
        "patients": np.arange(9),
    }
    with pytest.raises(PredictionError, match=message):
        nested_recalibration(**arguments | changes)


def test_each_score_is_recalibrated_on_its_own_rows() -> None:
    targets, predicted = problem(900)
    votes = np.random.default_rng(1).choice([1, 5, 12], size=900)
    # Rows of many votes have other class shares, which a fit on all rows would miss.
    targets[votes == 12] = targets[votes == 12][:, ::-1]
    patients = np.arange(900) // 9
    found = recalibrated_scores(targets, predicted, patients, votes)
    for name, fewest in {"kl_all": 0, "kl_4": 4, "kl_10": 10}.items():
        rows = votes >= fewest
        corrected = nested_recalibration(targets[rows], predicted[rows], patients[rows])
        logs = np.log(np.where(targets[rows] > 0, targets[rows], 1) / corrected)
        assert found[name] == pytest.approx((targets[rows] * logs).sum(axis=1).mean(), rel=1e-12)


def test_scores_of_one_patient_are_not_recalibrated() -> None:
    targets, predicted = problem(30)
    votes, patients = np.repeat([12, 3, 3], 10), np.repeat([1, 2, 3], 10)
    found = recalibrated_scores(targets, predicted, patients, votes)
    assert found["kl_all"] is not None
    assert (found["kl_4"], found["kl_10"]) == (None, None)
    few = recalibrated_scores(targets, predicted, patients, np.full(30, 3))
    assert (few["kl_4"], few["kl_10"]) == (None, None)
