"""Annotation groups: offsets of label rows."""

import numpy as np
import pytest

from hms_ray.simulate.annotations import place_groups


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(20))
def test_offsets_are_even_ascending_and_start_at_zero(seed: int) -> None:
    n_rows = [[1], [3, 1, 12], [1, 1]]
    groups = place_groups(n_rows, 5_000, 588, rng(seed))
    assert groups[0].spectrogram_start_s == 0
    assert [group.eeg for group in groups] == [0, 1, 1, 1, 2, 2]
    assert [len(group.offsets_s) for group in groups] == [1, 3, 1, 12, 1, 1]
    for eeg in range(3):
        own = [group for group in groups if group.eeg == eeg]
        offsets = [offset for group in own for offset in group.offsets_s]
        assert offsets[0] == 0
        assert offsets == sorted(set(offsets))
        assert all(offset % 2 == 0 for offset in offsets)
        assert len({group.spectrogram_start_s for group in own}) == 1
        assert own[0].spectrogram_start_s % 2 == 0


def ends_and_starts(groups) -> list[tuple[int, int]]:
    starts = {group.eeg: group.spectrogram_start_s for group in groups}
    ends = {group.eeg: group.spectrogram_start_s + group.offsets_s[-1] for group in groups}
    return [(ends[eeg], starts[eeg + 1]) for eeg in range(len(starts) - 1)]


def test_distances_of_eegs_match_the_real_table() -> None:
    groups = place_groups([[1]] * 2_000, 10**9, 588, rng())
    gaps = [start - end for end, start in ends_and_starts(groups)]
    assert min(gaps) >= 50
    assert np.median(gaps) == pytest.approx(180, rel=0.1)
    assert np.quantile(gaps, 0.9) == pytest.approx(482, rel=0.1)


def test_gaps_shrink_if_a_recording_would_be_too_long() -> None:
    groups = place_groups([[1]] * 40, 4_000, 588, rng())
    assert groups[-1].spectrogram_start_s <= 4_000
    assert all(start - end >= 50 for end, start in ends_and_starts(groups))
    # Forty EEGs of 50 s do not fit into 500 s; all of them are kept.
    groups = place_groups([[1]] * 40, 500, 588, rng())
    assert len(groups) == 40
    assert {start - end for end, start in ends_and_starts(groups)} == {50}


def test_moment_is_the_middle_of_the_judged_windows() -> None:
    (group,) = place_groups([[2]], 1_000, 588, rng())
    assert group.moment_s == 300 + 1 + group.offsets_s[1] / 2
