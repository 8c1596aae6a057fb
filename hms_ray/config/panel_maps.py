"""Panels that take each other's values: mirrored heads, and chains in another order.

A panel is a chain (``LL``) or a bipolar pair (``Fp1-F7``). A pair whose new values stand in the
opposite direction, such as O1-T5 for T5-O1, changes its sign; spectrograms have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Final, NamedTuple

from hms_ray.config.electrodes import CHAINS, ELECTRODE_CHAINS, MIDLINE

_SIDES: Final = (("LL", "RL"), ("LP", "RP"))

LEFT_RIGHT: Final[dict[str, str]] = {
    **{name: name for pair in MIDLINE for name in pair},
    **{
        name: other
        for left, right in _SIDES
        for here, there in zip(
            (left, *ELECTRODE_CHAINS[left]), (right, *ELECTRODE_CHAINS[right]), strict=True
        )
        for name, other in ((here, there), (there, here))
    },
}
"""Chain or electrode -> its counterpart on the other side; the midline stays."""
FRONT_BACK: Final[dict[str, str]] = {
    **{chain: chain for chain in ELECTRODE_CHAINS},
    **{
        name: other
        for line in (*ELECTRODE_CHAINS.values(), ("Fz", "Cz", "Pz"))
        for name, other in zip(line, reversed(line), strict=True)
    },
}
"""Chain or electrode -> its counterpart in front or at the back: Fp1 -> O1. The mean over a
chain's pairs stays."""
CHAIN_ORDERS: Final = tuple(permutations(range(len(CHAINS))))
"""All orders of the chains; the first one is the usual one."""
LATERAL_SWAP: Final = CHAIN_ORDERS.index((2, 3, 0, 1))
"""The order in ``CHAIN_ORDERS`` that swaps LL with LP, and RL with RP."""


class PanelMap(NamedTuple):
    """Where P panels take their values from.

    Attributes:
        places: for each panel, the position of the one whose values it takes.
        signs: 1, or -1 where a signal changes its sign.
    """

    places: tuple[int, ...]
    signs: tuple[int, ...]


class ChainPlace(NamedTuple):
    """A panel's place in the montage: its chain, its place from the front, and its direction.

    Attributes:
        chain: index in ``CHAINS``.
        place: of the pair in its chain, from 0; 0 for a chain itself.
        sign: -1 for a pair from back to front, otherwise 1.
    """

    chain: int
    place: int
    sign: int


_PLACES: Final[dict[str, ChainPlace]] = {
    name: ChainPlace(number, place, sign)
    for number, (chain, pairs) in enumerate(CHAINS.items())
    for name, place, sign in (
        (chain, 0, 1),
        *(("-".join(pair), place, 1) for place, pair in enumerate(pairs)),
        *(("-".join(reversed(pair)), place, -1) for place, pair in enumerate(pairs)),
    )
}


def mirrored_panels(panels: Sequence[str], counterparts: Mapping[str, str]) -> PanelMap | None:
    """Panels of the mirrored head.

    Args:
        panels: names of chains or pairs.
        counterparts: ``LEFT_RIGHT`` or ``FRONT_BACK``.

    Returns:
        Their map, which is its own inverse; None if the counterpart of a panel is missing.
    """
    places, signs = [], []
    for panel in panels:
        names = [counterparts.get(name, "?") for name in panel.split("-")]
        for sign, name in ((1, "-".join(names)), (-1, "-".join(reversed(names)))):
            if name in panels:
                places.append(panels.index(name))
                signs.append(sign)
                break
        else:
            return None
    return PanelMap(tuple(places), tuple(signs))


def chain_places(panels: Sequence[str]) -> list[ChainPlace | None]:
    """The place of each panel; None for pairs of no chain, such as those of the midline."""
    return [_PLACES.get(panel) for panel in panels]


def reordered_chains(panels: Sequence[str]) -> tuple[PanelMap, ...] | None:
    """Panels with the chains in another order, for each of ``CHAIN_ORDERS``.

    Pairs of no chain stay.

    Returns:
        The maps; None if a chain is missing, or its panels are not those of the others.
    """
    found = {}
    for number, at in enumerate(chain_places(panels)):
        if at is not None:
            found[at.chain, at.place] = number, at.sign
    places = {place for _, place in found}
    if not found or len(found) != len(CHAINS) * len(places):
        return None
    maps = []
    for order in CHAIN_ORDERS:
        sources, signs = list(range(len(panels))), [1] * len(panels)
        for (chain, place), (number, sign) in found.items():
            sources[number], other = found[order[chain], place]
            signs[number] = sign * other
        maps.append(PanelMap(tuple(sources), tuple(signs)))
    return tuple(maps)
