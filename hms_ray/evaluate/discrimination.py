"""AUROC and AUPRC by class from shares of votes, with patient-clustered intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.competition.schema import CLASSES
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import CONFIDENCE, patient_counts
from hms_ray.evaluate.metric import Array, checked_pair

N_RESAMPLES: Final = 1_000
_BLOCK_CELLS: Final = 2_000_000
"""Rows x resamples at once: 16 MB per array."""


@dataclass(frozen=True)
class Area:
    """An area under a curve with its 95% interval.

    Attributes:
        value: from 0 to 1.
        low: lower end; minus infinity with one patient.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Discrimination:
    """How well the predicted share of one class orders the rows by their votes for it.

    Attributes:
        name: of the class.
        auroc: area under the receiver operating characteristic; 0.5 for a constant.
        auprc: average precision; ``share`` for a constant.
        share: mean share of the votes for the class, the prevalence.
        n_rows: rows.
        n_patients: independent draws.
    """

    name: str
    auroc: Area
    auprc: Area
    share: float
    n_rows: int
    n_patients: int


def discrimination(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Discrimination]:
    """AUROC and AUPRC of each class that has votes and rows without all of them.

    Each row counts twice: as positive with its share of votes for the class, and as negative
    with the rest. AUROC is the probability that a positive has a higher prediction than a
    negative, ties counting half; AUPRC is the average precision, the precision at each
    threshold weighted by the gain of recall (both as scikit-learn computes them with sample
    weights). Intervals are percentiles of a bootstrap over patients.

    Args:
        targets: (n, 6) vote shares; rows of few votes make both areas small, so the report
            uses rows of at least 10 votes.
        probabilities: (n, 6) predictions.
        patients: (n,) patient of each row.
        seed: of the bootstrap, whose resamples all classes share.
        n_resamples: number of resamples.

    Returns:
        Name of a class -> its areas, in the order of ``CLASSES``.

    Raises:
        PredictionError: targets or predictions are not distributions, or shapes differ.
    """
    true, predicted = checked_pair(targets, probabilities)
    known, owners = np.unique(np.asarray(patients), return_inverse=True)
    if owners.shape != (len(true),):
        raise PredictionError(
            f"there must be one patient for each of {len(true)} rows", got=str(owners.shape)
        )
    generator = np.random.default_rng(seed)
    counts = patient_counts(len(known), generator, n_resamples)
    found = {}
    for number, name in enumerate(CLASSES):
        share = true[:, number]
        if 0 < share.sum() < len(share):
            auroc, auprc = _areas(share, predicted[:, number], owners, counts)
            found[name] = Discrimination(
                name, auroc, auprc, float(share.mean()), len(share), len(known)
            )
    return found


def _areas(
    share: Array, score: Array, owners: NDArray[np.intp], counts: Array
) -> tuple[Area, Area]:
    """Both areas of one class; ``counts`` (B, G): times that a patient is drawn."""
    order = np.argsort(-score, kind="stable")
    score, share, owners = score[order], share[order], owners[order]
    ends = np.flatnonzero(np.append(np.diff(score) != 0, True))
    point = _curves(np.ones((1, len(share))), share, ends)
    if counts.shape[1] < 2:
        none = (float("-inf"), float("inf"))
        return Area(float(point[0, 0]), *none), Area(float(point[1, 0]), *none)
    step = max(1, _BLOCK_CELLS // len(share))
    blocks = [
        _curves(counts[first : first + step, owners], share, ends)
        for first in range(0, len(counts), step)
    ]
    tail = (1 - CONFIDENCE) / 2
    ends_of = np.nanquantile(np.concatenate(blocks, axis=1), [tail, 1 - tail], axis=1)
    auroc, auprc = (
        Area(float(point[number, 0]), float(ends_of[0, number]), float(ends_of[1, number]))
        for number in range(2)
    )
    return auroc, auprc


def _curves(weights: Array, share: Array, ends: NDArray[np.intp]) -> Array:
    """(2, B) AUROC and AUPRC of rows in falling order of their scores.

    Args:
        weights: (B, n) weight of each row in each resample.
        share: (n,) by which a row is positive.
        ends: positions of the last row of each score.

    Returns:
        NaN where a resample has no positives or no negatives.
    """
    total = np.cumsum(weights, axis=1)[:, ends]
    positive = np.cumsum(weights * share, axis=1)[:, ends]
    negative = total - positive
    gains = np.diff(positive, axis=1, prepend=0.0)
    losses = np.diff(negative, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        above = (losses * (positive - gains / 2)).sum(axis=1)
        auroc = above / (positive[:, -1] * negative[:, -1])
        precision = np.where(total > 0, positive / total, 0.0)
        auprc = (gains * precision).sum(axis=1) / positive[:, -1]
    found: Array = np.stack([auroc, np.where(np.isnan(auroc), np.nan, auprc)])
    return found
