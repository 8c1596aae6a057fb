"""Which augmentations there are; each has a generator of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

import numpy as np

Augmentation = Literal[
    "hemisphere_flip",
    "time_flip",
    "channel_drop",
    "time_mask",
    "frequency_mask",
    "cutmix",
    "mosaic",
    "mixup",
]
AUGMENTATIONS: Final[tuple[Augmentation, ...]] = get_args(Augmentation)
"""By their fields in ``AugmentConfig``."""
Generators = Mapping[Augmentation, np.random.Generator]
"""Each is used alike whatever the others come to."""
