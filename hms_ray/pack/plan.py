"""Splits the content of a pack into shards, deterministically.

All packers of the same files and recipe have the same shards. So the next packer reuses the
finished shards of a killed one, and concurrent packers do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from hms_ray.competition.read import SPECTROGRAM_FORMAT, signal_rows
from hms_ray.pack.inputs import InputFile
from hms_ray.pack.sources import PackSource
from hms_ray.pack.windows import Windows

SHARD_BYTES: Final = 8 * 2**20
SHARD_ITEMS: Final = 64
"""Limits of a shard, which has at least one item. Part of the format: other limits give other
drafts and fingerprints."""
_BYTES: Final = np.dtype(np.float16).itemsize


@dataclass(frozen=True)
class Item:
    """A recording or a window.

    Attributes:
        file: its input file.
        start: first sample of a window in its EEG; 0 for a recording.
        length: number of positions.
    """

    file: InputFile
    start: int
    length: int


@dataclass(frozen=True)
class Shard:
    """Consecutive items that are made, written and verified together.

    Attributes:
        number: from 0.
        first: first position in the pack.
        items: in the order of the pack.
    """

    number: int
    first: int
    items: tuple[Item, ...]

    @property
    def n_positions(self) -> int:
        """Positions of all items."""
        return sum(item.length for item in self.items)


@dataclass(frozen=True)
class PackPlan:
    """The content of a pack before it is built.

    Attributes:
        source: source to pack.
        shards: in the order of the pack.
        signature: of the input files.
    """

    source: PackSource
    shards: tuple[Shard, ...]
    signature: str

    @property
    def folder(self) -> Path:
        """The competition folder of the input files, absolute."""
        return self.shards[0].items[0].file.path.parents[1].resolve()

    @property
    def n_items(self) -> int:
        """Recordings or windows."""
        return sum(len(shard.items) for shard in self.shards)

    @property
    def n_positions(self) -> int:
        """Positions of all shards."""
        return sum(shard.n_positions for shard in self.shards)


def plan_pack(
    source: PackSource,
    files: Sequence[InputFile],
    windows: Windows | None,
    signature: str,
    threads: int,
) -> PackPlan:
    """Plans the shards of a pack.

    Args:
        source: source to pack.
        files: its input files, sorted by id.
        windows: windows of ``files``, for a source of windows.
        signature: of the files.
        threads: footers read at the same time.

    Raises:
        DataError: if the file of a recording is truncated or damaged.
    """
    if windows is not None:
        of = {file.number: file for file in files}
        pairs = zip(windows.eeg_ids.tolist(), windows.starts.tolist(), strict=True)
        items = [Item(of[number], start, source.item_length) for number, start in pairs]
    else:
        with ThreadPoolExecutor(threads) as pool:
            lengths = pool.map(lambda file: signal_rows(file.path, SPECTROGRAM_FORMAT), files)
            items = [Item(file, 0, n) for file, n in zip(files, lengths, strict=True)]
    return PackPlan(source, tuple(_cut(items, source.n_values * _BYTES)), signature)


def _cut(items: Iterable[Item], position_bytes: int) -> Iterable[Shard]:
    number = first = taken = 0
    held: list[Item] = []
    for item in items:
        if held and (
            len(held) == SHARD_ITEMS or (taken + item.length) * position_bytes > SHARD_BYTES
        ):
            yield Shard(number, first, tuple(held))
            number, first, taken, held = number + 1, first + taken, 0, []
        held.append(item)
        taken += item.length
    if held:
        yield Shard(number, first, tuple(held))
