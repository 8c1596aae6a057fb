"""Makes shards in this process and in further processes of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import Final

from hms_ray.errors import PackError
from hms_ray.pack.make import MadeShard
from hms_ray.pack.plan import Shard
from hms_ray.pack.worker_pool import WorkerPool

Make = Callable[[Shard], MadeShard]
Write = Callable[[Shard, MadeShard], MadeShard]
"""Writes a shard; returns it without the written arrays."""
Mapper = Callable[[Make, Iterable[Shard]], Iterator[MadeShard]]
"""Makes shards anywhere and yields them in any order. It takes the next shard only when it
can start it, so that few are in memory, and raises the errors of ``make``. ``make`` is
picklable."""

SHARDS_PER_WORKER: Final = 2
"""One in work and one waiting; near the end only one, so that no shard waits for a worker
while this process is idle."""
SOLO_S: Final = 1.0
"""Seconds that this process works alone before it starts others: starting a process takes
seconds, which is not worthwhile for little work."""
MANY_SHARDS: Final = 16
"""From this number of shards on, processes are started immediately."""


def default_workers() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_mapper(workers: int, n_shards: int, write: Write | None = None) -> Mapper:
    """The mapper for this machine.

    Args:
        workers: shards made at the same time: by this process and, for more than a second
            of work, by ``workers`` - 1 others.
        n_shards: of the whole pack.
        write: called in the other processes to write their shards; sending them to this
            process would cost a tenth of making them. Picklable.
    """
    helpers = min(workers, n_shards) - 1
    if helpers < 1:
        return map
    alone_s = SOLO_S if n_shards < MANY_SHARDS else 0.0
    return lambda make, shards: _make_in_processes(
        make,
        make if write is None else partial(_make_and_write, make, write),
        iter(shards),
        n_shards,
        helpers,
        alone_s,
    )


def _make_in_processes(
    make: Make, there: Make, pending: Iterator[Shard], n_left: int, helpers: int, alone_s: float
) -> Iterator[MadeShard]:
    began = time.monotonic()
    while time.monotonic() - began < alone_s:
        shard = next(pending, None)
        if shard is None:
            return
        n_left -= 1
        yield make(shard)
    pool = WorkerPool(helpers)
    try:
        yield from _with_helpers(pool, make, there, pending, n_left, helpers)
    except BrokenProcessPool as error:
        raise PackError(
            "a packing process must not be killed before its work is done",
            fix="Run the same command to resume; if memory is short, use fewer --workers N.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _with_helpers(
    pool: Executor, make: Make, there: Make, pending: Iterator[Shard], n_left: int, helpers: int
) -> Iterator[MadeShard]:
    """Shards made by a pool of processes and, while none of theirs is ready, by this one.

    ``n_left`` is an upper bound: other packers may make some of the shards.
    """
    running: set[Future[MadeShard]] = set()
    while True:
        done = {future for future in running if future.done()}
        running -= done
        # Submitted before results are written, so that no worker waits for the disk.
        each = SHARDS_PER_WORKER if n_left > SHARDS_PER_WORKER * helpers else 1
        room = max(0, each * helpers - len(running))
        started = {pool.submit(there, shard) for shard in islice(pending, room)}
        running |= started
        n_left -= len(started)
        if done:
            while done:
                yield done.pop().result()
        elif (shard := next(pending, None)) is not None:
            n_left -= 1
            yield make(shard)
        elif running:
            wait(running, return_when=FIRST_COMPLETED)
        else:
            return


def _make_and_write(make: Make, write: Write, shard: Shard) -> MadeShard:
    return write(shard, make(shard))
