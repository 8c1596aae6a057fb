"""Confusion, reliability and discrimination of vote shares, against NumPy and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hms_ray.competition.schema import CLASSES
from hms_ray.errors import PredictionError
from hms_ray.evaluate.confusion import share_confusion
from hms_ray.evaluate.discrimination import discrimination
from hms_ray.evaluate.reliability import reliability
from tests.refused import refusal


def drawn(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets of few votes, predictions with ties, and 20 patients."""
    generator = np.random.default_rng(seed)
    targets = generator.multinomial(4, np.full(6, 1 / 6), size=n) / 4
    mixed = np.round(0.5 * targets + 0.5 * generator.dirichlet(np.ones(6), n), 1) + 0.01
    return targets, mixed / mixed.sum(axis=1, keepdims=True), generator.integers(0, 20, n)


def test_confusion_is_the_mean_prediction_weighted_by_true_share() -> None:
    targets, predicted, _ = drawn()
    weights = np.arange(1.0, len(targets) + 1)
    found = share_confusion(targets, predicted, weights)
    for true in range(6):
        expected = np.average(predicted, axis=0, weights=weights * targets[:, true])
        np.testing.assert_allclose(found.shares[true], expected)
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)
    np.testing.assert_allclose(found.weights, weights @ targets)
    np.testing.assert_allclose(found.ideal, share_confusion(targets, targets, weights).shares)


def test_confusion_of_hard_votes_is_the_usual_matrix_and_nan_without_votes() -> None:
    true, predicted = np.eye(6)[[0, 0, 0, 1]], np.eye(6)[[0, 0, 5, 1]]
    found = share_confusion(true, predicted)
    np.testing.assert_allclose(found.shares[0], [2 / 3, 0, 0, 0, 0, 1 / 3])
    np.testing.assert_allclose(found.ideal[:2], np.eye(6)[:2])
    assert np.isnan(found.shares[2:]).all()


def test_reliability_bins_and_ece() -> None:
    targets, predicted, _ = drawn()
    found = reliability(targets, predicted, n_bins=5)
    np.testing.assert_allclose(found.edges, [0, 0.2, 0.4, 0.6, 0.8, 1])
    for k in range(6):
        ece = 0.0
        for b in range(5):
            low, high = found.edges[b], found.edges[b + 1]
            inside = (predicted[:, k] >= low) & (predicted[:, k] < high)
            assert found.counts[k, b] == inside.sum()
            if inside.any():
                assert found.predicted[k, b] == pytest.approx(predicted[inside, k].mean())
                assert found.true[k, b] == pytest.approx(targets[inside, k].mean())
                difference = abs(predicted[inside, k].mean() - targets[inside, k].mean())
                ece += inside.mean() * difference
            else:
                assert np.isnan(found.predicted[k, b])
        assert found.ece[k] == pytest.approx(ece)
    assert found.mean_ece == pytest.approx(found.ece.mean())


def test_a_share_of_one_is_in_the_last_bin() -> None:
    found = reliability(np.eye(6), np.eye(6))
    assert found.counts[:, -1].tolist() == [1] * 6
    assert found.counts[:, 0].tolist() == [5] * 6
    assert found.ece.tolist() == [0.0] * 6


def test_areas_are_those_of_scikit_learn_with_shares_as_sample_weights() -> None:
    targets, predicted, patients = drawn()
    found = discrimination(targets, predicted, patients, n_resamples=10)
    assert list(found) == list(CLASSES)
    labels = np.repeat([1, 0], len(targets))
    for k, name in enumerate(CLASSES):
        weights = np.concatenate([targets[:, k], 1 - targets[:, k]])
        arguments = labels, np.tile(predicted[:, k], 2)
        auroc = roc_auc_score(*arguments, sample_weight=weights)
        auprc = average_precision_score(*arguments, sample_weight=weights)
        assert found[name].auroc.value == pytest.approx(auroc, abs=1e-12)
        assert found[name].auprc.value == pytest.approx(auprc, abs=1e-12)
        assert found[name].share == pytest.approx(targets[:, k].mean())
        assert (found[name].n_rows, found[name].n_patients) == (120, 20)


def test_intervals_are_percentiles_over_resampled_patients() -> None:
    targets, predicted, patients = drawn(60)
    found = discrimination(targets, predicted, patients, seed=3, n_resamples=40)["LPD"]
    known = np.unique(patients)
    counts = np.random.default_rng(3).multinomial(
        len(known), np.full(len(known), 1 / len(known)), 40
    )
    labels, areas = np.repeat([1, 0], 60), []
    for drawn_times in counts:
        times = dict(zip(known.tolist(), drawn_times.tolist(), strict=True))
        weights = np.array([times[patient] for patient in patients.tolist()])
        both = np.concatenate([weights * targets[:, 1], weights * (1 - targets[:, 1])])
        arguments = labels, np.tile(predicted[:, 1], 2)
        areas.append(
            (
                roc_auc_score(*arguments, sample_weight=both),
                average_precision_score(*arguments, sample_weight=both),
            )
        )
    low, high = np.quantile(areas, [0.025, 0.975], axis=0)
    assert (found.auroc.low, found.auprc.low) == pytest.approx(tuple(low))
    assert (found.auroc.high, found.auprc.high) == pytest.approx(tuple(high))


def test_rows_of_one_patient_make_the_interval_wider() -> None:
    targets, predicted, patients = drawn(60)
    many = [np.tile(one, (20, 1)) for one in (targets, predicted)]
    owners = np.tile(patients, 20)
    once = discrimination(targets, predicted, patients)["GPD"].auroc
    again = discrimination(*many, owners)["GPD"].auroc
    assert (again.value, again.low, again.high) == pytest.approx((once.value, once.low, once.high))


def test_classes_without_votes_have_no_areas_and_one_patient_no_interval() -> None:
    targets, predicted = np.eye(6)[[0, 1, 0]], np.full((3, 6), 1 / 6)
    found = discrimination(targets, predicted, [7, 7, 7])
    assert list(found) == ["Seizure", "LPD"]
    assert found["Seizure"].auroc.value == 0.5
    assert found["Seizure"].auprc.value == pytest.approx(2 / 3)
    assert (found["LPD"].auroc.low, found["LPD"].auroc.high) == (-np.inf, np.inf)


def test_there_is_one_patient_per_row() -> None:
    targets, predicted, _ = drawn(4)
    with refusal(PredictionError, "there must be one patient for each of 4 rows", got="(3,)"):
        discrimination(targets, predicted, [1, 2, 3])
