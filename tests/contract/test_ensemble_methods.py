"""What every ensemble method keeps, whatever it computes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hms_ray.ensemble.methods.base import FitRows, FittedMethod, Method, checked_rows, tier_weights
from hms_ray.ensemble.methods.combined import fitted_from_json
from hms_ray.ensemble.methods.registry import all_methods, named_methods
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import kl_divergence
from tests.ensemble_data import EnsembleSample, ensemble_sample

METHODS = all_methods()
MODELS = np.full((3, 9, 6), 1 / 6)
NO_BETTER_THAN_EQUAL = {"best_single", "greedy", "stacked"}
"""One model or half of them may be worse than all; a stack's proportions are not in-sample."""
ORDER_MATTERS = {"greedy"}
"""Its bags are drawn by position."""
RIDGE_MATTERS = {"log_linear", "log_linear_context", "simplex_and_context", "stacked"}
"""Copies of a model share its weight, and so reduce the ridge penalty a little."""
SAME_FOR_ANY_TIER = {"equal", "best_single"}
"""In this sample the best single model is the same on all rows and on those of >= 10 votes."""


@pytest.fixture(scope="module")
def sample() -> EnsembleSample:
    return ensemble_sample(5)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


def fit(method: Method, sample: EnsembleSample) -> FittedMethod:
    return method.fit(sample.targets, sample.models, None, sample.patients)


def test_names_are_unique_and_listed_simplest_first() -> None:
    assert [method.name for method in METHODS.values()] == list(METHODS)
    assert list(METHODS) == [
        "equal", "best_single", "greedy", "simplex", "simplex_recalibrated", "log_linear",
        "log_linear_context", "simplex_and_context", "stacked",
    ]  # fmt: skip
    names = ["log_linear", "equal", "simplex"]
    assert [found.name for found in named_methods(names)] == ["equal", "simplex", "log_linear"]
    with pytest.raises(PredictionError, match=r"one of equal, best_single, .*stacked, got best$"):
        named_methods(["best"])


def test_predictions_are_distributions_of_each_row_alone(
    method: Method, sample: EnsembleSample
) -> None:
    fitted = fit(method, sample)
    predicted = fitted.predict(sample.models)
    assert (predicted.shape, predicted.dtype) == (sample.targets.shape, np.float64)
    assert predicted.min() >= 0
    np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(fitted.predict(sample.models[:, 7:9]), predicted[7:9], atol=1e-12)


def test_json_round_trip_predicts_the_same(method: Method, sample: EnsembleSample) -> None:
    fitted = fit(method, sample)
    stored = json.loads(json.dumps(fitted.to_json(), allow_nan=False))
    restored = fitted_from_json(stored)
    assert json.loads(json.dumps(restored.to_json())) == stored
    np.testing.assert_array_equal(restored.predict(sample.models), fitted.predict(sample.models))


def test_fits_are_deterministic_and_leave_inputs_unchanged(
    method: Method, sample: EnsembleSample
) -> None:
    targets, models = sample.targets.copy(), sample.models.copy()
    targets.setflags(write=False)
    models.setflags(write=False)
    again = method.fit(targets, models, None, sample.patients)
    expected = fit(METHODS[method.name], sample).predict(sample.models)
    np.testing.assert_array_equal(again.predict(models), expected)


def test_rows_of_weight_zero_are_ignored(method: Method, sample: EnsembleSample) -> None:
    good = sample.votes >= 10
    weights = tier_weights(sample.votes, "kl_10")
    np.testing.assert_array_equal(weights, good.astype(float))
    changed = sample.targets.copy()
    changed[~good] = 1 / 6
    weighted = method.fit(sample.targets, sample.models, weights, sample.patients)
    expected = weighted.predict(sample.models)
    masked = method.fit(changed, sample.models, good, sample.patients)
    np.testing.assert_array_equal(masked.predict(sample.models), expected)
    alone = fit(method, sample.rows(good))
    np.testing.assert_allclose(alone.predict(sample.models), expected, atol=1e-9)
    different = np.abs(fit(method, sample).predict(sample.models) - expected).max() > 1e-4
    assert different == (method.name not in SAME_FOR_ANY_TIER)


def test_scale_of_row_weights_does_not_matter(method: Method, sample: EnsembleSample) -> None:
    weights = np.random.default_rng(0).uniform(0.5, 2, size=len(sample.targets))
    first, second = (
        method.fit(sample.targets, sample.models, scale * weights, sample.patients)
        for scale in (1, 1000)
    )
    np.testing.assert_allclose(
        first.predict(sample.models), second.predict(sample.models), atol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ORDER_MATTERS])
