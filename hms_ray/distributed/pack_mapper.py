"""Packing on a cluster: Ray tasks make shards, the command writes them."""

from __future__ import annotations

import logging
import socket
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
from hms_ray.errors import HmsRayError, PackError, ResourceError, one_line
from hms_ray.pack.make import MadeShard
from hms_ray.pack.parallel import SHARDS_PER_WORKER, Make, Mapper
from hms_ray.pack.plan import Shard

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 60.0
_MAX_RETRIES: Final = 3
"""Retries of a shard whose node was lost."""


@contextmanager
def ray_mapper(address: str | None, folder: Path) -> Iterator[Mapper]:
    """A mapper that makes shards on every CPU of a cluster.

    Args:
        address: of a running cluster; default: a Ray is started here.
        folder: competition folder; every node must see it under this path.

    Raises:
        ResourceError: if no cluster answers, or a node has another version or does not
            see the folder.
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
        cluster: its CPUs limit how many tasks run at once.
        folder: competition folder, absolute.
        make: shard -> its content; may raise ``HmsRayError``.
        shards: taken one by one when a task can start.

    Raises:
        HmsRayError: raised by ``make``.
        PackError: if a node does not see the folder, or a task failed otherwise.
        ResourceError: if a shard's node was lost more often than it is retried.
    """
    at_once = SHARDS_PER_WORKER * max(1, int(cluster.cpus))
    task = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)(_make_there)
    shared = ray.put(make)
    pending = iter(shards)
    running: dict[Any, Shard] = {}

    def start(n: int) -> None:
        for shard in islice(pending, n):
            running[task.remote(str(folder), shared, _with_absolute_paths(shard))] = shard

    try:
        start(at_once)
        warned = False
        while running:
            ready, _ = ray.wait(list(running), num_returns=1, timeout=_PATIENCE_S)
            if not ready:
                if not warned:
                    logger.warning(
                        "no shard for %g s; check with `ray status` whether other jobs use the "
                        "cluster's CPUs",
                        _PATIENCE_S,
                    )
                warned = True
                continue
            reference = ready[0]
            shard = running.pop(reference)
            # Started before this result is written, so that no node waits for the disk.
            start(1)
            yield _made(reference, shard)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _with_absolute_paths(shard: Shard) -> Shard:
    """A shard that a process in another working directory can read."""
    files = {item.file: None for item in shard.items}
    absolute = {file: replace(file, path=file.path.resolve()) for file in files}
    items = tuple(replace(item, file=absolute[item.file]) for item in shard.items)
    return replace(shard, items=items)


def _make_there(folder: str, make: Make, shard: Shard) -> MadeShard | HmsRayError:
    """Runs on a node. Returns an ``HmsRayError``, which Ray would retry or wrap if raised."""
    if not Path(folder).is_dir():
        return PackError(
            "every node must see the competition folder under the same path",
            got=f"no such folder on {socket.gethostname()}",
            where=folder,
            fix="Keep it on a shared file system (see cluster/README.md).",
        )
    try:
        return make(shard)
    except HmsRayError as error:
        return error


def _made(reference: Any, shard: Shard) -> MadeShard:
    try:
        made = ray.get(reference)
    except RayTaskError as error:
        raise PackError(
            "the task of a shard must not fail",
            got=one_line(error.cause),
            where=f"shard {shard.number}",
        ) from error
    except RayError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ResourceError(
            f"a shard must be made within {1 + _MAX_RETRIES} attempts",
            got=reason[0],
            where=f"shard {shard.number}",
            fix="Check the cluster's nodes and memory, then run the same command to continue.",
        ) from error
    if isinstance(made, HmsRayError):
        raise made
    result: MadeShard = made
    return result
