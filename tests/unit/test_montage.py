"""Bipolar chains: their pairs, their order and their errors."""

import numpy as np
import pytest

from hms_ray.competition.schema import ELECTRODES, PANELS
from hms_ray.config.electrodes import CHAINS, MIDLINE
from hms_ray.errors import DataError
from hms_ray.signal.montage import bipolar, columns_of, pairs_of


def test_chains_follow_the_panels_order() -> None:
    assert tuple(CHAINS) == PANELS
    assert all(len(pairs) == 4 for pairs in CHAINS.values())


def test_pairs_are_those_of_the_double_banana() -> None:
    assert CHAINS["LL"] == (("Fp1", "F7"), ("F7", "T3"), ("T3", "T5"), ("T5", "O1"))
    assert CHAINS["RP"] == (("Fp2", "F4"), ("F4", "C4"), ("C4", "P4"), ("P4", "O2"))


@pytest.mark.parametrize(("left", "right"), [("LL", "RL"), ("LP", "RP")])
def test_right_chains_mirror_left_chains(left: str, right: str) -> None:
    def mirrored(name: str) -> str:
        return name[:-1] + str(int(name[-1]) + 1)

    assert CHAINS[right] == tuple((mirrored(a), mirrored(c)) for a, c in CHAINS[left])


def test_differences_are_anode_minus_cathode_in_panel_and_pair_order() -> None:
    eeg = np.arange(20, dtype=np.float32) ** 2 * np.ones((3, 1), np.float32)
    differences = bipolar(eeg)
    assert differences.shape == (4, 4, 3)
    assert differences.dtype == np.float32
    for panel, name in enumerate(PANELS):
        for pair, (anode, cathode) in enumerate(CHAINS[name]):
            expected = ELECTRODES.index(anode) ** 2 - ELECTRODES.index(cathode) ** 2
            np.testing.assert_array_equal(differences[panel, pair], expected)


def test_midline_pairs_belong_to_no_chain() -> None:
    assert MIDLINE == (("Fz", "Cz"), ("Cz", "Pz"))
    assert not set(MIDLINE) & set(pairs_of(PANELS))


def test_columns_match_the_pairs() -> None:
    pairs = pairs_of(("RP", "LL"))
    assert pairs[:4] == CHAINS["RP"]
    assert pairs[4:] == CHAINS["LL"]
    anodes, cathodes = columns_of(pairs)
    assert [(ELECTRODES[a], ELECTRODES[c]) for a, c in zip(anodes, cathodes, strict=True)] == [
        *pairs
    ]


@pytest.mark.parametrize(
    "eeg", [np.zeros((10, 19)), np.zeros(20), np.zeros((10, 20), np.int16)], ids=str
)
def test_invalid_eeg_is_refused(eeg: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"shape \(n_samples, 20\), got shape"):
        bipolar(eeg)
