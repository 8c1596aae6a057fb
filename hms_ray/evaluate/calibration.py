"""What a correction of class shares and confidence alone would gain.

A recalibrated prediction is ``q_k proportional to exp(b_k) p_k^s``: a bias for each
class and a sharpness ``s = 1/T`` (temperature scaling: Guo, Pleiss, Sun and
Weinberger, "On Calibration of Modern Neural Networks", 2017, sections 4.1-4.2; the
biases are those of vector scaling there). The mean KL of it is convex in (b, s), for
it is that of a multinomial logistic model with the log probabilities as offsets.

A step of a ladder that gains no more than this correction does has learned when to
be sure and which classes are frequent, not to read recordings better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.competition.schema import N_CLASSES
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import CLIP, Array, check_distributions, check_row_weights

RIDGE: Final = 1e-6
"""Nats for half a squared unit of b and of s - 1: a class without targets would take its
bias to minus infinity otherwise. The KL that it costs is of the order of its square."""

SHARPNESS: Final = (0.01, 100.0)
"""Bounds of s: predictions that say the opposite of the truth become almost uniform."""

_TOLERANCE: Final = 1e-10
"""Nats that a further Newton step promises at which the search ends; scores differ in
the 4th decimal."""
_MAX_STEPS: Final = 100
_BLOCK: Final = 2048
"""Rows computed with at once: their arrays stay in a core's cache."""
_MANY_ROWS, _STRIDE = 2000, 8
"""From so many rows on, every 8th row tells where to start."""


@dataclass(frozen=True)
class Recalibration:
    """A fitted correction.

    Attributes:
        biases: (6,) float64, added to log probabilities; they sum to 0.
        temperature: T > 0; above 1 predictions were too sure.
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
        scores = self.biases[:, None] + logs / self.temperature
        odds = np.exp(scores - scores.max(axis=0))
        corrected: Array = (odds / odds.sum(axis=0)).T
        return corrected


def fit_recalibration(
    targets: ArrayLike, probabilities: ArrayLike, row_weights: ArrayLike | None = None
) -> Recalibration:
    """The biases and the temperature with the lowest weighted mean KL.

    The ridge is 0 where nothing is changed, so the KL on the fitted rows is never
    above that of the predictions themselves.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (n, 6) predictions.
        row_weights: (n,) weights of the rows, at least 0 and not all 0; a mask of
            booleans picks rows. All rows count the same where absent.

    Raises:
        PredictionError: where a side is no distribution, the shapes differ, or the
            row weights are invalid.
    """
    checked, predicted, weights = _checked(targets, probabilities, row_weights)
    logs, shares = _logs(predicted), np.ascontiguousarray(checked.T)
    return _as_recalibration(_fit(logs, shares, weights))


def nested_recalibration(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    n_splits: int = 5,
    seed: int = 0,
    row_weights: ArrayLike | None = None,
) -> Array:
    """Recalibrates every patient's rows with what was fitted on other patients.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (n, 6) predictions.
        patients: (n,) patient of each row.
        n_splits: splits by patient; as many as there are patients, if fewer.
        seed: of the splits.
        row_weights: (n,) weights of the rows in the fits; rows of weight 0 are
            recalibrated all the same.

    Returns:
        (n, 6) float64 distributions.

    Raises:
        PredictionError: as ``fit_recalibration``, and where patients are not one a
            row, or the rows with weight all belong to one.
    """
    checked, predicted, weights = _checked(targets, probabilities, row_weights)
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
    logs, shares = _logs(predicted), np.ascontiguousarray(checked.T)
    corrected = np.empty(checked.shape)
    for number in range(int(split.max()) + 1):
        inside, outside = split == number, split != number
        fitted = _fit(logs[:, outside], shares[:, outside], weights[outside])
        corrected[inside] = _as_recalibration(fitted).apply(predicted[inside])
    return corrected


def wanted_part(logs: Array, targets: Array, row_weights: Array) -> Array:
    """What of the loss's gradient does not depend on the parameters, (7,) nats.

    Args:
        logs: (6, n) logarithms of clipped predictions.
        targets: (6, n) vote shares.
        row_weights: (n,) weights that sum to 1.
    """
    weighted = row_weights * targets
    return np.append(weighted.sum(axis=1), np.vdot(weighted, logs))


def penalised_loss(
    parameters: Array, logs: Array, row_weights: Array, wanted: Array
) -> tuple[float, Array, Array]:
    """What a fit minimises, up to a constant, with its exact derivatives.

    Args:
        parameters: (7,) the biases, then s = 1/T.
        logs: (6, n) logarithms of clipped predictions.
        row_weights: (n,) weights that sum to 1.
        wanted: (7,) of ``wanted_part``.

    Returns:
        ``sum_i w_i (ln sum_k exp(b_k + s l_ki) - sum_k t_ki (b_k + s l_ki))`` plus
        the ridge, its gradient (7,) and its Hessian (7, 7); nats.
    """
    change = parameters - _unchanged()
    loss = 0.5 * RIDGE * float(change @ change) - float(wanted @ parameters)
    gradient, hessian = RIDGE * change - wanted, RIDGE * np.eye(N_CLASSES + 1)
    for first in range(0, len(row_weights), _BLOCK):
        block = slice(first, first + _BLOCK)
        loss += _add_block(parameters, logs[:, block], row_weights[block], gradient, hessian)
    return loss, gradient, hessian


def _add_block(
    parameters: Array, logs: Array, row_weights: Array, gradient: Array, hessian: Array
) -> float:
    """Adds some rows' part to the derivatives, and returns that of the loss."""
    scores = parameters[-1] * logs
    scores += parameters[:-1, None]
    highest = scores.max(axis=0)
    scores -= highest
    predicted = np.exp(scores, out=scores)
    sums = predicted.sum(axis=0)
    predicted /= sums
    weighted = predicted * row_weights
    shares = weighted.sum(axis=1)
    parts = predicted * logs
    means = parts.sum(axis=0)
    of_classes = parts @ row_weights
    gradient[:-1] += shares
    gradient[-1] += of_classes.sum()
    hessian[:-1, :-1] += np.diag(shares) - weighted @ predicted.T
    mixed = of_classes - weighted @ means
    hessian[-1, :-1] += mixed
    hessian[:-1, -1] += mixed
    parts *= logs - means
    hessian[-1, -1] += float((parts @ row_weights).sum())
    return float(row_weights @ (np.log(sums) + highest))


