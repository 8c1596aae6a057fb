"""The names of the augmentations; each has its own generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

import numpy as np

Augmentation = Literal[
    "hemisphere_flip",
    "front_back_flip",
    "lateral_swap",
    "chain_shuffle",
    "time_flip",
    "sign_flip",
    "channel_drop",
    "pair_drop",
    "narrow_band",
    "time_zoom",
    "signal_mixup",
    "block_drop",
    "centre_shift",
    "time_mask",
    "frequency_mask",
    "cutmix",
    "mosaic",
    "mixup",
]
AUGMENTATIONS: Final[tuple[Augmentation, ...]] = get_args(Augmentation)
"""Names as in ``AugmentConfig``."""
Generators = Mapping[Augmentation, np.random.Generator]
"""Draws of one generator never depend on draws of another."""
