"""When experts looked at a recording: groups of label rows that share their votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import EEG_WINDOW_S, SPECTROGRAM_WINDOW_S
from hms_ray.signal.spectrogram import FIRST_WINDOW_LEAD_S
from hms_ray.simulate.draws import pick

# Steps between label rows of one group: shares in the competition's table.
_STEPS_S: Final = (2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 30, 44)
_STEP_SHARES: Final = (481, 203, 105, 60, 40, 25, 17, 12, 9, 7, 14, 10, 17)
# From the last label row of an EEG to the start of the next in the same recording, there.
_GAPS_S: Final = (50, 54, 62, 92, 180, 342, 482, 540, 588)
_GAP_QUANTILES: Final = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1)
# Groups of one EEG lie 10 s apart in the middle; the table's interleaved ones are left out.
_LARGEST_GROUP_GAP_S: Final = 20


@dataclass(frozen=True)
class Looks:
    """The label rows of one EEG that were judged together and share their votes.

    Attributes:
        eeg: which EEG of the recording, from 0.
        offsets_s: even, ascending; seconds from the EEG's start to each label's window.
        spectrogram_start_s: the spectrogram offset of the EEG's first label row.
    """

    eeg: int
    offsets_s: tuple[int, ...]
    spectrogram_start_s: int

    @property
    def moment_s(self) -> float:
        """The middle of what was judged, in seconds of recording time."""
        offset = self.spectrogram_start_s + (self.offsets_s[0] + self.offsets_s[-1]) / 2
        return offset + SPECTROGRAM_WINDOW_S / 2 + FIRST_WINDOW_LEAD_S


def lay_out(
    n_rows: Sequence[Sequence[int]],
    longest_s: int,
    largest_gap_s: int,
    rng: np.random.Generator,
) -> tuple[Looks, ...]:
    """Offsets for the label rows of one recording.

    Args:
        n_rows: for each EEG the label rows of each of its groups.
        longest_s: largest spectrogram offset; gaps between EEGs shrink to 50 s to keep it,
            and EEGs stay where even that does not do.
        largest_gap_s: between EEGs.
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
    looks: list[Looks] = []
    start = 0
    for eeg, groups in enumerate(offsets):
        looks += [Looks(eeg, tuple(group.tolist()), start) for group in groups]
        if eeg < len(gaps):
            start += int(groups[-1][-1]) + 2 * int(gaps[eeg] // 2)
    return tuple(looks)


def _eeg_offsets(n_rows: Sequence[int], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    groups: list[NDArray[np.int64]] = []
    first = 0
    for n in n_rows:
        steps = [_STEPS_S[pick(_STEP_SHARES, rng)] for _ in range(n - 1)]
        groups.append(first + np.concatenate([[0], np.cumsum(steps, dtype=np.int64)]))
        first = int(groups[-1][-1]) + 2 * int(rng.integers(1, _LARGEST_GROUP_GAP_S // 2 + 1))
    return groups
