"""Ends a fold on all ranks at the same step, within seconds after it was cancelled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from hms_ray.errors import FoldCancelled
from hms_ray.train.process import Process

T = TypeVar("T")

_CANCELLED: Final = "the fold was cancelled"
AGREE_S: Final = 1.0
"""Seconds between two agreements of the ranks. A host runs ahead of its GPU by a few steps
only, so that seconds of the host are also those of the device."""


def cancellable(
    items: Iterable[T],
    process: Process,
    n_items: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Yields items until rank 0 must stop; then raises on all ranks before the same item.

    With several ranks, rank 0 broadcasts at agreed items whether to stop, and the number of
    items until the next agreement: so many as take ``AGREE_S``, at most twice as many as the
    last time. In between no rank waits for another, and no device for its host.

    Args:
        items: batches of training, or of an evaluation.
        process: this rank; all ranks must call this together.
        n_items: number of items of the rank that has most; default: equal on all ranks.
        clock: seconds, monotonic.

    Raises:
        FoldCancelled: on every rank, if ``process.should_stop`` returns true on rank 0.
    """
    if not process.grouped:
        for item in items:
            check_cancelled(process)
            process.pulse.advance()
            yield item
        return
    agreement = _Agreement(process, clock)
    place = 0
    for item in items:
        agreement.at(place)
        process.pulse.advance()
        yield item
        place += 1
    for missing in range(place, n_items or place):
        agreement.at(missing)
        process.pulse.advance()


class _Agreement:
    """What the ranks agree on, from item to item."""

    def __init__(self, process: Process, clock: Callable[[], float]) -> None:
        self._process, self._clock = process, clock
        self._next, self._distance, self._started = 0, 1, clock()

    def at(self, place: int) -> None:
        """Agrees before an item if it is time, and raises ``FoldCancelled`` if so agreed."""
        if place != self._next:
            return
        process, now = self._process, self._clock()
        if place:
            seconds = max(now - self._started, 1e-9)
            fitting = int(AGREE_S / seconds * self._distance)
            self._distance = max(1, min(fitting, 2 * self._distance))
        stop = process.rank == 0 and process.should_stop()
        stop_all, self._distance = process.broadcast_numbers(int(stop), self._distance)
        self._next, self._started = place + self._distance, now
        if stop_all:
            raise FoldCancelled(_CANCELLED)


def check_cancelled(process: Process) -> None:
    """Ends a fold from rank 0 alone; the others must be waiting for it (``call_on_rank0``).

    Raises:
        FoldCancelled: if ``process.should_stop`` returns true.
    """
    if process.should_stop():
        raise FoldCancelled(_CANCELLED)
