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
from hms_ray.config.pair_recipes import SignalRecipe
from hms_ray.errors import DataError
from hms_ray.pack.inputs import changed_file
from hms_ray.pack.plan import Item, Shard
from hms_ray.pack.sources import PackSource
from hms_ray.pack.windows import N_SCALP
from hms_ray.signal.montage import columns_of
from hms_ray.signal.recipes import pairs_used

_AT_ONCE: Final = 8
"""Windows made at once; limits the memory of intermediate arrays."""


@dataclass(frozen=True)
class ShardRecord:
    """Facts about a shard that outlive its arrays; plain data.

    Attributes:
        sha256: (hex) of its values.
        missing_sha256: (hex) of its missing counts; empty for windows.
        n_missing: per item, missing values of a recording, or missing samples of a window's
            scalp channels before gaps were filled.
        usable: per item, whether there is any signal.
        room: per window, positions by which it can be moved to an earlier and to a later
            time; None without a margin.
    """

    sha256: str
    missing_sha256: str
    n_missing: list[int]
    usable: list[bool]
    room: list[list[int]] | None = None


@dataclass(frozen=True, eq=False)
class MadeShard:
    """The content of a shard.

    Attributes:
        number: of the shard.
        record: facts about it.
        values: float16 (n, P * F); None after they were written.
        missing: uint16 (n,), number of NaN per position; None after it was written, and for
            windows, whose gaps are filled.
    """

    number: int
    record: ShardRecord
    values: NDArray[np.float16] | None = None
    missing: NDArray[np.uint16] | None = None


def make_shard(source: PackSource, shard: Shard) -> MadeShard:
    """Reads the files of a shard, each once, and makes its values.

    Raises:
        DataError: if a file is unreadable or malformed, has changed since the plan was made,
            or is too short for a window.
    """
    if source.eeg_recipe is None:
        return _make_recordings(source, shard)
    return _make_windows(source, source.eeg_recipe, shard)


def _make_recordings(source: PackSource, shard: Shard) -> MadeShard:
    values = np.empty((shard.n_positions, source.n_values), "<f2")
    starts = np.cumsum([0, *(item.length for item in shard.items)])
    for first, item in zip(starts, shard.items, strict=False):
        part = source.read(item.file.path)
        item.file.require_unchanged()
        if part.shape != (item.length, source.n_values):
            raise changed_file(item.file.path)
        values[first : first + item.length] = part
    missing = np.isnan(values).sum(axis=1, dtype="<u2")
    n_missing = np.add.reduceat(missing.astype(np.int64), starts[:-1])
    usable = n_missing < np.diff(starts) * source.n_values
    record = ShardRecord(_sha256(values), _sha256(missing), n_missing.tolist(), usable.tolist())
    return MadeShard(shard.number, record, values, missing)


def _make_windows(source: PackSource, recipe: SignalRecipe, shard: Shard) -> MadeShard:
    # Imported late: planning and opening a pack must not import torch.
    from hms_ray.pack.eeg import make_strip_values, make_values

    n = len(shard.items)
    values = np.empty((n, source.item_length, source.n_values), "<f2")
    n_missing, usable = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    room = np.zeros((n, 2), np.int64)
    batch = np.empty((min(n, _AT_ONCE), EEG_WINDOW_SAMPLES, len(ELECTRODES)), np.float32)
    skipped = (EEG_WINDOW_SAMPLES - recipe.used_samples) // 2
    used = slice(skipped, skipped + recipe.used_samples)
    pairs = list(zip(*columns_of(pairs_used(recipe)), strict=True))
    for k, (eeg, item) in enumerate(_eegs(shard)):
        window = _window(eeg, item)
        n_missing[k], usable[k] = signal_facts(window[used], pairs)
        batch[k % _AT_ONCE] = window
        held = k % _AT_ONCE + 1
        if held == _AT_ONCE or k == n - 1:
            values[k + 1 - held : k + 1, : source.window] = make_values(recipe, batch[:held])
        if source.margin:
            values[k, source.window :], room[k] = make_strip_values(recipe, eeg, item.start)
    # A window without signal is all zeros, shifted or not, for every recipe.
    values[~usable] = 0
    room[~usable] = 0
    record = ShardRecord(
        sha256=_sha256(values),
        missing_sha256="",
        n_missing=n_missing.tolist(),
        usable=usable.tolist(),
        room=room.tolist() if source.margin else None,
    )
    return MadeShard(shard.number, record, values.reshape(-1, source.n_values))


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
