"""Positions in a batch, and bands of image rows or columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
Band = tuple[int, int]
"""First image row or column, and one past the last."""


def own_first(own: Positions, further: Positions) -> Positions:
    """``own`` in order, then the distinct positions of ``further`` that are not among them."""
    return np.concatenate([own, np.setdiff1d(further, own)])


def positions_in(places: Positions, needed: Positions) -> Positions:
    """Translates positions in a batch to positions in a list of them.

    Args:
        places: any shape, all of them in ``needed``.
        needed: (n,) distinct positions in any order.

    Returns:
        Positions in ``needed``, with the shape of ``places``.
    """
    order = np.argsort(needed)
    found: Positions = order[np.searchsorted(needed, places, sorter=order)]
    return found


def scaled_inwards(first: int, stop: int, length: int, full: int) -> Band:
    """Scales a band from ``full`` pixels to ``length``, rounded inwards."""
    # Inwards, so that a band that ends before the centre still does.
    return -(-first * length // full), stop * length // full


def view_spans(width: int, widths: Sequence[int]) -> tuple[Band, ...]:
    """The columns of each view in an image that was resized after joining.

    Args:
        width: of the image.
        widths: of its views, before the image was resized.

    Returns:
        One band per view. They cover the image without overlap; a column shared by two views
        belongs to the one with the larger part.
    """
    full = sum(widths)
    ends = [sum(widths[:view]) for view in range(len(widths) + 1)]
    edges = [(2 * end * width + full) // (2 * full) for end in ends]
    return tuple(pairwise(edges))
