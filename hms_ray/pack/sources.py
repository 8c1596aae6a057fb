"""Sources of packs: their input files, recipes and layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.read import read_spectrogram
from hms_ray.competition.schema import (
    N_FREQUENCIES,
    PANELS,
    SPECTROGRAM_COLUMNS,
    SPECTROGRAM_STEP_S,
    SPECTROGRAM_WINDOW_ROWS,
)
from hms_ray.config.pair_recipes import SignalRecipe
from hms_ray.signal.recipes import layout_of, recipe_description
from hms_ray.signal.spectrogram import LOG_HIGH, LOG_LOW
from hms_ray.storage.hashing import digest


def log_power(power: NDArray[np.float32]) -> NDArray[np.float16]:
    """Natural log of power clipped to [e^-4, e^8], as packed.

    Args:
        power: float32, any shape; NaN is kept, infinity is clipped.

    Returns:
        float16, same shape.
    """
    # In float64: processors round the last digit of a logarithm differently. That digit of a
    # float32 result changes some float16 values, that of a float64 result none, and equal
    # inputs must have equal fingerprints on every machine.
    values: NDArray[np.float64] = power.astype(np.float64)
    np.clip(values, np.exp(LOG_LOW), np.exp(LOG_HIGH), out=values)
    return np.log(values, out=values).astype(np.float16)


def _read_log_power(path: Path) -> NDArray[np.float16]:
    return log_power(read_spectrogram(path))


@dataclass(frozen=True)
class PackSource:
    """A source of packed values; picklable, so that any process can make its values.

    Attributes:
        name: ``kaggle``, ``eeg`` or ``raw``.
        recipe: everything that decides the values, as plain data; its hash is part of a
            pack's name and fingerprint.
        directory: subfolder of the input files ``<recording id>.parquet`` in a competition
            folder.
        panels: names of the P panels.
        n_frequencies: F, frequencies per panel.
        window: T, positions of a training row.
        step_s: seconds between positions.
        read: input file of a recording -> float16 (length, P * F).
        eeg_recipe: recipe of windows of EEGs; None for recordings.
    """

    name: str
    recipe: dict[str, Any]
    directory: str
    panels: tuple[str, ...]
    n_frequencies: int
    window: int
    step_s: float
    read: Callable[[Path], NDArray[np.float16]] = _read_log_power
    eeg_recipe: SignalRecipe | None = None

    @property
    def kind(self) -> Literal["recordings", "windows"]:
        """Whether recordings are packed whole, or only the windows of training rows."""
        return "recordings" if self.eeg_recipe is None else "windows"

    @property
    def margin(self) -> int:
        """Positions by which a window can be moved either way."""
        return 0 if self.eeg_recipe is None else self.eeg_recipe.margin

    @property
    def item_length(self) -> int:
        """Stored positions per window; with a margin its strip follows it."""
        return 2 * (self.window + self.margin) if self.margin else self.window

    @property
    def n_values(self) -> int:
        """Values per position."""
        return len(self.panels) * self.n_frequencies


KAGGLE: Final = PackSource(
    name="kaggle",
    recipe={
        "source": "kaggle",
        "version": 1,
        "values": "natural log of power clipped to [e^low, e^high], NaN kept",
        "low": LOG_LOW,
        "high": LOG_HIGH,
        "dtype": "float16",
        "columns": digest(list(SPECTROGRAM_COLUMNS)),
    },
    directory="train_spectrograms",
    panels=PANELS,
    n_frequencies=N_FREQUENCIES,
    window=SPECTROGRAM_WINDOW_ROWS,
    step_s=SPECTROGRAM_STEP_S,
)
"""The competition's own spectrograms, packed whole as log power."""


def eeg_source(name: str, recipe: SignalRecipe) -> PackSource:
    """Values computed from the 50 s EEG windows of training rows.

    With a margin, each window is stored twice: first exactly as without a margin, then as a
    strip (see ``signal.strip``). So values of windows that are not shifted never depend on
    the margin.

    Args:
        name: ``eeg``, ``pairs`` or ``raw``.
        recipe: recipe of the values.
    """
    layout = layout_of(recipe)
    return PackSource(
        name=name,
        recipe={
            "source": name,
            "version": 1,
            "dtype": "float16",
            "made": recipe_description(recipe),
        },
        directory="train_eegs",
        panels=tuple(layout.panels),
        n_frequencies=layout.n_frequencies,
        window=layout.n_times,
        step_s=layout.step_s,
        eeg_recipe=recipe,
    )
