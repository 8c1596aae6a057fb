"""The bipolar chains of the longitudinal ("double banana") montage.

This module has the only list of the montage's pairs in the package. The chains are those of the
competition's spectrogram panels: each panel of a spectrogram file is the mean over the four
neighbouring pairs of one chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import ELECTRODES, PANELS
from hms_ray.config.electrodes import as_pairs
from hms_ray.errors import DataError

ELECTRODE_CHAINS: Final[dict[str, tuple[str, ...]]] = {
    "LL": ("Fp1", "F7", "T3", "T5", "O1"),
    "RL": ("Fp2", "F8", "T4", "T6", "O2"),
    "LP": ("Fp1", "F3", "C3", "P3", "O1"),
    "RP": ("Fp2", "F4", "C4", "P4", "O2"),
}
"""Electrodes of each chain from front to back, in the panels' file order."""

CHAINS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    panel: tuple(pairwise(chain)) for panel, chain in ELECTRODE_CHAINS.items()
}
"""Panel -> its four (anode, cathode) pairs."""

MIDLINE: Final = (("Fz", "Cz"), ("Cz", "Pz"))
"""Pairs on the midline, which belong to no panel."""

PAIRS_PER_CHAIN: Final = 4


def bipolar(eeg: NDArray[np.floating]) -> NDArray[np.floating]:
    """Differences anode - cathode of all sixteen pairs.

    Args:
        eeg: floating point (n_samples, 20), microvolts, columns in ``ELECTRODES`` order; NaN
            is kept.

    Returns:
        (4, 4, n_samples), dtype of ``eeg``, microvolts, contiguous: panel in ``PANELS``
        order, pair from front to back, sample.

    Raises:
        DataError: if ``eeg`` has another shape or is not floating point.
    """
    check_eeg(eeg)
    channels = np.ascontiguousarray(eeg.T)
    anodes, cathodes = columns_of(pairs_of(PANELS))
    difference: NDArray[np.floating] = channels[anodes] - channels[cathodes]
    return difference.reshape(len(PANELS), PAIRS_PER_CHAIN, eeg.shape[0])


def check_eeg(eeg: NDArray[np.floating]) -> None:
    """Checks the shape and dtype of an EEG.

    Raises:
        DataError: if the shape is not (n_samples, 20) or the dtype is not floating point.
    """
    if eeg.ndim != 2 or eeg.shape[1] != len(ELECTRODES) or eeg.dtype.kind != "f":
        raise DataError(
            f"an EEG must be a floating point array of shape (n_samples, {len(ELECTRODES)})",
            got=f"shape {eeg.shape} of {eeg.dtype}",
            fix=f"Pass one column per electrode, in the order {' '.join(ELECTRODES)}.",
        )


def pairs_of(panels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The (anode, cathode) pairs of some panels, panel by panel, from front to back."""
    return tuple(pair for panel in panels for pair in CHAINS[panel])


def ordered_pairs(order: str | Sequence[str], midline: bool) -> tuple[tuple[str, str], ...]:
    """The (anode, cathode) pairs of a recipe, from top to bottom.

    Args:
        order: ``chains``: panel by panel in ``PANELS`` order; ``interleaved``: left and right
            pairs in turn, from front to back, first the lateral chains, then the
            parasagittal ones; or names ``ANODE-CATHODE``.
        midline: add the pairs on the midline to those of a named order.
    """
    if not isinstance(order, str):
        return as_pairs(order)
    pairs = pairs_of(PANELS)
    if order == "interleaved":
        sides = (("LL", "RL"), ("LP", "RP"))
        pairs = tuple(
            pair
            for left, right in sides
            for both in zip(CHAINS[left], CHAINS[right], strict=True)
            for pair in both
        )
    return pairs + (MIDLINE if midline else ())


def columns_of(pairs: Sequence[tuple[str, str]]) -> tuple[list[int], list[int]]:
    """Columns of an EEG with the anodes, and those with the cathodes, of ``pairs``."""
    anodes = [ELECTRODES.index(anode) for anode, _ in pairs]
    return anodes, [ELECTRODES.index(cathode) for _, cathode in pairs]
