"""Positions of electrodes on the head, and the fields of sources.

Positions follow the international 10-20 system (Jasper 1958), flattened to a disc of
radius 1: x to the right, y to the front.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.electrodes import CHAINS

SCALP: Final = tuple(name for name in ELECTRODES if name != "EKG")
N_SCALP: Final = len(SCALP)

_LEFT: Final = {
    "Fp1": (-0.31, 0.95),
    "F7": (-0.81, 0.59),
    "T3": (-1.0, 0.0),
    "T5": (-0.81, -0.59),
    "O1": (-0.31, -0.95),
    "F3": (-0.42, 0.52),
    "C3": (-0.5, 0.0),
    "P3": (-0.42, -0.52),
}
_POSITIONS: Final = {
    **_LEFT,
    # Numbers are odd on the left, and even on the right.
    **{f"{name[:-1]}{int(name[-1]) + 1}": (-x, y) for name, (x, y) in _LEFT.items()},
    "Fz": (0.0, 0.5),
    "Cz": (0.0, 0.0),
    "Pz": (0.0, -0.5),
}
POSITIONS: Final[NDArray[np.float64]] = np.array([_POSITIONS[name] for name in SCALP])
"""(19, 2) positions in ``SCALP`` order."""

SCALP_SCALE: Final = 0.87
"""Microvolts on the scalp per nominal microvolt of the background and of the patterns.

Chosen so that the logarithm of the spectrograms has the real mean. Experts judge ratios of
nominal microvolts, so votes do not depend on it.
"""

# With this length neighbours (0.5 apart) have a correlation of 0.83, within the 0.6-0.98
# measured on the competition's recordings.
_CORRELATION_LENGTH: Final = 2.7


@cache
def mixing() -> NDArray[np.float32]:
    """(19, 19) matrix that gives white channels the spatial correlation of scalp EEG."""
    distance = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=-1)
    root: NDArray[np.float64] = np.linalg.cholesky(np.exp(-distance / _CORRELATION_LENGTH))
    return root.astype(np.float32)


def field(centre: tuple[float, float], width: float) -> NDArray[np.float64]:
    """A Gaussian field over the scalp, (19,), largest value near 1."""
    squared = ((POSITIONS - np.array(centre)) ** 2).sum(axis=1)
    shape: NDArray[np.float64] = np.exp(-squared / (2 * width**2))
    return shape


def hemisphere_field(centre: tuple[float, float], width: float, side: int) -> NDArray[np.float64]:
    """A field confined to one hemisphere, scaled for the bipolar montage.

    Args:
        centre: (distance from the midline, y) of the maximum.
        width: standard deviation of the Gaussian.
        side: -1 left, 1 right; midline electrodes take half.

    Returns:
        (19,) field whose largest bipolar difference is 1, so that a waveform has the
        amplitude that is measured in the longitudinal bipolar montage.
    """
    weight = np.where(POSITIONS[:, 0] * side > 0, 1.0, 0.0)
    weight[POSITIONS[:, 0] == 0] = 0.5
    raw = field((side * centre[0], centre[1]), width) * weight
    chains = ("LL", "LP") if side < 0 else ("RL", "RP")
    pairs = [(SCALP.index(a), SCALP.index(c)) for name in chains for a, c in CHAINS[name]]
    scaled: NDArray[np.float64] = raw / max(abs(raw[a] - raw[c]) for a, c in pairs)
    return scaled


def side_factors(asymmetry: float) -> NDArray[np.float32]:
    """(19,) factors with the right-to-left ratio exp(``asymmetry``); 1 on the midline."""
    factors: NDArray[np.float64] = np.exp(0.5 * asymmetry * np.sign(POSITIONS[:, 0]))
    return factors.astype(np.float32)