def _fit(logs: Array, targets: Array, row_weights: Array) -> Array:
    """The (7,) parameters of the lowest loss, found on few rows first and then on all.

    Where a convex search starts does not change where it ends, only how soon. It never
    starts from what other rows gave, so that not even rounding goes from them to these.
    """
    start, few = _unchanged(), slice(None, None, _STRIDE)
    if len(row_weights) >= _MANY_ROWS and row_weights[few].any():
        start = _newton(logs[:, few], targets[:, few], row_weights[few], start)
    return _newton(logs, targets, row_weights, start)


def _newton(logs: Array, targets: Array, row_weights: Array, start: Array) -> Array:
    """Newton's method with halved steps; s stays within its bounds."""
    weights = row_weights / row_weights.sum()
    parameters, wanted = start, wanted_part(logs, targets, weights)
    loss, gradient, hessian = penalised_loss(parameters, logs, weights, wanted)
    for _ in range(_MAX_STEPS):
        direction = _direction(parameters, gradient, hessian)
        promised = -float(gradient @ direction)
        if promised <= _TOLERANCE:
            break
        size = 1.0
        while True:
            moved = parameters + size * direction
            moved[-1] = np.clip(moved[-1], *SHARPNESS)
            found = penalised_loss(moved, logs, weights, wanted)
            if found[0] <= loss - 1e-4 * size * promised or size < _TOLERANCE:
                break
            size /= 2
        if found[0] >= loss:
            break
        parameters, (loss, gradient, hessian) = moved, found
    return parameters


def _direction(parameters: Array, gradient: Array, hessian: Array) -> Array:
    """A Newton step; without s where that lies at a bound and would leave it."""
    step = -np.asarray(np.linalg.solve(hessian, gradient), np.float64)
    low, high = SHARPNESS
    sharpness = parameters[-1]
    if (sharpness <= low and step[-1] < 0) or (sharpness >= high and step[-1] > 0):
        step = np.append(-np.linalg.solve(hessian[:-1, :-1], gradient[:-1]), 0.0)
    elif not low <= sharpness + step[-1] <= high:
        # All of it is cut, for clipping s alone could make the loss rise.
        step *= (np.clip(sharpness + step[-1], low, high) - sharpness) / step[-1]
    return step


def _unchanged() -> Array:
    return np.append(np.zeros(N_CLASSES), 1.0)


def _as_recalibration(parameters: Array) -> Recalibration:
    biases = parameters[:-1]
    return Recalibration(biases - biases.mean(), 1 / float(parameters[-1]))


def _logs(probabilities: Array) -> Array:
    return np.ascontiguousarray(np.log(np.clip(probabilities, CLIP, 1 - CLIP)).T)


def _checked(
    targets: ArrayLike, probabilities: ArrayLike, row_weights: ArrayLike | None
) -> tuple[Array, Array, NDArray[np.float64]]:
    checked = check_distributions(targets, "targets")
    predicted = check_distributions(probabilities, "predictions")
    if len(checked) != len(predicted):
        raise PredictionError(
            "targets and predictions must have the same rows",
            got=f"{len(checked)} and {len(predicted)} rows",
        )
    return checked, predicted, check_row_weights(row_weights, len(checked))
