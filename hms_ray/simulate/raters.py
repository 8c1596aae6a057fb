"""Experts: how features of ten seconds of EEG become votes, and the odds of these votes.

An expert perceives five features of a pattern with errors and compares each with a threshold:

1. visibility below its threshold: Other;
2. evolution or rate above its threshold: Seizure;
3. sharpness above its threshold: periodic, else rhythmic;
4. asymmetry above its threshold: lateralised, else generalised.

Errors are normal and independent between features, so the odds of a vote are products of
normal distribution functions: the truth needs no sampling. The experts who judge a recording
share a part of each error's variance, most of it over all recordings of a patient. This does
not change the odds of a single vote, but makes the experts agree, also when they are wrong.
Experts of the tier with few votes share nearly all of their error and see patterns more
readily: their votes look certain, but are noisy and biased.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hms_ray.competition.schema import CLASSES
from hms_ray.simulate.draws import pick
from hms_ray.simulate.options import Controls

FEATURES: Final = ("visibility", "evolution", "log_rate", "sharpness", "asymmetry")
N_FEATURES: Final = len(FEATURES)

_THRESHOLDS: Final = np.array([0.0, 0.5, np.log(3.6), 0.5, 0.45])
_LAPSES: Final = np.array([0.05, 0.16, 0.15, 0.15, 0.22, 0.27])
"""Votes of an inattentive expert, by class."""


@dataclass(frozen=True)
class ExpertTier:
    """Experts of one tier of vote totals.

    Attributes:
        name: the tier, as in ``VOTE_TIERS``.
        error: deviation of the error of each feature, in ``FEATURES`` order.
        shared: share of each error's variance that the experts have in common.
        lasting: share of the common variance that is the same in all recordings of a
            patient, because the same experts judged them.
        bias: offset that the experts add to each feature.
        lapse: share of inattentive votes.
    """

    name: str
    error: tuple[float, ...]
    shared: tuple[float, ...]
    lasting: float
    bias: tuple[float, ...]
    lapse: float


EXPERT_TIERS: Final = (
    ExpertTier(
        "1-3",
        error=(1.0, 0.42, 0.3, 0.43, 0.36),
        shared=(0.92, 0.99, 0.99, 0.87, 0.92),
        lasting=0.95,
        bias=(1.25, 0.06, 0.0, 0.0, 0.0),
        lapse=0.01,
    ),
    ExpertTier(
        "4-9",
        error=(0.9, 0.3, 0.2, 0.25, 0.25),
        shared=(0.32, 0.32, 0.32, 0.32, 0.32),
        lasting=0.95,
        bias=(0.5, 0.11, 0.0, 0.0, 0.0),
        lapse=0.13,
    ),
    ExpertTier(
        ">=10",
        error=(0.9, 0.27, 0.22, 0.22, 0.2),
        shared=(0.35, 0.3, 0.3, 0.3, 0.3),
        lasting=0.95,
        bias=(0.0, -0.12, -0.15, 0.05, 0.0),
        lapse=0.12,
    ),
)
"""Experts by tier, fewest votes first. Fitted, together with the states of the profile
``competition``, to the competition's ``train.csv``: entropy, unanimity and class shares by
number of votes; ``tests/benchmarks/simulator_against_real.py`` prints the comparison."""

_LONG_GROUPS: Final = (2, 6, 16)
"""Numbers of label rows at which the next longer class of groups begins."""
VOTE_TOTALS: Final[dict[str, dict[int, tuple[int, int, int, int]]]] = {
    "1-3": {1: (3143, 258, 31, 9), 2: (1981, 85, 6, 2), 3: (855, 2643, 2111, 639)},
    "4-9": {
        4: (162, 397, 163, 24),
        5: (367, 600, 157, 20),
        6: (18, 69, 48, 7),
        7: (0, 1, 0, 0),
    },
    ">=10": {
        10: (16, 44, 39, 15),
        11: (59, 182, 108, 23),
        12: (158, 347, 176, 36),
        13: (283, 691, 302, 55),
        14: (119, 302, 186, 26),
        15: (268, 725, 377, 110),
        16: (140, 301, 187, 55),
        17: (80, 158, 61, 8),
        18: (85, 141, 69, 19),
        19: (28, 32, 12, 1),
        20: (65, 114, 30, 0),
        21: (9, 28, 12, 0),
        22: (11, 11, 2, 0),
        23: (4, 6, 0, 0),
        24: (0, 1, 2, 0),
        25: (1, 2, 2, 0),
        26: (0, 2, 0, 0),
        28: (0, 0, 1, 0),
    },
}
"""Tier -> total votes -> number of the competition's vote groups (distinct EEG and votes) with
1, 2-5, 6-15 and more label rows; the last column weights groups by their label rows."""


def expert_tiers(controls: Controls) -> tuple[ExpertTier, ...]:
    """The experts of each tier, fewest votes first."""
    if "independent_raters" not in controls:
        return EXPERT_TIERS
    # One kind of expert: with errors or lapses by tier, the odds would still reveal who voted.
    none = (0.0,) * N_FEATURES
    one = replace(EXPERT_TIERS[-1], shared=none, bias=none)
    return tuple(replace(one, name=tier.name) for tier in EXPERT_TIERS)


def vote_odds(features: NDArray[np.float64], tier: ExpertTier) -> NDArray[np.float64]:
    """The true distribution of one vote.

    Args:
        features: (..., 5) in ``FEATURES`` order.
        tier: the experts who vote.

    Returns:
        (..., 6) float64 in ``CLASSES`` order, each row summing to 1.
    """
    return _odds(features + np.array(tier.bias), np.array(tier.error), tier.lapse)


def draw_votes(
    features: NDArray[np.float64],
    tier: ExpertTier,
    total: int,
    lasting: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw the votes of the experts of one tier on one annotation group.

    Args:
        features: (5,) in ``FEATURES`` order.
        tier: the experts who vote.
        total: number of votes, at least 1.
        lasting: (5,) standard normal, the common part of the tier's errors on this patient.
        rng: source of randomness.

    Returns:
        (6,) counts in ``CLASSES`` order that sum to ``total``.
    """
    error = np.array(tier.error)
    shared = np.array(tier.shared)
    passing = rng.standard_normal(N_FEATURES)
    common = np.sqrt(tier.lasting) * lasting + np.sqrt(1 - tier.lasting) * passing
    seen = features + np.array(tier.bias) + common * error * np.sqrt(shared)
    odds = _odds(seen, error * np.sqrt(1 - shared), tier.lapse)
    votes: NDArray[np.int64] = rng.multinomial(total, odds / odds.sum())
    return votes