def test_order_of_models_does_not_matter(name: str, sample: EnsembleSample) -> None:
    order = np.array([3, 0, 4, 1, 2])
    first = fit(METHODS[name], sample)
    second = fit(METHODS[name], sample._replace(models=sample.models[order]))
    np.testing.assert_allclose(
        second.predict(sample.models[order]), first.predict(sample.models), atol=1e-5
    )
    weights, permuted = (getattr(fitted, "weights", None) for fitted in (first, second))
    if weights is not None and len(weights) == len(order):
        np.testing.assert_allclose(permuted, weights[order], atol=1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ORDER_MATTERS])
def test_duplicates_of_models_do_not_change_predictions(name: str, sample: EnsembleSample) -> None:
    doubled = np.concatenate([sample.models, sample.models])
    first = fit(METHODS[name], sample)
    second = fit(METHODS[name], sample._replace(models=doubled))
    tolerance = 0.02 if name in RIDGE_MATTERS else 1e-5
    np.testing.assert_allclose(
        second.predict(doubled), first.predict(sample.models), atol=tolerance
    )


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NO_BETTER_THAN_EQUAL])
def test_in_sample_kl_is_no_worse_than_that_of_equal_weights(
    name: str, sample: EnsembleSample
) -> None:
    kl, equal = (
        kl_divergence(sample.targets, fit(METHODS[one], sample).predict(sample.models))
        for one in (name, "equal")
    )
    assert kl <= equal + 1e-9


def test_one_model_zeros_and_classes_without_votes_are_accepted(method: Method) -> None:
    sample = ensemble_sample(1, n_patients=12)
    targets = sample.targets.copy()
    targets[:, 5] = 0
    targets[targets.sum(axis=1) == 0, 0] = 1
    targets /= targets.sum(axis=1, keepdims=True)
    cut = np.where(sample.models < 0.05, 0.0, sample.models)
    cut /= cut.sum(axis=2, keepdims=True)
    for models in (sample.models, cut, np.eye(6)[cut.argmax(axis=2)]):
        fitted = method.fit(targets, models.astype(np.float32), None, sample.patients)
        predicted = fitted.predict(models)
        assert np.isfinite(predicted).all()
        np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-5)


def test_fewer_than_min_patients_are_refused(method: Method, sample: EnsembleSample) -> None:
    enough = np.isin(sample.patients, np.arange(method.min_patients))
    assert fit(method, sample.rows(enough)).predict(sample.models).shape == sample.targets.shape
    if method.min_patients == 1:
        method.fit(sample.targets, sample.models)
        return
    with pytest.raises(PredictionError, match="at least two patients, got rows of one patient"):
        fit(method, sample.rows(sample.patients == 0))
    with pytest.raises(PredictionError, match="needs the patient of each row"):
        method.fit(sample.targets, sample.models)


def test_wrong_number_of_models_is_refused(method: Method, sample: EnsembleSample) -> None:
    fitted = fit(method, sample)
    with pytest.raises(PredictionError, match=r"shape \(5, rows, 6\).* got \(4, "):
        fitted.predict(sample.models[:4])


def test_invalid_inputs_are_refused(method: Method, sample: EnsembleSample) -> None:
    broken = sample.models * np.array([1, 2, 1, 1, 1])[:, None, None]
    with pytest.raises(PredictionError, match="predictions of model 1 must sum to 1"):
        method.fit(sample.targets, broken, None, sample.patients)
    with pytest.raises(PredictionError, match="predictions of model 1 must sum to 1"):
        fit(method, sample).predict(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": MODELS[:, 1:]}, r"\(models, 9, 6\), got \(3, 8, 6\)"),
        ({"probabilities": MODELS[:0]}, r"got \(0, 9, 6\)"),
        ({"targets": 2 * MODELS[0]}, "each row of targets must sum to 1"),
        ({"row_weights": np.zeros(9)}, "finite, at least 0 and not all 0, got values"),
        ({"row_weights": np.arange(-1, 8)}, "at least 0 and not all 0, got values from -1"),
        ({"row_weights": np.ones(3)}, r"one number for each of 9 rows, got \(3,\)"),
        ({"patients": [1, 2, 3]}, r"one patient for each of 9 rows, got \(3,\)"),
    ],
)
def test_arrays_of_other_shapes_or_values_are_refused(changes: dict, message: str) -> None:
    arguments = {"targets": MODELS[0], "probabilities": MODELS, "row_weights": None}
    with pytest.raises(PredictionError, match=message):
        checked_rows(**{**arguments, "patients": None, **changes})


def test_rows_are_fitted_once_per_method(method: Method, sample: EnsembleSample) -> None:
    rows: FitRows = checked_rows(sample.targets, sample.models, None, sample.patients)
    assert rows.fit(method) is rows.fit(method)
