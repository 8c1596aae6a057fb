"""Makes the values of one shard from its input files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.competition.read import read_eeg
from hms_ray.competition.schema import EEG_WINDOW_SAMPLES, ELECTRODES
from hms_ray.errors import DataError
from hms_ray.pack.inputs import changed_file
from hms_ray.pack.plan import Item, Shard
from hms_ray.pack.sources import PackSource
from hms_ray.pack.windows import N_SCALP

_AT_ONCE: Final = 8
"""Windows made at once; limits the memory of intermediate arrays."""


@dataclass(frozen=True, eq=False)
class MadeShard:
    """The content of a shard.

    Attributes:
        number: of the shard.
        values: float16 (n, P * F); None after they were written.
        missing: uint16 (n,), number of NaN per position; None after it was written, and for
            windows, whose gaps are filled.
        n_missing: int64 (items,), missing values of a recording, or missing samples of a
            window's scalp channels before gaps were filled.
        usable: bool (items,), whether there is any signal.
        sha256: (hex) of ``values``.
        missing_sha256: (hex) of ``missing``; empty for windows.
        room: int64 (items, 2), positions by which each window can be moved to an earlier and
            to a later time; None without a margin.
    """

    number: int
    values: NDArray[np.float16] | None
    missing: NDArray[np.uint16] | None
    n_missing: NDArray[np.int64]
    usable: NDArray[np.bool_]
    sha256: str
    missing_sha256: str
    room: NDArray[np.int64] | None = None


def make_shard(source: PackSource, shard: Shard) -> MadeShard:
    """Reads the files of a shard, each once, and makes its values.

    Raises:
        DataError: if a file is unreadable or malformed, has changed since the plan was made,
            or is too short for a window.
    """
    if source.kind == "recordings":
        return _make_recordings(source, shard)
    return _make_windows(source, shard)


def _make_recordings(source: PackSource, shard: Shard) -> MadeShard:
    values = np.empty((shard.n_positions, source.n_values), "<f2")
    read = source.read
    if read is None:
        raise ValueError(f"{source.name} cannot read recordings")
    first = 0
    for item in shard.items:
        part = read(item.file.path)
        item.file.require_unchanged()
        if part.shape != (item.length, source.n_values):
            raise changed_file(item.file.path)
        values[first : first + item.length] = part
        first += item.length
    missing = np.isnan(values).sum(axis=1, dtype="<u2")
    starts = np.cumsum([0, *(item.length for item in shard.items[:-1])])
    n_missing = np.add.reduceat(missing.astype(np.int64), starts)
    sizes = np.array([item.length * source.n_values for item in shard.items])
    return MadeShard(
        number=shard.number,
        values=values,
        missing=missing,
        n_missing=n_missing,
        usable=n_missing < sizes,
        sha256=_sha256(values),
        missing_sha256=_sha256(missing),
    )


def _make_windows(source: PackSource, shard: Shard) -> MadeShard:
    make = source.make
    if make is None:
        raise ValueError(f"{source.name} cannot make windows")
    n = len(shard.items)
    values = np.empty((n, source.item_length, source.n_values), "<f2")
    n_missing, usable = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    room = np.zeros((n, 2), np.int64)
    batch = np.empty((min(n, _AT_ONCE), EEG_WINDOW_SAMPLES, len(ELECTRODES)), np.float32)
    for k, (eeg, item) in enumerate(_eegs(shard)):
        window = _window(eeg, item)
        n_missing[k], usable[k] = signal_facts(window[slice(*source.used)], source.pairs)
        batch[k % _AT_ONCE] = window
        held = k % _AT_ONCE + 1
        if held == _AT_ONCE or k == n - 1:
            values[k + 1 - held : k + 1, : source.window] = make(batch[:held])
        if source.strip is not None:
            strip = source.strip(eeg, item.start)
            values[k, source.window :], room[k] = strip.values, (strip.before, strip.after)
    # A window without signal is all zeros, shifted or not, for every recipe.
    values[~usable] = 0
    room[~usable] = 0
    return MadeShard(
        number=shard.number,
        values=values.reshape(-1, source.n_values),
        missing=None,
        n_missing=n_missing,
        usable=usable,
        sha256=_sha256(values),
        missing_sha256="",
        room=room if source.strip is not None else None,
    )


def _eegs(shard: Shard) -> Iterator[tuple[NDArray[np.float32], Item]]:
    """Yields each window's whole EEG, (n, 20) microvolts, NaN where not finite."""
    for file, items in groupby(shard.items, key=lambda item: item.file):
        eeg = read_eeg(file.path)
        file.require_unchanged()
        finite = np.isfinite(eeg)
        if not finite.all():
            eeg[~finite] = np.nan
        for item in items:
            yield eeg, item


def _window(eeg: NDArray[np.float32], item: Item) -> NDArray[np.float32]:
    end = item.start + EEG_WINDOW_SAMPLES
    if end > len(eeg):
        raise DataError(
            "a row's window must lie within its EEG",
            got=f"samples {item.start} to {end} of {len(eeg)}",
            where=f"EEG {item.file.number}, window from {item.start}: {item.file.path}",
            fix="List the faults with: hms-ray check DIR",
        )
    return eeg[item.start : end]


def signal_facts(window: NDArray[np.float32], pairs: Sequence[tuple[int, int]]) -> tuple[int, bool]:
    """The number of missing samples of an EEG window, and whether it has any signal.

    Args:
        window: float32 (n, 20), microvolts, NaN where missing.
        pairs: columns of anode and cathode of a recipe's signals.

    Returns:
        Missing samples of the 19 scalp channels; and whether at least one signal is not
        constant (a disconnected electrode is NaN or one constant, usually 0).
    """
    n_missing = int(np.count_nonzero(np.isnan(window[:, :N_SCALP])))
    return n_missing, any(_varies(window[:, a] - window[:, c]) for a, c in pairs)


def _varies(signal: NDArray[np.float32]) -> bool:
    # Comparisons with NaN are false, so a signal of NaN only does not vary.
    return bool(np.fmin.reduce(signal) < np.fmax.reduce(signal))


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
