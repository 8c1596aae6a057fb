"""Annotation groups: label rows that experts judged together and that share their votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import EEG_WINDOW_S, SPECTROGRAM_WINDOW_S
from hms_ray.signal.spectrogram import FIRST_WINDOW_LEAD_S
from hms_ray.simulate.draws import pick

# Steps between label rows of one group, and their counts in the competition's table.
_STEPS_S: Final = (2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 30, 44)
_STEP_SHARES: Final = (481, 203, 105, 60, 40, 25, 17, 12, 9, 7, 14, 10, 17)
# Seconds from the last label row of an EEG to the start of the next one in the same
# recording: quantiles in the competition's table.
_GAPS_S: Final = (50, 54, 62, 92, 180, 342, 482, 540, 588)
_GAP_QUANTILES: Final = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1)
# The median distance of groups in one EEG is 10 s; interleaved groups are not modelled.
_LARGEST_GROUP_GAP_S: Final = 20


@dataclass(frozen=True)
class AnnotationGroup:
    """Label rows of one EEG that were judged together and share their votes.

    Attributes:
        eeg: position of the EEG in the recording, from 0.
        offsets_s: even, ascending; seconds from the EEG's start to each label's window.
        spectrogram_start_s: the spectrogram offset of the EEG's first label row.
    """

    eeg: int
    offsets_s: tuple[int, ...]
    spectrogram_start_s: int

    @property
    def moment_s(self) -> float:
        """The middle of the judged windows, in seconds of recording time."""
        offset = self.spectrogram_start_s + (self.offsets_s[0] + self.offsets_s[-1]) / 2
        return offset + SPECTROGRAM_WINDOW_S / 2 + FIRST_WINDOW_LEAD_S


def place_groups(
    n_rows: Sequence[Sequence[int]],
    longest_s: int,
    largest_gap_s: int,
    rng: np.random.Generator,
) -> tuple[AnnotationGroup, ...]:
    """Draw the offsets of the label rows of one recording.

    Args:
        n_rows: for each EEG, the number of label rows of each of its groups.
        longest_s: largest spectrogram offset to aim for: gaps between EEGs shrink to as
            little as 50 s for it. It is exceeded if that does not suffice.
        largest_gap_s: largest gap between EEGs.
        rng: source of randomness.
    """
    offsets = [_eeg_offsets(groups, rng) for groups in n_rows]
    gaps = np.interp(rng.random(len(n_rows)), _GAP_QUANTILES, _GAPS_S)
    gaps = np.minimum(gaps, largest_gap_s)[:-1]
    spans = sum(int(groups[-1][-1]) for groups in offsets)
    surplus = float((gaps - EEG_WINDOW_S).sum())
    if spans + gaps.sum() > longest_s and surplus > 0:
        room = longest_s - spans - EEG_WINDOW_S * len(gaps)
        gaps = EEG_WINDOW_S + (gaps - EEG_WINDOW_S) * np.clip(room / surplus, 0, 1)
    placed: list[AnnotationGroup] = []
    start = 0
    for eeg, groups in enumerate(offsets):
        placed += [AnnotationGroup(eeg, tuple(group.tolist()), start) for group in groups]
        if eeg < len(gaps):
            start += int(groups[-1][-1]) + 2 * int(gaps[eeg] // 2)
    return tuple(placed)


def _eeg_offsets(n_rows: Sequence[int], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    groups: list[NDArray[np.int64]] = []
    first = 0
    for n in n_rows:
        steps = [_STEPS_S[pick(_STEP_SHARES, rng)] for _ in range(n - 1)]
        groups.append(first + np.concatenate([[0], np.cumsum(steps, dtype=np.int64)]))
        first = int(groups[-1][-1]) + 2 * int(rng.integers(1, _LARGEST_GROUP_GAP_S // 2 + 1))
    return groups
