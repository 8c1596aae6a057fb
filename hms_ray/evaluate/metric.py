"""The competition's KL divergence: over all rows, by class and by vote tier.

Source of the formula: the competition's evaluation page and its public metric
notebook. A row scores ``sum_k t_k * ln(t_k / p_k)`` in nats over the six classes,
with predictions clipped to [1e-15, 1 - 1e-15] and not renormalised. Terms of classes with
target 0 are 0. The score is the mean over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.competition.schema import CLASSES, N_CLASSES, SUM_TOLERANCE, VOTE_TIERS
from hms_ray.errors import PredictionError
from hms_ray.text import shortened_list

Array = NDArray[np.float64]
Ids = Sequence[Any] | NDArray[Any]

CLIP: Final = 1e-15
"""Predictions are clipped to this distance from 0 and 1 (the competition's value)."""


OBJECTIVES: Final[Mapping[str, int]] = {"kl_all": 0, "kl_4": 4, "kl_10": 10}
"""Name of a score -> fewest votes of its rows."""

SCORE_NAMES: Final[Mapping[str, str]] = {"kl_all": "KL all", "kl_4": "KL >=4", "kl_10": "KL >=10"}
"""Name of a score -> what tables and lines call it."""


RECALIBRATED_NAMES: Final[Mapping[str, str]] = {name: f"{name}_recalibrated" for name in OBJECTIVES}
"""Name of a score -> name of the same after nested recalibration, see ``calibration``."""


def named_scores(scores: Mapping[str, Any]) -> str:
    """Scores as text, such as ``KL all 0.9000, KL >=10 0.6026``; None and others are skipped."""
    named = {name: scores.get(name) for name in SCORE_NAMES}
    return ", ".join(f"{SCORE_NAMES[k]} {kl:.4f}" for k, kl in named.items() if kl is not None)


def check_distributions(
    values: ArrayLike, name: str = "predictions", ids: Ids | None = None
) -> Array:
    """The values as float64, after checking that every row is a distribution.

    Args:
        values: (n, 6) shares of the six classes, any real dtype.
        name: of the values, for messages.
        ids: (n,) row ids for messages (default: positions).

    Returns:
        (n, 6) float64, not clipped and not renormalised.

    Raises:
        PredictionError: another shape, a negative, missing or infinite value, or a sum
            further than ``SUM_TOLERANCE`` from 1; names the first such rows.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise PredictionError(f"{name} must be numbers", got=type(values).__name__) from None
    if array.ndim != 2 or array.shape[1] != N_CLASSES:
        raise PredictionError(
            f"{name} must have the shape (rows, {N_CLASSES})", got=str(array.shape)
        )
    if not len(array):
        raise PredictionError(f"{name} must have at least one row", got="0 rows")
    # The common case costs one matrix product; NaN fails both comparisons.
    if array.min() >= 0 and np.abs(array @ np.ones(N_CLASSES) - 1).max() <= SUM_TOLERANCE:
        return array
    broken = np.asarray(~np.isfinite(array).all(axis=1))
    if broken.any():
        raise _refused(f"{name} must be finite numbers", array, broken, ids)
    broken = np.asarray((array < 0).any(axis=1))
    if broken.any():
        raise _refused(f"{name} must not be negative", array, broken, ids)
    sums = array.sum(axis=1)
    broken = np.abs(sums - 1) > SUM_TOLERANCE
    if broken.any():
        raise _refused(
            f"each row of {name} must sum to 1 within {SUM_TOLERANCE:g}", sums, broken, ids
        )
    return array


def _refused(
    rule: str, values: Array, broken: NDArray[np.bool_], ids: Ids | None
) -> PredictionError:
    positions = np.flatnonzero(broken).tolist()
    first = np.array2string(values[positions[0]], separator=", ", precision=6)
    named = shortened_list(positions if ids is None else [ids[position] for position in positions])
    return PredictionError(rule, got=first, where=f"{len(positions)} row(s): {named}")


def kl_terms(targets: Array, probabilities: Array) -> Array:
    """Each class's part of each row's KL, in nats; inputs are not checked.

    Args:
        targets: (..., 6) float64 shares.
        probabilities: (..., 6) float64.

    Returns:
        (..., 6) float64; a term is negative if the prediction is above its target.
    """
    clipped = np.clip(probabilities, CLIP, 1 - CLIP)
    present = targets > 0
    # The placeholder 1 keeps the logarithm of dropped terms finite.
    return np.where(present, targets * np.log(np.where(present, targets, 1.0) / clipped), 0.0)


def kl_rows(targets: ArrayLike, probabilities: ArrayLike, ids: Ids | None = None) -> Array:
    """KL divergence of each row, in nats.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (n, 6) predictions.
        ids: (n,) row ids for messages.

    Returns:
        (n,) float64, at least 0 up to rounding and the tolerance of the sums.

    Raises:
        PredictionError: a side is not a distribution, or shapes differ.
    """
    return row_sums(*checked_pair(targets, probabilities, ids))


def checked_pair(
    targets: ArrayLike, probabilities: ArrayLike, ids: Ids | None = None
) -> tuple[Array, Array]:
    """Targets and predictions (n, 6) of the same rows, after checking both; see ``kl_rows``."""
    checked = check_distributions(targets, "targets", ids)
    predicted = check_distributions(probabilities, "predictions", ids)
    if len(checked) != len(predicted):
        raise PredictionError(
            "targets and predictions must have the same rows",
            got=f"{len(checked)} and {len(predicted)} rows",
        )
    return checked, predicted


def row_sums(targets: Array, probabilities: Array) -> Array:
    """``kl_rows`` without checks.

    Args:
        targets: (..., 6) float64 shares.
        probabilities: (..., 6) float64.
    """
    rows: Array = kl_terms(targets, probabilities).sum(axis=-1)
    return rows


def kl_divergence(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """The competition's score: mean of ``kl_rows``, in nats; smaller is better.

    Raises:
        PredictionError: as ``kl_rows``.
    """
    return float(kl_rows(targets, probabilities).mean())


def kl_report(
    targets: ArrayLike, probabilities: ArrayLike, total_votes: ArrayLike
) -> dict[str, float | None]:
    """KL over all rows, rows of >= 4 and rows of >= 10 votes.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (n, 6) predictions.
        total_votes: (n,) votes of each row.

    Returns:
        ``{"kl_all", "kl_4", "kl_10"}``; None for an objective without rows.

    Raises:
        PredictionError: as ``kl_rows``, or votes and rows differ in number.
    """
    return mean_by_objective(kl_rows(targets, probabilities), total_votes)


def mean_by_objective(rows: Array, total_votes: ArrayLike) -> dict[str, float | None]:
    """Means of row scores over the rows of each objective; None without rows.

    Args:
        rows: (n,) score of each row.
        total_votes: (n,) votes of each row.
    """
    votes = _votes(total_votes, len(rows))
    means: dict[str, float | None] = {}
    for name, fewest in OBJECTIVES.items():
        chosen = rows[votes >= fewest]
        means[name] = float(chosen.mean()) if len(chosen) else None
    return means


def mean_by_tier(rows: Array, total_votes: ArrayLike) -> dict[str, float | None]:
    """As ``mean_by_objective`` for each disjoint vote tier (``1-3``, ``4-9``, ``>=10``)."""
    votes = _votes(total_votes, len(rows))
    means: dict[str, float | None] = {}
    for name, fewest, most in VOTE_TIERS:
        chosen = rows[(votes >= fewest) & (votes <= (np.inf if most is None else most))]
        means[name] = float(chosen.mean()) if len(chosen) else None
    return means


def kl_by_class(targets: Array, probabilities: Array) -> dict[str, float]:
    """Each class's part of the score; the six parts sum to ``kl_divergence``.

    A part is negative if the class is predicted above its share overall. Inputs are not
    checked.

    Args:
        targets: (n, 6) float64 shares.
        probabilities: (..., n, 6) float64; parts are averaged over the leading axes.
    """
    terms = kl_terms(targets, probabilities).reshape(-1, N_CLASSES)
    return dict(zip(CLASSES, terms.mean(axis=0).tolist(), strict=True))


def _votes(total_votes: ArrayLike, n_rows: int) -> Array:
    votes = np.asarray(total_votes, dtype=np.float64)
    if votes.shape != (n_rows,):
        raise PredictionError(
            f"total votes must be one number for each of {n_rows} rows", got=str(votes.shape)
        )
    return votes


def check_row_weights(row_weights: ArrayLike | None, n_rows: int) -> Array:
    """The row weights (n,) as float64, after checking them (default: ones).

    Raises:
        PredictionError: another shape, or weights that are negative, not finite or all 0.
    """
    if row_weights is None:
        return np.ones(n_rows)
    weights = np.asarray(row_weights, dtype=np.float64)
    if weights.shape != (n_rows,):
        raise PredictionError(
            f"row weights must be one number for each of {n_rows} rows", got=str(weights.shape)
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise PredictionError(
            "row weights must be finite, at least 0 and not all 0",
            got=f"values from {weights.min():g} to {weights.max():g}",
            fix="Fit on a tier that has rows.",
        )
    return weights
