"""Gains against a reference blend, and the fit of a reference, on simulated predictions."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from hms_ray.ensemble.blend_gain import GainRows, mixing_weight
from hms_ray.ensemble.reference_blend import (
    _best_single,
    _without_fold,
    fit_reference,
    predict_folds,
    predict_without,
)
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import CLIP, row_sums
from tests.ensemble_data import softmax
from tests.refused import refusal
from tests.slsqp import slsqp_weights

N_FOLDS = 5


class Simulated:
    """Rows of patients with few votes, and models that see the truth with errors."""

    def __init__(self, seed: int, n_rows: int = 600) -> None:
        self.generator = np.random.default_rng(seed)
        self.truth = self.generator.normal(size=(n_rows, 6)) * 1.5
        votes = self.generator.integers(3, 20, size=n_rows)
        shares = softmax(self.truth)
        drawn = [self.generator.multinomial(v, p) for v, p in zip(votes, shares, strict=True)]
        self.targets = np.stack(drawn) / votes[:, None]
        self.patients = np.arange(n_rows) // 4
        self.folds = self.patients % N_FOLDS
        self.scored = votes >= 10

    @property
    def rows(self) -> GainRows:
        return GainRows.of(self.targets, self.folds, self.scored)

    def model(self, signal: float = 0.6, error: float = 0.8) -> np.ndarray:
        noise = self.generator.normal(size=self.truth.shape)
        return softmax(signal * self.truth + error * noise)


def plain_gain(data: Simulated, reference: np.ndarray, model: np.ndarray) -> tuple[float, list]:
    """The definition in plain NumPy, on whole predictions, with SciPy's bounded minimiser."""
    q, p = np.clip(reference, CLIP, 1 - CLIP), np.clip(model, CLIP, 1 - CLIP)
    total, weights = 0.0, []
    for fold in range(N_FOLDS):
        train = data.scored & (data.folds != fold)
        held_out = data.scored & (data.folds == fold)
        found = minimize_scalar(
            lambda w, train=train: row_sums(
                data.targets[train], (1 - w) * q[train] + w * p[train]
            ).sum(),
            bounds=(0, 1),
            method="bounded",
            options={"xatol": 1e-10},
        )
        weights.append(found.x)
        mixed = (1 - found.x) * q[held_out] + found.x * p[held_out]
        targets = data.targets[held_out]
        total += (row_sums(targets, q[held_out]) - row_sums(targets, mixed)).sum()
    return total / data.scored.sum(), weights


def test_a_gain_is_that_of_the_definition() -> None:
    data = Simulated(0)
    reference, model = data.model(), data.model(0.5, 1.0)
    rows = data.rows
    found = rows.gain(rows.probabilities(reference), rows.probabilities(model))
    mean, weights = plain_gain(data, reference, model)
    assert found.mean == pytest.approx(mean, abs=1e-9)
    np.testing.assert_allclose(found.weights, weights, atol=1e-5)
    assert found.mean > 0.005
    assert found.rows[data.scored].mean() == pytest.approx(found.mean)
    assert not found.rows[~data.scored].any()


def test_the_weight_of_a_fold_does_not_see_the_fold() -> None:
    data = Simulated(1)
    reference, model = data.model(), data.model()
    changed = model.copy()
    changed[data.folds == 2] = data.targets[data.folds == 2]  # perfect in one fold alone
    rows = data.rows
    q = rows.probabilities(reference)
    before, after = (rows.gain(q, rows.probabilities(one)) for one in (model, changed))
    assert after.weights[2] == pytest.approx(before.weights[2], abs=1e-8)
    assert (after.weights[[0, 1, 3, 4]] > before.weights[[0, 1, 3, 4]]).all()


def test_the_reference_itself_gains_exactly_nothing() -> None:
    data = Simulated(2)
    rows = data.rows
    q = rows.probabilities(data.model())
    found = rows.gain(q, q)
    assert found.mean == 0
    assert not found.rows.any()


def test_a_useless_model_does_not_gain_by_overfitting() -> None:
    """Predictions that know nothing beyond the reference; in-sample weights would gain."""
    gains, in_sample = [], []
    for seed in range(60):
        data = Simulated(100 + seed, n_rows=300)
        rows = data.rows
        reference = data.model()
        # As good as the reference where it differs, by a noise that knows no truth.
        noise = data.generator.normal(size=reference.shape) * 0.3
        useless = softmax(np.log(reference) + noise)
        q, p = rows.probabilities(reference), rows.probabilities(useless)
        gains.append(rows.gain(q, p).mean)
        w = mixing_weight(rows.shares, p / q - 1)
        in_sample.append(float(rows.shares @ np.log1p(w * (p / q - 1))))
    assert min(in_sample) >= 0
    assert np.mean(in_sample) > 0.0005  # what fitting and scoring on the same rows would report
    assert np.mean(gains) < 2 * np.std(gains) / len(gains) ** 0.5
    assert np.mean(gains) < 0.2 * np.mean(in_sample)


def test_a_model_worse_than_nothing_gains_nothing() -> None:
    # An overconfident reference would gain from any flatter model, and truly so.
    data = Simulated(3)
    rows = data.rows
    q, p = rows.probabilities(data.model(0.5, 0.3)), rows.probabilities(data.model(0.0, 2.0))
    assert -0.002 < rows.gain(q, p).mean <= 0


def test_certain_predictions_have_finite_gains() -> None:
    data = Simulated(4)
    rows = data.rows
    certain = np.zeros((600, 6))
    certain[:, 0] = 1.0
    q, p = rows.probabilities(certain), rows.probabilities(data.model())
    found = rows.gain(q, p)
    assert found.mean > 1
    assert (found.weights > 0.9).all()
    assert -1e-9 < rows.gain(p, q).mean < 0.01


