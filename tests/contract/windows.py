"""Windows of every source in the layout of a pack, and constants of every normalisation."""

from functools import cache

import numpy as np
import torch

from hms_ray.config.inputs import InputConfig, Normalisation
from hms_ray.config.views import PICTURES
from hms_ray.transforms.downsample import downsample
from hms_ray.transforms.fit_statistics import FITS
from hms_ray.transforms.normalise import Constants

SHAPES = {"kaggle": (4, 8, 12), "eeg": (4, 6, 10), "pairs": (5, 6, 10), "raw": (5, 1, 12)}
BLOCKS = {"kaggle": (2, 3), "eeg": (3, 5), "pairs": (3, 5), "raw": (1, 4)}
N_ROWS = 7
VIEWS = [(source, picture) for source, pictures in PICTURES.items() for picture in pictures]


def windows(source: str, gaps: bool = True) -> torch.Tensor:
    """(7, P, F, T) float16 over contiguous (B, T, P, F).

    With gaps, row 1 was never recorded, row 2 lacks a panel, and rows 0 and 4 lack parts.
    """
    panels, frequencies, times = SHAPES[source]
    values = np.random.default_rng(2).normal(1, 2, size=(N_ROWS, times, panels, frequencies))
    if gaps:
        values[0, :5, 1] = np.nan
        values[1] = np.nan
        values[2, :, 2] = np.nan
        values[4, 3, 2, 0] = np.nan
    return torch.from_numpy(values.astype(np.float16)).permute(0, 2, 3, 1)


def config_of(
    source: str, picture: str, mode: Normalisation, block: tuple[int, int]
) -> InputConfig:
    treatment = {"normalisation": mode, "downsample": block}
    inputs = treatment if source == "kaggle" else {source: treatment}
    return InputConfig.model_validate({"views": (f"{source} {picture}",), **inputs})


@cache
def constants_of(source: str, mode: Normalisation, block: tuple[int, int]) -> Constants | None:
    """Fitted on the windows with gaps; None if the mode has no constants."""
    return FITS[mode](lambda: [downsample(windows(source), block)]) if mode in FITS else None
