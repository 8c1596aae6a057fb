"""Augmentation of downsampled windows, before they are normalised.

One plan applies to all sources of a row: if its spectrogram is flipped, so is its EEG, and
both lose the same chain and the same stretches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
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
from hms_ray.augment.positions import Positions
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.views import kind_of_source
from hms_ray.signal.on_device import on_device


@dataclass(frozen=True)
class WindowPlan:
    """The augmentation of the windows of n rows, for any source.

    Attributes:
        mirrored: (n,) bool, whether the hemispheres are swapped.
        reversed_: (n,) bool, whether time is reversed.
        negated: (n,) bool, whether raw signals change sign.
        dropped: (n,) index in ``PANELS`` of the dropped chain (after the swap), or
            ``masks.NONE``.
        time_masks: (n, m, 2) starts and stops as shares of each source's window.
        frequency_masks: (n, k, 2) starts and stops as shares of each source's frequencies.
    """

    mirrored: NDArray[np.bool_]
    reversed_: NDArray[np.bool_]
    negated: NDArray[np.bool_]
    dropped: Positions
    time_masks: Shares
    frequency_masks: Shares

    def of(self, places: Positions) -> WindowPlan:
        """The plan for the rows at some positions."""
        return WindowPlan(
            self.mirrored[places],
            self.reversed_[places],
            self.negated[places],
            self.dropped[places],
            self.time_masks[places],
            self.frequency_masks[places],
        )


def plan_windows(n_rows: int, config: AugmentConfig, generators: Generators) -> WindowPlan | None:
    """Draws the augmentation of the windows of a batch.

    Args:
        n_rows: of the global batch.
        config: augmentations and their probabilities.
        generators: one for each of ``AUGMENTATIONS``.

    Returns:
        The plan, or None if ``config`` has no augmentation of windows.
    """
    if not changes_windows(config):
        return None
    return WindowPlan(
        mirrored=generators["hemisphere_flip"].random(n_rows) < config.hemisphere_flip,
        reversed_=generators["time_flip"].random(n_rows) < config.time_flip,
        negated=generators["sign_flip"].random(n_rows) < config.sign_flip,
        dropped=plan_drops(n_rows, config.channel_drop, generators["channel_drop"]),
        time_masks=plan_masks(n_rows, config.time_mask, generators["time_mask"]),
        frequency_masks=plan_masks(n_rows, config.frequency_mask, generators["frequency_mask"]),
    )


def changes_windows(config: AugmentConfig) -> bool:
    """Whether a configuration has any augmentation of windows."""
    shares = (config.hemisphere_flip, config.time_flip, config.sign_flip, config.channel_drop)
    masks = (config.time_mask, config.frequency_mask)
    return any(shares) or any(mask is not None for mask in masks)


def check_panels(config: AugmentConfig, panels: Mapping[str, Sequence[str]]) -> None:
    """Checks that the panels of packs allow the configured augmentations.

    Args:
        config: augmentations and their probabilities.
        panels: source -> names of its panels.

    Raises:
        ConfigError: if a flip lacks a counterpart, or a chain has no panel.
    """
    for source, names in panels.items():
        if config.hemisphere_flip:
            mirror_order(names, source)
        if config.channel_drop:
            chain_numbers(names, source)


def augment_windows(
    windows: Tensor, plan: WindowPlan, panels: Sequence[str], source: str
) -> Tensor:
    """Applies a plan to windows.

    Args:
        windows: (B, P, F, T) downsampled, not yet normalised, NaN allowed.
        plan: for these B rows.
        panels: P names of the panels.
        source: of the windows; only those of raw signals change sign.

    Returns:
        (B, P, F, T), a new tensor; dropped and masked values are NaN.

    Raises:
        ConfigError: see ``check_panels``.
    """
    if plan.mirrored.any():
        changed = mirrored(windows, plan.mirrored, mirror_order(panels, source))
    else:
        changed = windows.clone()
    if plan.reversed_.any():
        reverse_(changed, plan.reversed_)
    if plan.negated.any() and kind_of_source(source) == "raw":
        signs = np.where(plan.negated, -1.0, 1.0)[:, None, None, None]
        changed *= on_device(signs, windows.device, windows.dtype)
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
            gaps = np.where(points, np.nan, 0.0)
            changed += on_device(gaps, windows.device, windows.dtype)
    return changed
