"""Recalibration: a correction of class shares and confidence alone.

A recalibrated prediction is ``q_k proportional to exp(b_k) p_k^s``: a bias for each
class and a sharpness ``s = 1/T`` (temperature scaling: Guo, Pleiss, Sun and
Weinberger, "On Calibration of Modern Neural Networks", 2017, sections 4.1-4.2; the
biases are those of vector scaling there). It is a multinomial logistic model whose features
are the log probabilities and a constant, so the mean KL is convex in (b, s).

A ladder step that gains no more than its recalibration has learned confidence and class
frequencies, not to read recordings better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import (
    CLIP,
    OBJECTIVES,
    Array,
    check_row_weights,
    checked_pair,
    row_sums,
)
from hms_ray.evaluate.multinomial import Ridge, fit_multinomial, softmax

RIDGE: Final = 1e-6
"""Nats for half a squared unit of b and of s - 1. It keeps the bias of a class without
targets finite; the KL that it costs is of the order of its square."""

SHARPNESS: Final = (0.01, 100.0)
"""Bounds of s; predictions opposite to the truth become almost uniform."""

_PENALTY: Final = Ridge(
    prior=np.array([1.0, 0.0]), strength=np.full(2, RIDGE), tied=np.array([True, False])
)
"""Of the features log p (one s for all classes) and 1 (one bias per class)."""
_MANY_ROWS, _STRIDE = 2000, 8
"""From 2,000 rows on, a fit on every 8th row gives the start: half the time for 20,000 rows."""


@dataclass(frozen=True)
class Recalibration:
    """A fitted correction.

    Attributes:
        biases: (6,) float64, added to log probabilities; they sum to 0.
        temperature: T > 0; above 1 predictions were overconfident.
    """

    biases: Array
    temperature: float

    def apply(self, probabilities: ArrayLike) -> Array:
        """Recalibrated distributions.

        Args:
            probabilities: (n, 6), clipped here as the metric clips them.

        Returns:
            (n, 6) float64, rows sum to 1.
        """
        logs = _logs(np.asarray(probabilities, np.float64))
        return softmax(self.biases[:, None] + logs / self.temperature)[0].T


def fit_recalibration(
    targets: ArrayLike, probabilities: ArrayLike, row_weights: ArrayLike | None = None
) -> Recalibration:
    """The biases and the temperature of the lowest weighted mean KL.

    The ridge is 0 for unchanged predictions, so the in-sample KL never rises.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (n, 6) predictions.
        row_weights: (n,) at least 0, not all 0; a boolean mask selects rows (default:
            equal weights).

    Raises:
        PredictionError: targets or predictions are not distributions, shapes differ, or row
            weights are invalid.
    """
    checked, predicted = checked_pair(targets, probabilities)
    weights = check_row_weights(row_weights, len(checked))
    return _fit(_logs(predicted), checked, weights)


def nested_recalibration(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    n_splits: int = 5,
    seed: int = 0,
    row_weights: ArrayLike | None = None,
) -> Array:
    """Recalibrates every patient's rows by a fit on other patients.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (n, 6) predictions.
        patients: (n,) patient of each row.
        n_splits: splits by patient, at most as many as there are patients.
        seed: of the splits.
        row_weights: (n,) weights of the rows in the fits; rows of weight 0 are recalibrated
            too.

    Returns:
        (n, 6) float64 distributions.

    Raises:
        PredictionError: as ``fit_recalibration``; or there is not one patient per row, or
            all rows of positive weight belong to one patient.
    """
    checked, predicted = checked_pair(targets, probabilities)
    weights = check_row_weights(row_weights, len(checked))
    owners = np.asarray(patients)
    if owners.shape != (len(checked),):
        raise PredictionError(
            f"there must be one patient for each of {len(checked)} rows", got=str(owners.shape)
        )
    if len(np.unique(owners[weights > 0])) < 2:
        raise PredictionError(
            "a recalibration for a patient must be fitted on other patients' rows",
            got="rows of one patient only",
            fix="Fit on a tier that more patients have rows of.",
        )
    split = patient_groups(owners, min(n_splits, len(np.unique(owners))), seed, weights)
    logs, corrected = _logs(predicted), np.empty(checked.shape)
    for number in range(int(split.max()) + 1):
        held_out, training = split == number, split != number
        fitted = _fit(logs[:, training], checked[training], weights[training])
        corrected[held_out] = fitted.apply(predicted[held_out])
    return corrected


def recalibrated_rows(
    targets: ArrayLike, probabilities: ArrayLike, patients: ArrayLike, total_votes: ArrayLike
) -> dict[str, Array | None]:
    """KL of each row after nested recalibration, for the rows of each score.

    The rows of each score are recalibrated by themselves, since a calibration for rows with
    many votes does not suit all rows.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (n, 6) predictions.
        patients: (n,) patient of each row.
        total_votes: (n,) votes of each row.

    Returns:
        ``kl_all``, ``kl_4``, ``kl_10`` -> (m,) of the rows that count, in their order; None for an
        objective without rows of two patients.

    Raises:
        PredictionError: as ``fit_recalibration``.
    """
    checked, predicted = checked_pair(targets, probabilities)
    owners, votes = np.asarray(patients), np.asarray(total_votes)
    rows: dict[str, Array | None] = {}
    for name, fewest in OBJECTIVES.items():
        chosen = votes >= fewest
        rows[name] = None
        if len(np.unique(owners[chosen])) > 1:
            known = checked[chosen]
            corrected = nested_recalibration(known, predicted[chosen], owners[chosen])
            rows[name] = row_sums(known, corrected)
    return rows


def recalibrated_scores(
    targets: ArrayLike, probabilities: ArrayLike, patients: ArrayLike, total_votes: ArrayLike
) -> dict[str, float | None]:
    """The scores of ``kl_report`` after nested recalibration: means of ``recalibrated_rows``."""
    rows = recalibrated_rows(targets, probabilities, patients, total_votes)
    return {name: None if kl is None else float(kl.mean()) for name, kl in rows.items()}


def _fit(logs: Array, targets: Array, row_weights: Array) -> Recalibration:
    """The recalibration of the lowest penalised loss, on (6, n) log probabilities."""
    features = np.stack([logs, np.ones_like(logs)], axis=1)
    start, few = None, slice(None, None, _STRIDE)
    if len(row_weights) >= _MANY_ROWS and row_weights[few].any():
        # A start from the same rows, not from other ones: not even rounding must leak.
        some = np.ascontiguousarray(features[:, :, few])
        start = fit_multinomial(some, targets[few], row_weights[few], _PENALTY).coefficients
    fitted = fit_multinomial(features, targets, row_weights, _PENALTY, start).coefficients
    sharpness, biases = float(fitted[0, 0]), fitted[:, 1]
    bounded = float(np.clip(sharpness, *SHARPNESS))
    if bounded != sharpness:
        # The loss is convex, so the best s within the bounds is a bound.
        ones, offset = features[:, 1:], bounded * logs
        biases = fit_multinomial(
            ones, targets, row_weights, _PENALTY.take([1]), offset=offset
        ).coefficients[:, 0]
    return Recalibration(biases - biases.mean(), 1 / bounded)


def _logs(probabilities: Array) -> Array:
    return np.ascontiguousarray(np.log(np.clip(probabilities, CLIP, 1 - CLIP)).T)
