"""The structure of simulated folders: numbers of recordings and what they show.

Shares "from the table" were counted in the competition's ``train.csv``, on its vote groups
(distinct EEG and votes); shares that depend on the state use the class with the most votes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hms_ray.simulate.options import ProfileName
from hms_ray.simulate.patterns import PatternKind

State = PatternKind | None
"""The kind of pattern in a part of a recording; None: background only."""

STATES: Final[tuple[State, ...]] = ("Seizure", "LPD", "GPD", "LRDA", "GRDA", None)

MAX_RECORDINGS: Final = 128
"""Largest number of recordings of a patient."""
MAX_EEGS: Final = 128
"""Largest number of EEGs of a recording, and so of a spectrogram."""
MAX_LABELS: Final = 1024
"""Largest number of label rows of an EEG."""

BOTH, ONLY_FEW, ONLY_MANY = range(3)
"""Kinds of patients: judged by few and by many experts, only by few, only by many."""


@dataclass(frozen=True)
class Size:
    """Patients with a number of recordings in one range.

    Attributes:
        share: share of patients.
        recordings: smallest and largest number of recordings.
        scale: mean of the exponential distribution of the number above the smallest; None:
            uniform.
        more_eegs: mean and deviation of the log number of further EEGs in a recording,
            rounded down.
        kinds: shares of ``BOTH``, ``ONLY_FEW``, ``ONLY_MANY``.
        many: mean share of groups with ten votes or more, for the kind ``BOTH``.
        states: shares of the leading state, in ``STATES`` order.
    """

    share: float
    recordings: tuple[int, int]
    scale: float | None
    more_eegs: tuple[float, float]
    kinds: tuple[float, float, float]
    many: float
    states: tuple[float, ...]


@dataclass(frozen=True)
class Profile:
    """The structure of a simulated folder.

    Attributes:
        sizes: patients by number of recordings.
        max_eegs: largest number of EEGs of a recording.
        max_rows: largest number of label rows of a group.
        max_groups: largest number of groups of an EEG.
        longest_s: largest spectrogram offset to aim for.
        largest_gap_s: largest gap between EEGs of a recording.
    """

    sizes: tuple[Size, ...]
    max_eegs: int
    max_rows: int
    max_groups: int
    longest_s: int
    largest_gap_s: int


_SMALL_STATES: Final = (0.16, 0.16, 0.13, 0.12, 0.13, 0.3)
_SMALL_KINDS: Final = (0.46, 0.46, 0.08)

PROFILES: Final[dict[ProfileName, Profile]] = {
    "small": Profile(
        (
            Size(0.3, (1, 1), None, (-0.6, 1.0), _SMALL_KINDS, 0.5, _SMALL_STATES),
            Size(0.4, (2, 2), None, (-0.6, 1.0), _SMALL_KINDS, 0.5, _SMALL_STATES),
            Size(0.3, (3, 4), None, (-0.6, 1.0), _SMALL_KINDS, 0.5, _SMALL_STATES),
        ),
        max_eegs=3,
        max_rows=10,
        max_groups=3,
        longest_s=500,
        largest_gap_s=180,
    ),
    # Shares, numbers and kinds are from the table; the states are fitted to its votes.
    "competition": Profile(
        (
            Size(
                0.211, (1, 1), None, (-0.5, 0.9), (0.13, 0.66, 0.21), 0.42,
                (0.25, 0.02, 0.02, 0.05, 0.36, 0.3),
            ),
            Size(
                0.249, (2, 2), None, (-1.3, 1.0), (0.31, 0.64, 0.05), 0.42,
                (0.27, 0.02, 0.02, 0.05, 0.3, 0.34),
            ),
            Size(
                0.173, (3, 3), None, (-1.3, 1.0), (0.43, 0.52, 0.05), 0.4,
                (0.25, 0.03, 0.03, 0.05, 0.29, 0.35),
            ),
            Size(
                0.163, (4, 5), 0.4, (-1.5, 1.1), (0.60, 0.35, 0.05), 0.4,
                (0.17, 0.04, 0.05, 0.06, 0.25, 0.43),
            ),
            Size(
                0.08, (6, 10), None, (-1.5, 1.2), (0.83, 0.13, 0.04), 0.49,
                (0.15, 0.08, 0.07, 0.07, 0.16, 0.47),
            ),
            Size(
                0.055, (11, 20), None, (-1.0, 1.1), (0.95, 0.02, 0.03), 0.61,
                (0.09, 0.19, 0.11, 0.08, 0.09, 0.44),
            ),
            Size(
                0.069, (21, 66), 12.5, (-0.25, 1.06), (1.0, 0.0, 0.0), 0.30,
                (0.05, 0.26, 0.13, 0.06, 0.09, 0.41),
            ),
        ),
        max_eegs=107,
        max_rows=743,
        max_groups=20,
        longest_s=14_400,
        largest_gap_s=588,
    ),
}  # fmt: skip
