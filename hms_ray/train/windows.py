"""Windows of a pack on the training device, resident or streamed.

Both return the same tensors: (B, P, F, T) float16 views of contiguous (B, T, P, F), the
memory order of the pack.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.config.views import kind_of_source
from hms_ray.signal.on_device import on_device

if TYPE_CHECKING:
    from hms_ray.pack.store import Pack

Starts = NDArray[np.int64]

RESIDENT_SHARE: Final = 0.4
"""Largest share of a device's free memory that resident packs may take."""
PREFETCH_BATCHES: Final = 2
"""Batches that are copied ahead of the one in use."""


class WindowSource(Protocol):
    """Windows of a pack, selected by their first positions."""

    @property
    def resident(self) -> bool:
        """Whether the whole pack is on the device."""

    def windows(self, starts: Starts) -> Tensor:
        """(B, P, F, T) float16 on the device; ``starts`` is (B,) pack positions."""

    def stream(self, batches: Sequence[Starts]) -> Iterator[Tensor]:
        """Yields ``windows`` of each batch."""


def open_sources(
    packs: Mapping[str, Pack],
    device: torch.device,
    kind: Literal["auto", "resident", "streamed"] = "auto",
    opened: OpenedPacks | None = None,
) -> dict[str, WindowSource]:
    """Opens packs for a device.

    On a CPU the memory map itself is the resident store: it is never copied, and the
    processes of a machine share its pages.

    Args:
        packs: source -> pack.
        device: device of the windows.
        kind: ``auto`` streams to a GPU if the packs together would take more than
            ``RESIDENT_SHARE`` of its free memory.
        opened: keeps resident packs for the folds to come, and has those of earlier ones.
    """
    opened = OpenedPacks(device) if opened is None else opened
    return opened.open(packs, kind)


class OpenedPacks:
    """Packs that stay on a device from fold to fold.

    Together they take at most ``RESIDENT_SHARE`` of the memory that is free without them: the
    least recently used ones go first. So a fold finds the memory of a new process.

    Args:
        device: of the packs.
        free_bytes: memory that this process can still allocate on it.
    """

    def __init__(
        self, device: torch.device, free_bytes: Callable[[torch.device], int] | None = None
    ) -> None:
        self._device, self._free_bytes = device, free_bytes or _free_bytes
        # Key of a pack -> it and its bytes; the least recently used one is first.
        self._resident: dict[_Key, tuple[Resident, int]] = {}
        self._in_use: frozenset[_Key] = frozenset()

    def free_unused(self) -> int:
        """Drops the packs that the last call of ``open`` did not want; returns their number."""
        unused = self._resident.keys() - self._in_use
        for key in unused:
            del self._resident[key]
        return len(unused)

    def open(
        self, packs: Mapping[str, Pack], kind: Literal["auto", "resident", "streamed"] = "auto"
    ) -> dict[str, WindowSource]:
        """See ``open_sources``."""
        wanted = {_key(source, pack): pack.values.nbytes for source, pack in packs.items()}
        room = self._room() if kind == "auto" or self._resident else math.inf
        if kind == "auto":
            kind = "streamed" if sum(wanted.values()) > room else "resident"
        if kind == "streamed":
            self._resident = {}
            return {source: Streamed(pack, self._device) for source, pack in packs.items()}
        sizes = {key: size for key, (_, size) in self._resident.items()} | wanted
        for key in [key for key in self._resident if key not in wanted]:
            if sum(sizes.values()) > room:
                del self._resident[key], sizes[key]
        self._in_use = frozenset(wanted)
        return {source: self._opened(source, pack) for source, pack in packs.items()}

    def _room(self) -> float:
        """Bytes that packs may take; a CPU's are in its page cache."""
        if self._device.type == "cpu":
            return math.inf
        own = sum(size for _, size in self._resident.values())
        return RESIDENT_SHARE * (self._free_bytes(self._device) + own)

    def _opened(self, source: str, pack: Pack) -> Resident:
        key = _key(source, pack)
        found = self._resident.pop(key, None) or (Resident(pack, self._device), pack.values.nbytes)
        self._resident[key] = found
        return found[0]


_Key = tuple[str, str]


def _key(source: str, pack: Pack) -> _Key:
    """Equal recipes share a pack, whatever their names."""
    return kind_of_source(source), pack.fingerprint


def _free_bytes(device: torch.device) -> int:
    """Memory that this process can still allocate on a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    # Memory that torch caches from earlier folds is in use for the driver, but available.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


class _Gather:
    """Copies batches of windows out of a pack's array."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.values = torch.from_numpy(pack.values).to(device)
        self.shape = (pack.window, len(pack.panels), pack.n_frequencies)
        self.offsets = torch.arange(pack.window, device=device)

    def __call__(self, starts: Starts, pinned: bool = False) -> Tensor:
        """(B, T, P, F) float16, contiguous."""
        shape = (len(starts), *self.shape)
        if self.values.is_cuda:
            first = on_device(starts, self.values.device)
            rows = (first[:, None] + self.offsets).flatten()
            return self.values.index_select(0, rows).view(shape)
        batch = torch.empty(
            (len(starts), self.shape[0], self.values.shape[1]),
            dtype=self.values.dtype,
            pin_memory=pinned,
        )
        if len(starts):
            # One memory copy per window: 1.4 times as fast as index_select, three times as
            # fast as advanced indexing (measured, 32 x 240 kB).
            spans = [self.values[start : start + self.shape[0]] for start in starts.tolist()]
            torch.stack(spans, out=batch)
        return batch.view(shape)


class Resident:
    """The whole pack is on the device; a batch is an index select."""

    resident = True

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self._gather = _Gather(pack, device)

    def windows(self, starts: Starts) -> Tensor:
        """(B, P, F, T) float16 on the device."""
        return self._gather(starts).permute(0, 2, 3, 1)

    def stream(self, batches: Sequence[Starts]) -> Iterator[Tensor]:
        """Yields ``windows`` of each batch."""
        return map(self.windows, batches)


class Streamed:
    """The pack stays in its memory map; one thread prefetches batches.

    For a CUDA device, batches are copied through pinned memory on a separate stream, while
    earlier batches are trained.
    """

    resident = False

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self._gather = _Gather(pack, torch.device("cpu"))
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def windows(self, starts: Starts) -> Tensor:
        """(B, P, F, T) float16 on the device."""
        return next(self.stream([starts]))

    def stream(self, batches: Sequence[Starts]) -> Iterator[Tensor]:
        """Yields ``windows`` of each batch, with ``PREFETCH_BATCHES`` prefetched."""
        waiting: deque[Future[tuple[Tensor, torch.cuda.Event | None]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="hms-ray-windows") as copier:
            try:
                for starts in batches:
                    waiting.append(copier.submit(self._copy, starts))
                    if len(waiting) > PREFETCH_BATCHES:
                        yield self._received(waiting.popleft())
                while waiting:
                    yield self._received(waiting.popleft())
            finally:
                for copy in waiting:
                    copy.cancel()

    def _copy(self, starts: Starts) -> tuple[Tensor, torch.cuda.Event | None]:
        batch = self._gather(starts, pinned=self._side is not None)
        if self._side is None:
            return batch, None
        with torch.cuda.stream(self._side):
            # torch does not reuse the pinned block before the copy ends.
            moved = batch.to(self._device, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._side)
        return moved, done

    def _received(self, copy: Future[tuple[Tensor, torch.cuda.Event | None]]) -> Tensor:
        batch, done = copy.result()
        if done is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(done)
            batch.record_stream(current)
        return batch.permute(0, 2, 3, 1)
