"""Shards made by this process and by others of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing import connection
from typing import Final

from hms_ray.errors import PackError
from hms_ray.pack.make import MadeShard
from hms_ray.pack.plan import Shard

Make = Callable[[Shard], MadeShard]
Write = Callable[[Shard, MadeShard], MadeShard]
"""Puts what was made in its place; gives back the little that is left to tell."""
Mapper = Callable[[Make, Iterable[Shard]], Iterator[MadeShard]]
"""Makes shards somewhere and gives them back in any order. It takes the next shard
when it has room for it, so that only a few are held at once, and raises what
``make`` raises. ``make`` pickles."""

SHARDS_A_WORKER: Final = 2
"""One that is made and one that waits; near the end only the first, so that none waits
for a helper while this process has nothing left."""
ALONE_S: Final = 1.0
"""Work that this process does before it starts others: a process needs seconds to
start, which little work is not worth."""
MANY_SHARDS: Final = 16
"""So many are worth it at once."""


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_process(workers: int, n_shards: int, write: Write | None = None) -> Mapper:
    """The mapper for this machine.

    Args:
        workers: shards made at once: by this process and, where there is more
            to do than a moment's work, by ``workers`` - 1 others.
        n_shards: of the whole pack.
        write: called by the other processes with what they made, to put it in its
            place: sending it here costs a tenth of making it. Pickles.
    """
    helpers = min(workers, n_shards) - 1
    if helpers < 1:
        return map
    alone_s = ALONE_S if n_shards < MANY_SHARDS else 0.0
    return lambda make, shards: _in_processes(
        make,
        make if write is None else partial(_make_and_write, make, write),
        _Countdown(shards, n_shards),
        helpers,
        alone_s,
    )


class _Countdown:
    """Shards, and how many are left at most (others may have made some).

    Args:
        shards: to be made.
        n: how many they are at most.
    """

    def __init__(self, shards: Iterable[Shard], n: int) -> None:
        self._shards, self.left = iter(shards), n

    def __iter__(self) -> Iterator[Shard]:
        return self

    def __next__(self) -> Shard:
        shard = next(self._shards)
        self.left -= 1
        return shard


def _in_processes(
    make: Make, there: Make, pending: _Countdown, helpers: int, alone_s: float
) -> Iterator[MadeShard]:
    began = time.monotonic()
    while time.monotonic() - began < alone_s:
        shard = next(pending, None)
        if shard is None:
            return
        yield make(shard)
    # A forked child would inherit threads' locks; spawned ones start clean on every system.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(helpers, mp_context=context, initializer=_begin_worker)
    try:
        yield from _with_helpers(pool, make, there, pending, helpers)
    except BrokenProcessPool as error:
        raise PackError(
            "a packing process must live until its work is done",
            got="one that was killed",
            fix="Where memory is short use fewer with --workers N; the same command goes on.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _with_helpers(
    pool: Executor, make: Make, there: Make, pending: _Countdown, helpers: int
) -> Iterator[MadeShard]:
    """Shards made by a pool and, while nothing of the pool's is ready, by this process."""
    running: set[Future[MadeShard]] = set()
    while True:
        done = {future for future in running if future.done()}
        running -= done
        # Before a result is written, so that no helper waits for the disk.
        each = SHARDS_A_WORKER if pending.left > SHARDS_A_WORKER * helpers else 1
        room = max(0, each * helpers - len(running))
        running |= {pool.submit(there, shard) for shard in islice(pending, room)}
        if done:
            while done:
                yield done.pop().result()
        elif (shard := next(pending, None)) is not None:
            yield make(shard)
        elif running:
            wait(running, return_when=FIRST_COMPLETED)
        else:
            return


def _make_and_write(make: Make, write: Write, shard: Shard) -> MadeShard:
    return write(shard, make(shard))


def _begin_worker() -> None:
    # Ctrl-C reaches every process of a terminal; the first one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A killed parent leaves workers that wait for it forever.
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
