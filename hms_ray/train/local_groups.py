"""Worker groups on this machine without Ray: processes that compute at the same time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import torch
import torch.distributed as dist

from hms_ray.errors import HmsRayError, TrainingError
from hms_ray.pack.worker_pool import WorkerPool
from hms_ray.train.process import Process
from hms_ray.train.torch_settings import torch_threads

T = TypeVar("T")
Wait = Callable[[str], None]
Call = Callable[[Process, Wait], T]
"""Called by every process; the second argument waits until all processes have called it with the
same name."""

POLL_S: Final = 0.01
TIMEOUT_S: Final = 300.0
"""Longest time that processes wait for another one."""
_FAILED: Final = "failed"


@dataclass(frozen=True)
class LocalGroups:
    """Groups of processes on this machine.

    Attributes:
        n_groups: groups at the same time.
        workers: processes (ranks) per group.
        threads: torch threads of each process.
        device: ``cpu``, or ``cuda``, which all groups share.
        windows: see ``Process``.
    """

    n_groups: int = 1
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    windows: Literal["auto", "resident", "streamed"] = "auto"

    def run(self, call: Call[T]) -> list[T]:
        """What rank 0 of every group returns.

        A single process is this one, so that breakpoints work; more are spawned.

        Args:
            call: picklable, and its results too.

        Raises:
            TrainingError: if a process was killed.
            Exception: the first one that a process raised; the others then stop.
        """
        n = self.n_groups * self.workers
        if n == 1:
            with torch_threads(self.threads):
                return [call(self._process(0), _no_wait)]
        with tempfile.TemporaryDirectory(prefix="hms-ray-") as folder, WorkerPool(n) as pool:
            members = [pool.submit(_member, self, place, Path(folder), call) for place in range(n)]
            wait(members)
            errors = [error for one in members if (error := one.exception()) is not None]
            if errors:
                # The others stop because of the first one: they receive its error, or lose a peer.
                first = min(errors, key=_is_consequence)
                if isinstance(first, BrokenProcessPool):
                    raise TrainingError(
                        "processes must not be killed",
                        got=f"one of {n} was, probably for lack of memory",
                        fix="Use fewer at once (a larger resources.cpus_per_worker or "
                        "resources.gpus_per_worker), or a smaller training.batch_size.",
                    ) from first
                raise first
            return [members[group * self.workers].result() for group in range(self.n_groups)]

    def _process(self, rank: int) -> Process:
        return Process(
            rank=rank,
            world_size=self.workers,
            device=torch.device(self.device),
            windows=self.windows,
        )


class _StoppedError(Exception):
    """Another process has failed."""


def _is_consequence(error: BaseException) -> bool:
    return not isinstance(error, HmsRayError)


def _file_store(file: Path, n: int) -> Any:
    store: Any = dist.FileStore  # type: ignore[attr-defined]
    return store(str(file), n)


def _no_wait(name: str) -> None:
    """Nobody to wait for."""


def _member(groups: LocalGroups, place: int, folder: Path, call: Call[T]) -> T:
    """What each process runs; ``place`` counts the processes of all groups."""
    group, rank = divmod(place, groups.workers)
    n = groups.n_groups * groups.workers
    meeting = _file_store(folder / "meeting", n)
    try:
        if groups.workers > 1:
            store = _file_store(folder / f"group-{group}", groups.workers)
            timeout = timedelta(seconds=TIMEOUT_S)
            dist.init_process_group(
                "gloo", store=store, rank=rank, world_size=groups.workers, timeout=timeout
            )
        with torch_threads(groups.threads):
            return call(groups._process(rank), _Meeting(meeting, n))
    except BaseException:
        meeting.set(_FAILED, "")
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


class _Meeting:
    """Waits until all processes are at the same point, or one has failed."""

    def __init__(self, store: Any, n: int) -> None:
        self._store, self._n = store, n

    def __call__(self, name: str) -> None:
        if self._store.add(name, 1) == self._n:
            self._store.set(f"{name} reached", "")
        end = time.monotonic() + TIMEOUT_S
        while not self._store.check([f"{name} reached"]):
            if self._store.check([_FAILED]) or time.monotonic() > end:
                raise _StoppedError
            time.sleep(POLL_S)
