"""Which windows of which EEGs a pack of windows holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hms_ray.competition.schema import ELECTRODES
from hms_ray.errors import PackError

N_SCALP: Final = len(ELECTRODES) - 1
"""Channels of the scalp come first; the last column of an EEG is the EKG."""


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
            raise ValueError(f"windows are two lists, got {ids.shape} and {starts.shape}")
        if len(ids) == 0:
            raise PackError("a pack of windows needs windows", got="none")
        later = (np.diff(ids) > 0) | ((np.diff(ids) == 0) & (np.diff(starts) > 0))
        if not later.all():
            raise ValueError("windows must be distinct and sorted by EEG and start")
        if (starts < 0).any():
            first = int(np.argmax(starts < 0))
            raise PackError(
                "a window must not start before its EEG",
                got=f"sample {starts[first]}",
                where=f"EEG {ids[first]}",
                fix="See what is wrong with: hms-ray check DIR",
            )

    def __len__(self) -> int:
        return len(self.eeg_ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of ids and starts."""
        content = hashlib.sha256(self.eeg_ids.astype("<i8").tobytes())
        content.update(self.starts.astype("<i8").tobytes())
        return content.hexdigest()


def distinct_windows(rows: pd.DataFrame) -> Windows:
    """The distinct windows of training rows.

    Args:
        rows: columns ``eeg_id`` and ``eeg_start`` (first sample of the 10,000),
            whole numbers, in any order, repeated or not.

    Raises:
        PackError: no rows, or one that starts before its EEG.
    """
    table = rows[["eeg_id", "eeg_start"]].drop_duplicates().sort_values(["eeg_id", "eeg_start"])
    return Windows(
        eeg_ids=table["eeg_id"].to_numpy(np.int64), starts=table["eeg_start"].to_numpy(np.int64)
    )


def first_of(ids: ArrayLike, shown: int = 3) -> str:
    """The first few of some ids and how many more there are, as messages say it."""
    numbers: Sequence[int] = np.asarray(ids).tolist()
    more = len(numbers) - shown
    return ", ".join(map(str, numbers[:shown])) + (f" and {more} more" if more > 0 else "")
