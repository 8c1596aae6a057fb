"""Experts: how features of ten seconds of EEG become votes, and with which odds.

An expert perceives five features of a pattern with error and puts a threshold to each:

1. visibility below its threshold: Other;
2. evolution or rate above theirs: Seizure;
3. sharpness above its threshold: periodic, else rhythmic;
4. asymmetry above its threshold: lateralised, else generalised.

Errors are normal and independent between features, so the odds of a vote are products of
normal distribution functions: the truth needs no sampling. Part of each error's variance
is shared by the group that judges a recording, which leaves the odds of a single vote as
they are but makes a group agree with itself, in what is wrong too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hms_ray.competition.schema import CLASSES, N_CLASSES

FEATURES: Final = ("visibility", "evolution", "log_rate", "sharpness", "asymmetry")
N_FEATURES: Final = len(FEATURES)

_THRESHOLDS: Final = np.array([0.0, 0.5, np.log(3.2), 0.5, 0.45])
_LAPSES: Final = np.array([0.1, 0.15, 0.15, 0.1, 0.1, 0.4])
"""Votes of an expert who does not attend, by class."""


@dataclass(frozen=True)
class Group:
    """Experts of one tier of vote totals.

    Attributes:
        name: the tier, as in ``VOTE_TIERS``.
        error: deviation of the error on each feature, in ``FEATURES`` order.
        shared: share of the error's variance that the group has in common.
        bias: what the group adds to each feature.
        lapse: share of votes given without attending.
    """

    name: str
    error: tuple[float, ...]
    shared: float
    bias: tuple[float, ...]
    lapse: float


GROUPS: Final = (
    Group("1-3", (0.6, 0.28, 0.22, 0.26, 0.24), 0.85, (0.1, 0.06, 0.0, 0.0, 0.0), 0.03),
    Group("4-9", (0.5, 0.22, 0.18, 0.22, 0.2), 0.6, (0.1, 0.06, 0.0, 0.0, 0.0), 0.03),
    Group(">=10", (0.4, 0.16, 0.14, 0.16, 0.15), 0.3, (0.0, 0.0, 0.0, 0.0, 0.0), 0.03),
)
"""Experts by tier, fewest votes first."""

VOTE_TOTALS: Final[dict[str, dict[int, int]]] = {
    "1-3": {1: 3442, 2: 2075, 3: 6246},
    "4-9": {4: 747, 5: 1144, 6: 141, 7: 1},
    ">=10": {
        10: 116,
        11: 382,
        12: 725,
        13: 1355,
        14: 639,
        15: 1441,
        16: 683,
        17: 304,
        18: 307,
        19: 73,
        20: 209,
        21: 49,
        22: 24,
        23: 10,
        24: 3,
        25: 5,
        26: 2,
        28: 1,
    },
}
"""Vote totals of the competition's vote groups (distinct EEG and votes), by tier."""


def vote_odds(features: NDArray[np.float64], group: Group) -> NDArray[np.float64]:
    """The true distribution of one vote.

    Args:
        features: (..., 5) in ``FEATURES`` order.
        group: who votes.

    Returns:
        (..., 6) float64 in ``CLASSES`` order, each row summing to 1.
    """
    return _odds(features + np.array(group.bias), np.array(group.error), group.lapse)


def draw_votes(
    features: NDArray[np.float64], group: Group, total: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The votes of one group of experts on one recording.

    Args:
        features: (5,) in ``FEATURES`` order.
        group: who votes.
        total: number of votes, at least 1.
        rng: source of randomness.

    Returns:
        (6,) counts in ``CLASSES`` order that sum to ``total``.
    """
    error = np.array(group.error)
    common = rng.normal(0, error * np.sqrt(group.shared))
    own = error * np.sqrt(1 - group.shared)
    odds = _odds(features + np.array(group.bias) + common, own, group.lapse)
    votes: NDArray[np.int64] = rng.multinomial(total, odds / odds.sum())
    return votes


def draw_total(group: Group, rng: np.random.Generator) -> int:
    """A number of votes as frequent as among the real vote groups of the tier."""
    counts = VOTE_TOTALS[group.name]
    shares = np.array(list(counts.values()), float)
    return int(rng.choice(list(counts), p=shares / shares.sum()))


def _odds(
    features: NDArray[np.float64], error: NDArray[np.float64], lapse: float
) -> NDArray[np.float64]:
    above = ndtr((features - _THRESHOLDS) / error)
    seen, evolving, fast, sharp, lateral = np.moveaxis(above, -1, 0)
    calm = seen * (1 - evolving) * (1 - fast)
    odds = np.empty((*features.shape[:-1], N_CLASSES))
    by_class = {
        "Seizure": seen - calm,
        "LPD": calm * sharp * lateral,
        "GPD": calm * sharp * (1 - lateral),
        "LRDA": calm * (1 - sharp) * lateral,
        "GRDA": calm * (1 - sharp) * (1 - lateral),
        "Other": 1 - seen,
    }
    for position, name in enumerate(CLASSES):
        odds[..., position] = by_class[name]
    return (1 - lapse) * odds + lapse * _LAPSES
