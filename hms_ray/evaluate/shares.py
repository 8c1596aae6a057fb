"""Distributions from files: what else the numbers can be, and sums that are off by rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from hms_ray.competition.schema import N_CLASSES, SUM_TOLERANCE
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array, Ids, check_distributions
from hms_ray.text import shortened_list

ROUNDING_LIMIT: Final = N_CLASSES * 0.005
"""Largest difference of a row's sum from 1 by rounding: six shares of two decimals."""
PERCENT: Final = 100.0
_MOST: Final = 0.5
"""Share of rows that must look like something else for it to be named."""
_RENORMALISE: Final = "Add --renormalise to divide each row by its sum."


@dataclass(frozen=True)
class Renormalised:
    """Rows of a file that were divided by their sums.

    Attributes:
        rows: rows whose sums were off.
        of: rows of the file.
        lowest: smallest sum.
        highest: largest sum.
    """

    rows: int
    of: int
    lowest: float
    highest: float

    def __str__(self) -> str:
        return (
            f"renormalised {self.rows:,} of {self.of:,} rows, "
            f"whose sums were {self.lowest:.6g} to {self.highest:.6g}"
        )


def read_shares(
    values: Array, name: str, ids: Ids, *, renormalise: bool = False, fix: str | None = None
) -> tuple[Array, Renormalised | None]:
    """Distributions (n, 6) from the numbers of a file.

    Args:
        values: (n, 6) float64, at least one row.
        name: of the values, for messages.
        ids: (n,) row ids, for messages.
        renormalise: divide rows by their sums, if all sums are within ``ROUNDING_LIMIT`` of 1.
        fix: remedy for values that are nothing that is recognised.

    Returns:
        The distributions, and what was renormalised, if anything.

    Raises:
        PredictionError: as ``check_distributions``; logits, logarithms, percentages, votes
            and rounded shares are named, each with its remedy.
    """
    try:
        return check_distributions(values, name, ids), None
    except PredictionError as error:
        rule, got, where = error.rule, error.got, error.where
    for content, fits, remedy in _OTHERS:
        if fits(values):
            raise PredictionError(
                f"{name} must be probabilities that sum to 1 in each row",
                got=content.format(values.min(), values.max()),
                where=f"{len(values)} row(s): {shortened_list(list(ids))}",
                fix=remedy,
            )
    sums = values.sum(axis=1)
    apart = np.abs(sums - 1)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise PredictionError(rule, got=got, where=where, fix=fix)
    if renormalise and apart.max() <= ROUNDING_LIMIT:
        n_off = int((apart > SUM_TOLERANCE).sum())
        found = Renormalised(n_off, len(sums), float(sums.min()), float(sums.max()))
        return values / sums[:, None], found
    if apart.max() <= ROUNDING_LIMIT:
        fix = _RENORMALISE
    elif renormalise:
        far = np.flatnonzero(apart > ROUNDING_LIMIT)
        rule = f"sums must be within {ROUNDING_LIMIT:g} of 1 to be renormalised"
        got = f"{sums[far[0]]:.6g}"
        where = f"{len(far)} row(s): {shortened_list([ids[n] for n in far.tolist()])}"
    raise PredictionError(rule, got=got, where=where, fix=fix)


def are_percentages(sums: Array) -> bool:
    """Whether sums of rows (n,) look like those of percentages."""
    return bool((np.abs(sums - PERCENT) <= PERCENT * ROUNDING_LIMIT).mean() > _MOST)


def _logarithms(values: Array) -> bool:
    with np.errstate(over="ignore"):
        sums = np.exp(values).sum(axis=1)
    return bool((values <= 0).all() and (np.abs(sums - 1) <= ROUNDING_LIMIT).mean() > _MOST)


def _logits(values: Array) -> bool:
    """Most rows have a value below 0, or one above 1 that no rounding explains."""
    far = (np.abs(values.sum(axis=1) - 1) > ROUNDING_LIMIT) & (values > 1).any(axis=1)
    return bool(((values < 0).any(axis=1) | far).mean() > _MOST)


def _whole(values: Array) -> bool:
    return bool((values >= 0).all() and (values == np.floor(values)).all())


_OTHERS: Final[tuple[tuple[str, Callable[[Array], bool], str], ...]] = (
    (
        "percentages: rows sum to about 100",
        lambda values: are_percentages(values.sum(axis=1)),
        "Divide the six columns by 100.",
    ),
    ("votes: whole numbers", _whole, "Divide each row by its sum."),
    (
        "logarithms of probabilities",
        _logarithms,
        "Write their exponentials: numpy.exp(values).",
    ),
    (
        "what looks like logits: values from {:.3g} to {:.3g}",
        _logits,
        "Write their softmax: scipy.special.softmax(values, axis=1).",
    ),
)
"""What numbers in place of probabilities are, how they are recognised, and the remedy."""
