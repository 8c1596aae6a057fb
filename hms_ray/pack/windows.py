"""The part of a source that a pack holds: windows of EEGs, or whole recordings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import ELECTRODES
from hms_ray.errors import PackError
from hms_ray.storage.hashing import digest

N_SCALP: Final = len(ELECTRODES) - 1
"""Number of scalp channels, which come first; the last column of an EEG is the EKG."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Distinct windows of EEGs, sorted by (EEG, start).

    Attributes:
        eeg_ids: int64 (N,), ids of EEGs.
        starts: int64 (N,), first sample (200 Hz) of each window, at least 0.
    """

    eeg_ids: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __post_init__(self) -> None:
        ids, starts = self.eeg_ids, self.starts
        if ids.ndim != 1 or ids.shape != starts.shape:
            raise ValueError(f"windows must be two (N,) arrays, got {ids.shape}, {starts.shape}")
        if len(ids) == 0:
            raise PackError("a pack of windows must have at least one window")
        later = (np.diff(ids) > 0) | ((np.diff(ids) == 0) & (np.diff(starts) > 0))
        if not later.all():
            raise ValueError("windows must be distinct and sorted by EEG and start")
        if (starts < 0).any():
            first = int(np.argmax(starts < 0))
            raise PackError(
                "a window must not start before its EEG",
                got=f"sample {starts[first]}",
                where=f"EEG {ids[first]}",
                fix="List the faults with: hms-ray check DIR",
            )

    def __len__(self) -> int:
        return len(self.eeg_ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of ids and starts."""
        content = hashlib.sha256(self.eeg_ids.astype("<i8").tobytes())
        content.update(self.starts.astype("<i8").tobytes())
        return content.hexdigest()


@dataclass(frozen=True)
class Recordings:
    """Recordings that are packed whole.

    Attributes:
        ids: sorted, each once.
    """

    ids: tuple[int, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the ids."""
        return digest(self.ids)


def distinct_windows(rows: pd.DataFrame) -> Windows:
    """The distinct windows of training rows.

    Args:
        rows: integer columns ``eeg_id`` and ``eeg_start`` (first of the 10,000 samples), in
            any order; duplicates allowed.

    Raises:
        PackError: if there are no rows, or one starts before its EEG.
    """
    table = rows[["eeg_id", "eeg_start"]].drop_duplicates().sort_values(["eeg_id", "eeg_start"])
    return Windows(
        eeg_ids=table["eeg_id"].to_numpy(np.int64), starts=table["eeg_start"].to_numpy(np.int64)
    )
