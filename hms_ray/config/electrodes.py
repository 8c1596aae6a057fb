"""The electrodes of a recording, the longitudinal montage, and lists of bipolar pairs.

This module has the only list of the montage's pairs ("double banana") in the package. The chains
are those of the competition's spectrogram panels: each panel of a spectrogram file is the mean
over the four neighbouring pairs of one chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final

from pydantic import AfterValidator

from hms_ray.text import closest

ELECTRODES: Final = (
    *("Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz"),
    *("Pz", "Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2", "EKG"),
)
"""Columns of an EEG file, in its order; all but the last are on the scalp."""
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

NAMED_ORDERS: Final = ("chains", "interleaved")


def _sound_order(order: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(order, str):
        if order not in NAMED_ORDERS:
            raise ValueError(
                f"an order must be {' or '.join(NAMED_ORDERS)}, or a list of pairs such as Fp1-F7"
                + closest(order, NAMED_ORDERS)
            )
        return order
    if not order:
        raise ValueError("a list of pairs must not be empty")
    seen: dict[frozenset[str], str] = {}
    for pair in order:
        names = _electrodes_of(pair)
        if names in seen:
            raise ValueError(f"a pair must be listed once, got {pair} after {seen[names]}")
        seen[names] = pair
    return order


def _electrodes_of(pair: str) -> frozenset[str]:
    scalp = ELECTRODES[:-1]
    names = pair.split("-")
    if len(names) != 2 or names[0] == names[1]:
        raise ValueError(
            f"a pair must be two electrodes joined by a hyphen, such as Fp1-F7, got {pair}"
        )
    for name in names:
        if name not in scalp:
            raise ValueError(f"unknown electrode {name} in the pair {pair}{closest(name, scalp)}")
    return frozenset(names)


PairOrder = Annotated[str | tuple[str, ...], AfterValidator(_sound_order)]
"""``chains``, ``interleaved``, or a list of pairs ``ANODE-CATHODE``, each once."""


def as_pairs(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Anode and cathode of each pair ``ANODE-CATHODE``."""
    return tuple((anode, cathode) for anode, _, cathode in (name.partition("-") for name in names))