def draw_total(tier: ExpertTier | None, n_rows: int, rng: np.random.Generator) -> int:
    """Draw a number of votes with the frequencies of the competition's vote groups.

    Args:
        tier: the experts who vote; None: any tier, by frequency.
        n_rows: label rows that share the votes: longer groups have more votes. Ignored
            without a tier, because it depends on who votes and on what they see.
        rng: source of randomness.
    """
    if tier is None:
        counts = {n: sum(sizes) for group in VOTE_TOTALS.values() for n, sizes in group.items()}
    else:
        length = sum(n_rows >= first for first in _LONG_GROUPS)
        counts = {total: numbers[length] for total, numbers in VOTE_TOTALS[tier.name].items()}
    return list(counts)[pick(list(counts.values()), rng)]


def _odds(
    features: NDArray[np.float64], error: NDArray[np.float64], lapse: float
) -> NDArray[np.float64]:
    above = ndtr((features - _THRESHOLDS) / error)
    seen, evolving, fast, sharp, lateral = np.moveaxis(above, -1, 0)
    calm = seen * (1 - evolving) * (1 - fast)
    by_class = {
        "Seizure": seen - calm,
        "LPD": calm * sharp * lateral,
        "GPD": calm * sharp * (1 - lateral),
        "LRDA": calm * (1 - sharp) * lateral,
        "GRDA": calm * (1 - sharp) * (1 - lateral),
        "Other": 1 - seen,
    }
    odds = np.stack([by_class[name] for name in CLASSES], axis=-1)
    return (1 - lapse) * odds + lapse * _LAPSES
