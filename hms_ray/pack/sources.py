"""Sources of packs: their input files, recipes and layouts."""

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
"""Names of sources; ``eeg`` and ``raw`` can be packed by different recipes."""


@dataclass(frozen=True)
class StripValues:
    """The packed strip of a window.

    Attributes:
        values: float16 (T + 2 margin, P * F), NaN beyond the ends of the EEG.
        before: positions, at most the margin, by which the window can be moved to an earlier
            time within the EEG.
        after: the same for later times.
    """

    values: NDArray[np.float16]
    before: int
    after: int


@dataclass(frozen=True)
class PackSource:
    """A source of packed values; picklable, so that any process can make its values.

    Attributes:
        name: ``kaggle``, ``eeg`` or ``raw``.
        kind: ``recordings``: recordings are packed whole, and a window can start anywhere;
            ``windows``: only the requested windows are packed, computed from EEGs.
        recipe: everything that decides the values, as plain data; its hash is part of a
            pack's name and fingerprint.
        directory: subfolder of the input files ``<recording id>.parquet`` in a competition
            folder.
        panels: names of the P panels.
        n_frequencies: F, frequencies per panel.
        window: T, positions of a training row.
        step_s: seconds between positions.
        length: (kind ``recordings``) input file -> number of positions, without reading the
            values.
        read: (kind ``recordings``) input file -> float16 (length, P * F).
        make: (kind ``windows``) float32 (B, 10000, 20) microvolts, NaN where missing ->
            float16 (B, T, P * F).
        used: (kind ``windows``) first sample that the recipe uses, and one past the last.
        pairs: (kind ``windows``) columns of anode and cathode of its signals.
        margin: (kind ``windows``) positions by which a window can be moved either way.
        strip: (kind ``windows`` with a margin) a whole EEG, float32 (n, 20) microvolts, NaN
            where missing, and first sample of a window -> its strip.
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
        """Stored positions per window; with a margin its strip follows it."""
        return self.window if self.strip is None else 2 * (self.window + self.margin)

    @property
    def n_values(self) -> int:
        """Values per position."""
        return len(self.panels) * self.n_frequencies

    def require_windows(self, windows: Windows | None) -> None:
        """Checks that windows are given for a source of windows, and only for one.

        Raises:
            PackError: if a source of windows has none.
            ValueError: if a source of recordings has some.
        """
        if self.kind == "windows" and windows is None:
            raise PackError(
                f"packing {self.name} needs the windows of training rows",
                got="none",
                fix="Name a search space with --space FILE.",
            )
        if self.kind == "recordings" and windows is not None:
            raise ValueError(f"{self.name} packs whole recordings, not windows")


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
    """Values computed from the 50 s EEG windows of training rows.

    With a margin, each window is stored twice: first exactly as without a margin, then as a
    strip (see ``signal.strip``). So values of windows that are not shifted never depend on
    the margin.

    Args:
        name: ``eeg`` or ``raw``.
        recipe: recipe of the values.
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
    """The source of a name, with its default recipe.

    Raises:
        PackError: if the name is unknown.
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
    # Imported late: planning and opening a pack must not import torch.
    from hms_ray.pack.eeg import make_values

    return make_values(recipe, eeg)


def _make_strip(recipe: EegRecipe | RawRecipe, eeg: NDArray[np.float32], start: int) -> StripValues:
    from hms_ray.pack.eeg import make_strip_values

    return make_strip_values(recipe, eeg, start)
