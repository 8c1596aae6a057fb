"""What is done to downsampled windows before they are normalised.

One plan serves all sources of a row: its picture of the EEG is flipped where its
spectrogram is, and both lose the same chain and the same stretches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.draws import Generators
from hms_ray.augment.flips import mirror_order, mirrored, reverse_
from hms_ray.augment.masks import (
    NONE,
    Shares,
    chain_numbers,
    masked_points,
    plan_drops,
    plan_masks,
)
from hms_ray.augment.places import Places
from hms_ray.config.augmentation import AugmentConfig


@dataclass(frozen=True)
class WindowPlan:
    """What is done to the windows of n rows, whatever their source.

    Attributes:
        mirrored: (n,) bool, whether the hemispheres are swapped.
        reversed_: (n,) bool, whether time runs backwards.
        dropped: (n,) number of the chain that is dropped, in ``PANELS`` order and as
            it stands after the flip, or ``masks.NONE``.
        time_masks: (n, m, 2) starts and stops as shares of each source's own window.
        frequency_masks: (n, k, 2) as shares of each source's own frequencies.
    """

    mirrored: NDArray[np.bool_]
    reversed_: NDArray[np.bool_]
    dropped: Places
    time_masks: Shares
    frequency_masks: Shares

    def of(self, places: Places) -> WindowPlan:
        """The plan of the rows at some places."""
        return WindowPlan(
            self.mirrored[places],
            self.reversed_[places],
            self.dropped[places],
            self.time_masks[places],
            self.frequency_masks[places],
        )


def plan_windows(n_rows: int, config: AugmentConfig, generators: Generators) -> WindowPlan | None:
    """Draws what is done to the windows of a batch.

    Args:
        n_rows: of the whole global batch.
        config: what is asked for.
        generators: one for each of ``AUGMENTATIONS``.

    Returns:
        The plan, or None where nothing of this kind is asked for.
    """
    if not changes_windows(config):
        return None
    return WindowPlan(
        mirrored=generators["hemisphere_flip"].random(n_rows) < config.hemisphere_flip,
        reversed_=generators["time_flip"].random(n_rows) < config.time_flip,
        dropped=plan_drops(n_rows, config.channel_drop, generators["channel_drop"]),
        time_masks=plan_masks(n_rows, config.time_mask, generators["time_mask"]),
        frequency_masks=plan_masks(n_rows, config.frequency_mask, generators["frequency_mask"]),
    )


def changes_windows(config: AugmentConfig) -> bool:
    """Whether a configuration asks for anything that is done to windows."""
    shares = (config.hemisphere_flip, config.time_flip, config.channel_drop)
    masks = (config.time_mask, config.frequency_mask)
    return any(shares) or any(mask is not None for mask in masks)


def check_panels(config: AugmentConfig, panels: Mapping[str, Sequence[str]]) -> None:
    """Refuses packs whose panels do not allow what is asked for.

    Args:
        config: what is asked for.
        panels: source -> names of its panels.

    Raises:
        ConfigError: where there is no counterpart for a flip, or a chain without a panel.
    """
    for source, names in panels.items():
        if config.hemisphere_flip:
            mirror_order(names, source)
        if config.channel_drop:
            chain_numbers(names, source)


def augment_windows(
    windows: Tensor, plan: WindowPlan, panels: Sequence[str], source: str
) -> Tensor:
    """Does to windows what a plan says.

    Args:
        windows: (B, P, F, T) downsampled, not yet normalised, NaN allowed.
        plan: of these B rows.
        panels: P names of the panels.
        source: of the windows, for errors.

    Returns:
        (B, P, F, T), a new tensor, NaN where something was dropped or masked.

    Raises:
        ConfigError: as ``check_panels``.
    """
    if plan.mirrored.any():
        changed = mirrored(windows, plan.mirrored, mirror_order(panels, source))
    else:
        changed = windows.clone()
    if plan.reversed_.any():
        reverse_(changed, plan.reversed_)
    hidden = [
        masked_points(plan.time_masks, windows.shape[3])[:, None, None, :],
        masked_points(plan.frequency_masks, windows.shape[2])[:, None, :, None],
    ]
    if (plan.dropped != NONE).any():
        lost = chain_numbers(panels, source) == plan.dropped[:, None]
        hidden.append(lost[:, :, None, None])
    for points in hidden:
        if points.any():
            # Adding 0 or NaN: ten times as fast on a CPU as masked_fill_ (measured).
            gaps = torch.from_numpy(np.where(points, np.nan, 0.0))
            changed += gaps.to(windows.device, windows.dtype)
    return changed
