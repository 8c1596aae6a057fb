"""Windows of a pack on the training device, resident or streamed.

Both return the same tensors: (B, P, F, T) float16 views of contiguous (B, T, P, F), the
memory order of the pack.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
) -> dict[str, WindowSource]:
    """Opens packs for a device.

    On a CPU the memory map itself is the resident store: it is never copied, and the
    processes of a machine share its pages.

    Args:
        packs: source -> pack.
        device: device of the windows.
        kind: ``auto`` streams to a GPU if the packs together would take more than
            ``RESIDENT_SHARE`` of its free memory.
    """
    if kind == "auto":
        size = sum(pack.values.nbytes for pack in packs.values())
        crowded = device.type == "cuda" and size > RESIDENT_SHARE * _free_bytes(device)
        kind = "streamed" if crowded else "resident"
    opened = Resident if kind == "resident" else Streamed
    return {source: opened(pack, device) for source, pack in packs.items()}


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