def test_scored_rows_of_one_fold_are_refused() -> None:
    data = Simulated(5)
    rule = "a gain needs scored rows in at least two folds"
    with refusal(
        PredictionError,
        rule,
        got=f"{int((data.folds == 1).sum())} row(s) in 1 fold(s)",
        fix="Use more data or the rows of another score.",
    ):
        GainRows.of(data.targets, data.folds, data.folds == 1)


def test_a_clearly_better_blend_becomes_the_reference() -> None:
    data = Simulated(6)
    rows = data.rows
    models = np.stack([rows.probabilities(data.model()) for _ in range(6)])
    fit = fit_reference(rows, models, data.patients)
    assert fit.method == "simplex"
    assert fit.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(fit.by_fold.sum(axis=1), 1)
    reference = predict_folds(rows, models, fit.by_fold)
    # Exact weights of all models leave none of them a gain.
    assert max(rows.gain(reference, model).mean for model in models) < 0.0005


def test_a_blend_that_is_no_better_is_the_best_model_alone() -> None:
    data = Simulated(7)
    rows = data.rows
    models = np.stack([rows.probabilities(data.model(0.7, 0.4)), *_bad(data, rows)])
    fit = fit_reference(rows, models, data.patients)
    assert fit.method == "best_single"
    assert fit.weights.tolist() == [1, 0, 0, 0]
    assert fit.members.tolist() == [0]


def _bad(data: Simulated, rows: GainRows) -> list[np.ndarray]:
    return [rows.probabilities(data.model(0.0, 2.0)) for _ in range(3)]


def test_a_reference_predicts_a_fold_by_the_other_folds() -> None:
    data = Simulated(8)
    rows = data.rows
    models = np.stack([rows.probabilities(data.model()) for _ in range(4)])
    fit = fit_reference(rows, models, data.patients)
    changed = models.copy()
    changed[0, rows.inside(3)] = models[1, rows.inside(3)]
    again = fit_reference(rows, changed, data.patients)
    # Up to the solver's tolerance: it starts from the weights of all rows.
    np.testing.assert_allclose(fit.by_fold[3], again.by_fold[3], atol=1e-9)
    assert np.abs(fit.by_fold[1] - again.by_fold[1]).max() > 1e-3


def plain_weights(rows: GainRows, models: np.ndarray, kept: np.ndarray) -> np.ndarray:
    shares = rows.shares[kept] / rows.shares[kept].sum()
    return slsqp_weights(shares, models[:, kept], 1e-14)


def test_the_weights_of_each_fold_are_the_optimum_of_the_other_folds() -> None:
    data = Simulated(12)
    rows = data.rows
    models = np.stack([rows.probabilities(data.model(0.6, 0.6 + n / 10)) for n in range(6)])
    models[5, rows.outside(2)] *= 0.01  # without weight, except where fold 2 is alone
    fit = fit_reference(rows, models, data.patients)
    assert fit.method == "simplex"
    for fold in range(N_FOLDS):
        expected = plain_weights(rows, models, rows.outside(fold))
        np.testing.assert_allclose(fit.by_fold[fold], expected, atol=1e-4)
    expected = plain_weights(rows, models, np.ones(len(rows.entries), bool))
    np.testing.assert_allclose(fit.weights, expected, atol=1e-4)


def test_models_join_the_weights_of_a_fold_wherever_they_start() -> None:
    data = Simulated(13)
    rows = data.rows
    models = np.stack([rows.probabilities(data.model()) for _ in range(5)])
    for fold in (0, 2, 4):
        outside = rows.outside(fold)
        shares = rows.shares / rows.shares[outside].sum()
        start = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
        found = _without_fold(models, shares, rows.inside(fold), start, start > 0)
        np.testing.assert_allclose(found, plain_weights(rows, models, outside), atol=1e-4)


def test_the_best_single_model_of_each_fold_is_that_of_the_other_folds() -> None:
    data = Simulated(14)
    rows = data.rows
    models = np.stack([rows.probabilities(data.model(0.6, 0.5 + n / 5)) for n in range(3)])
    models[0, rows.inside(1)] = 1e-6  # the best one elsewhere
    whole, by_fold = _best_single(rows, models)
    losses = -np.log(models) * rows.shares
    assert whole.argmax() == losses.sum(axis=1).argmin()
    for fold in range(N_FOLDS):
        expected = losses[:, rows.outside(fold)].sum(axis=1).argmin()
        assert by_fold[fold].tolist() == np.eye(3)[expected].tolist()
    assert whole.argmax() != by_fold[1].argmax() == 0


def test_a_member_is_measured_against_the_others() -> None:
    data = Simulated(9)
    rows = data.rows
    models = np.stack([rows.probabilities(data.model()) for _ in range(4)])
    by_fold = np.tile([0.4, 0.3, 0.2, 0.1], (N_FOLDS, 1))
    reference = predict_folds(rows, models, by_fold)
    others = np.tile([0, 0.5, 1 / 3, 1 / 6], (N_FOLDS, 1))
    without = predict_without(rows, reference, models[0], by_fold[:, 0])
    np.testing.assert_allclose(without, predict_folds(rows, models, others), rtol=1e-9)
    assert rows.gain(without, models[0]).mean > rows.gain(reference, models[0]).mean + 0.002


def test_the_only_member_is_measured_against_itself() -> None:
    data = Simulated(10)
    rows = data.rows
    model = rows.probabilities(data.model())
    without = predict_without(rows, model, model, np.ones(N_FOLDS))
    assert rows.gain(without, model).mean == 0
