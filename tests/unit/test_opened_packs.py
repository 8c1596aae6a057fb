"""Packs that stay on a device between folds: what is kept, dropped and streamed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hms_ray.train.windows import RESIDENT_SHARE, OpenedPacks

META = torch.device("meta")
"""A device whose tensors take no memory; ``Memory`` counts for it."""
CAPACITY = 10_000
ROOM = int(RESIDENT_SHARE * CAPACITY)


def pack(fingerprint: str, n_bytes: int) -> Any:
    values = np.zeros((n_bytes // 8, 4), np.float16)
    return SimpleNamespace(
        fingerprint=fingerprint, values=values, window=2, panels=("LL",), n_frequencies=4
    )


class Memory:
    """A device of ``CAPACITY`` bytes that holds nothing but packs."""

    def __init__(self) -> None:
        self.opened = OpenedPacks(META, lambda device: CAPACITY - self.used)

    @property
    def used(self) -> int:
        return sum(size for _, size in self.opened._resident.values())

    def open(self, *packs: Any, kind: Any = "auto") -> list[Any]:
        return list(self.opened.open({str(n): pack for n, pack in enumerate(packs)}, kind).values())


def test_a_pack_is_copied_to_the_device_once() -> None:
    memory, one, other = Memory(), pack("a", 800), pack("b", 800)
    (first,) = memory.open(one)
    assert first.resident
    memory.open(other)
    assert memory.open(pack("a", 800)) == [first], "an equal pack, opened again"
    assert memory.opened.free_unused() == 1
    assert memory.used == 800
    assert memory.open(pack("a", 800)) == [first], "the last one is in use"


def test_equal_recipes_of_two_names_are_one_pack() -> None:
    memory, size = Memory(), ROOM // 2 // 8 * 8
    packs = {name: pack("a", size) for name in ("pairs", "pairs.wide", "pairs.centre")}
    found = memory.opened.open(packs)
    assert len({id(one) for one in found.values()}) == 1
    assert found["pairs"].resident, "the room for two is not needed for three"
    assert memory.used == size
    (other,) = memory.opened.open({"raw.wide": pack("a", 800)}).values()
    assert other is not found["pairs"], "of another source"


def test_the_least_recently_used_pack_goes_first() -> None:
    memory, packs = Memory(), [pack(name, 1600) for name in "abc"]
    a, b = (memory.open(pack)[0] for pack in packs[:2])
    memory.open(packs[0])
    memory.open(packs[2])
    assert memory.used <= ROOM
    assert memory.open(packs[0]) == [a]
    assert memory.open(packs[1]) != [b]


@pytest.mark.parametrize(("size", "resident"), [(ROOM, True), (ROOM + 8, False)])
def test_auto_decides_as_if_its_own_packs_were_free(size: int, resident: bool) -> None:
    memory = Memory()
    memory.open(pack("old", ROOM))
    (found,) = memory.open(pack("new", size))
    assert found.resident is resident
    assert memory.used == (size if resident else 0)


def test_packs_of_one_fold_are_kept_together() -> None:
    memory = Memory()
    both = memory.open(pack("a", ROOM // 2), pack("b", ROOM // 2))
    assert [found.resident for found in both] == [True, True]
    assert memory.opened.free_unused() == 0
    assert memory.open(pack("a", ROOM // 2), pack("b", ROOM // 2)) == both


def test_resident_is_kept_to_whatever_its_size_and_drops_the_others() -> None:
    memory = Memory()
    memory.open(pack("old", 800))
    (found,) = memory.open(pack("new", CAPACITY - 800), kind="resident")
    assert found.resident
    assert memory.used == CAPACITY - 800


def test_streamed_packs_leave_the_device() -> None:
    memory = Memory()
    memory.open(pack("a", 800))
    (found,) = memory.open(pack("a", 800), kind="streamed")
    assert not found.resident
    assert memory.used == 0
