"""Shards made in this process, in threads or in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection
from typing import Final

from hms_ray.errors import PackError
from hms_ray.pack.make import MadeShard
from hms_ray.pack.plan import Shard
from hms_ray.pack.sources import PackSource

Make = Callable[[Shard], MadeShard]
Mapper = Callable[[Make, Iterable[Shard]], Iterator[MadeShard]]
"""Makes shards somewhere and gives them back in any order. It takes the next shard
when it has room for it, so that only a few are held at once, and raises what
``make`` raises. ``make`` pickles."""

SHARDS_A_WORKER: Final = 2
"""One that is made and one that waits."""


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_process(source: PackSource, workers: int) -> Mapper:
    """The mapper for this machine that suits a source.

    Args:
        source: what is packed.
        workers: shards made at once; 1 makes them in this thread.
    """
    if workers <= 1:
        return _one_by_one
    if source.kind == "recordings":
        return lambda make, shards: _in_threads(make, shards, workers)
    return lambda make, shards: _in_processes(make, shards, workers)


def _one_by_one(make: Make, shards: Iterable[Shard]) -> Iterator[MadeShard]:
    return map(make, shards)


def _in_threads(make: Make, shards: Iterable[Shard], workers: int) -> Iterator[MadeShard]:
    # Arrow and numpy let other threads run while they decode and compute.
    pool = ThreadPoolExecutor(workers, thread_name_prefix="hms-ray-pack")
    try:
        yield from _as_made(pool, make, shards, SHARDS_A_WORKER * workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_processes(make: Make, shards: Iterable[Shard], workers: int) -> Iterator[MadeShard]:
    # A forked child would inherit threads' locks; spawned ones start clean on every system.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
    try:
        yield from _as_made(pool, make, shards, SHARDS_A_WORKER * workers)
    except BrokenProcessPool as error:
        raise PackError(
            "a packing process must live until its work is done",
            got="one that was killed",
            fix="Where memory is short use fewer with --workers N; the same command goes on.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _as_made(
    pool: Executor, make: Make, shards: Iterable[Shard], at_once: int
) -> Iterator[MadeShard]:
    todo = iter(shards)
    running: set[Future[MadeShard]] = {pool.submit(make, shard) for shard in islice(todo, at_once)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        # Before a result is written, so that no worker waits for the disk.
        running |= {pool.submit(make, shard) for shard in islice(todo, len(done))}
        while done:
            yield done.pop().result()


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
