"""Bipolar signals of the longitudinal ("double banana") montage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import ELECTRODES, PANELS
from hms_ray.config.electrodes import CHAINS, MIDLINE, as_pairs
from hms_ray.errors import DataError

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
