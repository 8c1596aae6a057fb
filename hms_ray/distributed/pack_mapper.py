"""Packing on a cluster: shards made by Ray tasks, written by the command."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError, RayTaskError

from hms_ray.distributed.cluster import Cluster, session
from hms_ray.distributed.nodes import check_nodes
from hms_ray.errors import HmsRayError, PackError, ResourceError
from hms_ray.pack.make import MadeShard
from hms_ray.pack.parallel import SHARDS_A_WORKER, Make, Mapper
from hms_ray.pack.plan import Shard

_SILENCE_S: Final = 60.0
_WAITING: Final = "no shard for a minute: `ray status` tells whether the cluster's CPUs are taken"
_RETRIES: Final = 3
"""Further attempts of a shard whose node was lost."""


@contextmanager
def ray_mapper(address: str | None, folder: Path) -> Iterator[Mapper]:
    """A mapper that makes shards on every CPU of a cluster.

    Args:
        address: of a running cluster; without one a Ray is started here.
        folder: competition folder; every node must see it under this path.

    Raises:
        ResourceError: no cluster answers, or a node has another version or does
            not see the folder.
    """
    folder = folder.resolve()
    with session(address) as cluster:
        check_nodes(cluster, [folder])
        yield partial(map_on_ray, cluster, folder)


def map_on_ray(
    cluster: Cluster, folder: Path, make: Make, shards: Iterable[Shard]
) -> Iterator[MadeShard]:
    """Makes shards as tasks, in any order; see ``parallel.Mapper``.

    Args:
        cluster: says how many tasks run at once.
        folder: competition folder, absolute.
        make: shard -> its content; raises ``HmsRayError``.
        shards: taken one by one as there is room for them.

    Raises:
        HmsRayError: what ``make`` raised.
        PackError: a node does not see the folder, or a task failed otherwise.
        ResourceError: a shard's node was lost again and again.
    """
    at_once = SHARDS_A_WORKER * max(1, int(cluster.cpus))
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_make_there)
    shared = ray.put(make)
    pending = iter(shards)
    running: dict[Any, Shard] = {}

    def start(n: int) -> None:
        for shard in islice(pending, n):
            running[task.remote(str(folder), shared, _with_absolute_paths(shard))] = shard

    try:
        start(at_once)
        told = False
        while running:
            ready, _ = ray.wait(list(running), num_returns=1, timeout=_SILENCE_S)
            if not ready:
                if not told:
                    print(_WAITING, file=sys.stderr, flush=True)
                told = True
                continue
            reference = ready[0]
            shard = running.pop(reference)
            # Before a result is written, so that no node waits for the disk.
            start(1)
            yield _made(reference, shard)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _with_absolute_paths(shard: Shard) -> Shard:
    """A shard that a process in another directory can read."""
    files = {item.file: None for item in shard.items}
    absolute = {file: replace(file, path=file.path.resolve()) for file in files}
    items = tuple(replace(item, file=absolute[item.file]) for item in shard.items)
    return replace(shard, items=items)


def _make_there(folder: str, make: Make, shard: Shard) -> MadeShard | HmsRayError:
    """Runs on a node. An error of ours is a result: Ray would try it again or wrap it."""
    if not Path(folder).is_dir():
        return PackError(
            "every node must see the competition folder under the same path",
            got=f"no such folder on {socket.gethostname()}",
            where=folder,
            fix="Keep it on a shared file system, as cluster/README.md says.",
        )
    try:
        return make(shard)
    except HmsRayError as error:
        return error


def _made(reference: Any, shard: Shard) -> MadeShard:
    try:
        made = ray.get(reference)
    except RayTaskError as error:
        last = str(error.cause).strip().splitlines()[-1:]
        told = ": ".join([type(error.cause).__name__, *last])
        raise PackError(
            "a shard must be made by its task", got=told, where=f"shard {shard.number}"
        ) from error
    except RayError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ResourceError(
            f"a shard must be made within {1 + _RETRIES} attempts",
            got=reason[0],
            where=f"shard {shard.number}",
            fix="Look after the cluster's nodes and memory; the same command goes on.",
        ) from error
    if isinstance(made, HmsRayError):
        raise made
    result: MadeShard = made
    return result
