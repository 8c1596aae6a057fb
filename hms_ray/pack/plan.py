"""A pack's content cut into shards, always in the same way.

Whoever packs the same files by the same recipe has the same shards, so a killed
packer's finished shards serve the next one, and two packers do each other no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from hms_ray.pack.inputs import InputFile
from hms_ray.pack.sources import PackSource
from hms_ray.pack.windows import Windows

SHARD_BYTES: Final = 8 * 2**20
SHARD_ITEMS: Final = 64
"""A shard ends before it has more values or items than these, and has at least one
item. Part of the format: other numbers make other drafts and fingerprints."""
_BYTES: Final = np.dtype(np.float16).itemsize


@dataclass(frozen=True)
class Item:
    """A recording or a window.

    Attributes:
        file: where it comes from.
        start: first sample of a window within its EEG; 0 for a recording.
        length: positions.
    """

    file: InputFile
    start: int
    length: int


@dataclass(frozen=True)
class Shard:
    """Consecutive items that are made, written and checked as one.

    Attributes:
        number: from 0.
        first: its first position in the pack.
        items: sorted as the pack is.
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
    """Everything that a pack will hold.

    Attributes:
        source: what is packed.
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
    """Says which shard holds what.

    Args:
        source: what is packed.
        files: its input files, sorted by id.
        windows: of a source of windows; their EEGs are ``files``.
        signature: of the files.
        threads: footers read at once.

    Raises:
        DataError: a recording whose file is truncated or damaged.
    """
    if windows is not None:
        of = {file.number: file for file in files}
        pairs = zip(windows.eeg_ids.tolist(), windows.starts.tolist(), strict=True)
        items = [Item(of[number], start, source.item_length) for number, start in pairs]
    else:
        length = source.length
        if length is None:
            raise ValueError(f"{source.name} cannot tell the length of a recording")
        with ThreadPoolExecutor(threads) as pool:
            lengths = pool.map(length, [file.path for file in files])
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
