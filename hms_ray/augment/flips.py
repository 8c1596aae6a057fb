"""Flips of windows: left and right hemisphere, and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from hms_ray.errors import ConfigError
from hms_ray.signal.montage import ELECTRODE_CHAINS, MIDLINE

_SIDES: Final = (("LL", "RL"), ("LP", "RP"))

MIRRORED: Final[dict[str, str]] = {
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
"""Chain or electrode -> the one in its place on the other side; the midline's stay."""


def mirror_order(panels: Sequence[str], source: str) -> list[int]:
    """Where each panel of a flipped window comes from.

    Args:
        panels: names of a pack's panels: chains (``LL``) or bipolar pairs (``Fp1-F7``).
        source: of the pack, for the error.

    Returns:
        P positions in ``panels``; panels of the midline keep theirs.

    Raises:
        ConfigError: where a panel's counterpart is missing or no panel has a side.
    """
    mirrored = ["-".join(MIRRORED.get(name, "?") for name in panel.split("-")) for panel in panels]
    if sorted(mirrored) != sorted(panels) or mirrored == list(panels):
        raise ConfigError(
            "a flip of hemispheres needs panels of both sides, each with its counterpart",
            got=" ".join(panels),
            where=f"the pack of {source}",
            fix="Switch training.augment.hemisphere_flip off.",
        )
    return [panels.index(name) for name in mirrored]


def mirror_(windows: Tensor, rows: Tensor, order: Sequence[int]) -> None:
    """Swaps the sides of some windows, in place.

    Args:
        windows: (B, P, F, T).
        rows: (n,) int64 positions in the batch, on the same device.
        order: as ``mirror_order`` gives it.
    """
    panels = torch.tensor(order, device=windows.device)
    windows[rows] = windows[rows].index_select(1, panels)


def reverse_(windows: Tensor, rows: Tensor) -> None:
    """Reverses the time of some windows, in place; arguments as of ``mirror_``."""
    windows[rows] = windows[rows].flip(3)
