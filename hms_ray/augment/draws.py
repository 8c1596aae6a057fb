"""Which augmentations there are; each has a generator of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

import numpy as np

Kind = Literal[
    "hemisphere_flip",
    "time_flip",
    "channel_drop",
    "time_mask",
    "frequency_mask",
    "cutmix",
    "mosaic",
    "mixup",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""By their fields in ``AugmentConfig``."""
Generators = Mapping[Kind, np.random.Generator]
"""Each is used alike whatever the others come to."""
