"""What can be packed: which files, by which recipe, to which positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.read import (
    SPECTROGRAM_FORMAT,
    read_spectrogram,
    signal_rows,
)
from hms_ray.competition.schema import (
    EEG_WINDOW_SAMPLES,
    N_FREQUENCIES,
    PANELS,
    SPECTROGRAM_COLUMNS,
    SPECTROGRAM_STEP_S,
    SPECTROGRAM_WINDOW_ROWS,
)
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.errors import PackError
from hms_ray.pack.windows import Windows
from hms_ray.signal.montage import columns_of
from hms_ray.signal.recipes import layout_of, pairs_used, recipe_description
from hms_ray.signal.spectrogram import LOG_HIGH, LOG_LOW
from hms_ray.storage.hashing import digest

PackKind = Literal["recordings", "windows"]

SOURCES: Final = ("kaggle", "eeg", "raw")
"""Names of sources; ``eeg`` and ``raw`` are packed by any recipe of theirs."""


@dataclass(frozen=True)
class StripValues:
    """A window's surroundings as a pack stores them.

    Attributes:
        values: float16 (T + 2 margin, P * F), NaN beyond the ends of the EEG.
        before: positions, at most margin, by which the window can be moved to an earlier
            time without leaving the EEG.
        after: the same towards later times.
    """

    values: NDArray[np.float16]
    before: int
    after: int


@dataclass(frozen=True)
class PackSource:
    """A source of packed values. Pickles, so that any process can make its values.

    Attributes:
        name: ``kaggle``, ``eeg`` or ``raw``.
        kind: ``recordings``: every recording is packed whole, and a window may
            start anywhere in it; ``windows``: only the windows that are asked
            for, made from EEGs one by one.
        recipe: everything that decides the values, as plain data; its hash is
            part of a pack's name and fingerprint.
        directory: folder of the input files within a competition folder, one
            ``<recording id>.parquet`` a recording.
        panels: names of the P panels.
        n_frequencies: F, frequencies a panel.
        window: T, positions that a training row uses.
        step_s: seconds from one position to the next.
        length: (kind ``recordings``) input file -> number of positions,
            without reading the values.
        read: (kind ``recordings``) input file -> float16 (length, P * F).
        make: (kind ``windows``) float32 (B, 10000, 20) microvolts, NaN where
            missing -> float16 (B, T, P * F).
        used: (kind ``windows``) first and last + 1 sample of the 10,000 that
            the recipe looks at.
        pairs: (kind ``windows``) columns of anode and cathode of its signals.
        margin: (kind ``windows``) positions by which a window may be moved either way.
        strip: (kind ``windows`` with a margin) a whole EEG, float32 (n, 20) microvolts,
            NaN where missing, and a window's first sample -> what ``StripValues`` says.
    """

    name: str
    kind: PackKind
    recipe: dict[str, Any]
    directory: str
    panels: tuple[str, ...]
    n_frequencies: int
    window: int
    step_s: float
    length: Callable[[Path], int] | None = None
    read: Callable[[Path], NDArray[np.float16]] | None = None
    make: Callable[[NDArray[np.float32]], NDArray[np.float16]] | None = None
    used: tuple[int, int] = (0, EEG_WINDOW_SAMPLES)
    pairs: tuple[tuple[int, int], ...] = ()
    margin: int = 0
    strip: Callable[[NDArray[np.float32], int], StripValues] | None = None

    @property
    def item_length(self) -> int:
        """Positions of a window as it is stored: with a margin its strip follows it."""
        return self.window if self.strip is None else 2 * (self.window + self.margin)

    @property
    def n_values(self) -> int:
        """Values a position."""
        return len(self.panels) * self.n_frequencies

    def require_windows(self, windows: Windows | None) -> None:
        """Makes sure that windows are given where, and only where, they are needed.

        Raises:
            PackError: none for a source of windows, or some for another.
        """
        if self.kind == "windows" and windows is None:
            raise PackError(
                f"packing {self.name} needs the windows of training rows",
                got="none",
                fix="Name an experiment with --space FILE.",
            )
        if self.kind == "recordings" and windows is not None:
            raise ValueError(f"{self.name} packs whole recordings, not windows")


def log_power(power: NDArray[np.float32]) -> NDArray[np.float16]:
    """Log power as a pack stores it.

    Args:
        power: any shape; NaN kept, infinite values clipped like large ones.

    Returns:
        float16, same shape, natural log of power clipped to [e^-4, e^8].
    """
    # In float64, because logarithms of processors differ in the last digit: of
    # float32 that digit decides some float16 values, of float64 it does not, and
    # equal inputs must give equal fingerprints everywhere.
    values: NDArray[np.float64] = power.astype(np.float64)
    np.clip(values, np.exp(LOG_LOW), np.exp(LOG_HIGH), out=values)
    return np.log(values, out=values).astype(np.float16)


def kaggle_source() -> PackSource:
    """The competition's own spectrograms, packed whole as log power."""
    return PackSource(
        name="kaggle",
        kind="recordings",
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
        length=_spectrogram_rows,
        read=_read_log_power,
    )


def eeg_source(name: str, recipe: EegRecipe | RawRecipe) -> PackSource:
    """Values made from the 50 s windows of training rows.

    A recipe with a margin stores each window twice: first exactly as without a margin,
    then as a strip, one longer window made of what the EEG has around it. So nothing that
    is not shifted depends on the margin, whatever filters and frames see of it.

    Args:
        name: ``eeg`` or ``raw``.
        recipe: what is made of a window.

    Raises:
        ConfigError: a recipe that cannot be followed.
    """
    layout = layout_of(recipe)
    first = (EEG_WINDOW_SAMPLES - recipe.used_samples) // 2
    return PackSource(
        name=name,
        kind="windows",
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
        make=partial(_make_values, recipe),
        used=(first, first + recipe.used_samples),
        pairs=tuple(zip(*columns_of(pairs_used(recipe)), strict=True)),
        margin=recipe.margin,
        strip=partial(_make_strip, recipe) if recipe.margin else None,
    )


def source_named(name: str) -> PackSource:
    """A source by its name, with its default recipe.

    Raises:
        PackError: there is none of that name.
    """
    if name == "kaggle":
        return kaggle_source()
    if name == "eeg":
        return eeg_source(name, EegRecipe())
    if name == "raw":
        return eeg_source(name, RawRecipe())
    raise PackError(f"a source must be one of {', '.join(SOURCES)}", got=name)


def _spectrogram_rows(path: Path) -> int:
    return signal_rows(path, SPECTROGRAM_FORMAT)


def _read_log_power(path: Path) -> NDArray[np.float16]:
    return log_power(read_spectrogram(path))


def _make_values(recipe: EegRecipe | RawRecipe, eeg: NDArray[np.float32]) -> NDArray[np.float16]:
    # It brings torch, which planning a pack and opening one do without.
    from hms_ray.pack.eeg import make_values

    return make_values(recipe, eeg)


def _make_strip(recipe: EegRecipe | RawRecipe, eeg: NDArray[np.float32], start: int) -> StripValues:
    from hms_ray.pack.eeg import make_strip_values

    return StripValues(*make_strip_values(recipe, eeg, start))
