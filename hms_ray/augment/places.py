"""Places in a batch, and bands of an image's rows or columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
Band = tuple[int, int]
"""First and one past the last image row or column."""


def own_first(own: Places, further: Places) -> Places:
    """``own`` in their order, after them the places of ``further`` not among them, once each."""
    return np.concatenate([own, np.setdiff1d(further, own)])


def positions(places: Places, needed: Places) -> Places:
    """Where places stand in a list of places.

    Args:
        places: any shape, all of them in ``needed``.
        needed: (n,) distinct places in any order.

    Returns:
        Positions in ``needed``, shaped as ``places``.
    """
    order = np.argsort(needed)
    found: Places = order[np.searchsorted(needed, places, sorter=order)]
    return found


def scaled_inwards(first: int, stop: int, length: int, full: int) -> Band:
    """A band of ``full`` pixels as one of ``length``, never reaching further."""
    # Whole numbers, rounded inwards: a band that ends before the centre still does.
    return -(-first * length // full), stop * length // full


def view_spans(width: int, widths: Sequence[int]) -> tuple[Band, ...]:
    """The columns of each view in an image that was resized after they were joined.

    Args:
        width: of the image.
        widths: of its views, before the image was resized.

    Returns:
        One band a view. They cover the image without overlap; where views meet within
        a column, it belongs to the view that has more of it.
    """
    full = sum(widths)
    ends = [sum(widths[:view]) for view in range(len(widths) + 1)]
    edges = [(2 * end * width + full) // (2 * full) for end in ends]
    return tuple(pairwise(edges))
