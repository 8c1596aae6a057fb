"""Who holds the resources of a cluster, by what every Ray knows, one without a dashboard too.

This uses calls that Ray does not publish; in a version without them the holders are unknown.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.group_resources import worker_resources
from hms_ray.storage.run_log import FaultLog
from hms_ray.text import counted, shortened_list

logger = logging.getLogger(__name__)

SHOWN_JOBS: Final = 3
COMMAND_WORDS: Final = 2
"""Later words of another user's command may be anything, such as a password."""
_faults = FaultLog(logger)


@dataclass(frozen=True)
class Holders:
    """Who holds which resources now, by Ray's names of resources.

    Attributes:
        total: of all machines that are alive.
        free: of them.
        held: by placement groups and actors: a job, in words -> what it holds.
        n_pending: worker groups of this run that wait for resources.
    """

    total: Mapping[str, float]
    free: Mapping[str, float]
    held: Mapping[str, Mapping[str, float]]
    n_pending: int


def wait_reason(resources: ResourcesConfig) -> str:
    """Why a worker group has not started, in words; empty if that is unknown.

    Args:
        resources: of the group.
    """
    with _faults("holders of resources are unknown"):
        return describe(read_holders(), list(worker_resources(resources)))
    return ""


def describe(holders: Holders, names: Sequence[str]) -> str:
    """What is free and who holds the rest.

    Args:
        holders: see ``read_holders``.
        names: of the resources to describe.
    """
    if not holders.n_pending:
        return "its processes are being started"
    free = []
    for name in names:
        total = holders.total.get(name, 0.0)
        amount = min(holders.free.get(name, 0.0), total)
        free.append(f"{amount:g} of {counted(total, name)} free")
    rest = {
        name: holders.total.get(name, 0.0)
        - holders.free.get(name, 0.0)
        - sum(amounts.get(name, 0.0) for amounts in holders.held.values())
        for name in names
    }
    held = {**holders.held, "tasks of other jobs, or what ends now": rest}
    parts = [
        f"{owner}: {amounts}"
        for owner, found in held.items()
        if (amounts := _amounts({name: found.get(name, 0.0) for name in names}))
    ]
    text = " and ".join(free)
    return f"{text}; held by {shortened_list(parts, SHOWN_JOBS, '; ')}" if parts else text


def _amounts(found: Mapping[str, float]) -> str:
    # Ray counts in steps of 0.0001.
    return " and ".join(counted(n, name) for name, n in found.items() if n > 1e-3)


def read_holders() -> Holders:
    """Who holds what, by Ray's tables.

    Raises:
        ImportError, AttributeError, TypeError: if Ray has no such table.
    """
    from ray._private.state import state
    from ray.core.generated import gcs_pb2

    accessor = state._connect_and_get_accessor()
    own = ray.get_runtime_context().get_job_id()
    groups: Any = gcs_pb2.PlacementGroupTableData
    actors: Any = gcs_pb2.ActorTableData
    held: dict[str, Counter[str]] = {}
    n_pending = 0
    for raw in accessor.get_placement_group_table():
        group = groups.FromString(raw)
        job = group.creator_job_id.hex()
        if group.state in (groups.PENDING, groups.RESCHEDULING):
            # Tune's own groups have no creator actor: its id is all ones.
            n_pending += job == own and group.creator_actor_id.strip(b"\xff") != b""
        elif group.state != groups.REMOVED:
            for bundle in group.bundles:
                held.setdefault(job, Counter()).update(dict(bundle.unit_resources))
    for raw in accessor.get_actor_table(None, None):
        actor = actors.FromString(raw)
        # The resources of one in a placement group are the group's.
        if actor.state == actors.ALIVE and not actor.placement_group_id.strip(b"\xff"):
            held.setdefault(actor.job_id.hex(), Counter()).update(dict(actor.required_resources))
    commands = {job["JobID"]: _in_words(job) for job in state.job_table()}
    commands[own] = "this run"
    total: Counter[str] = Counter()
    for node in ray.nodes():
        if node["Alive"]:
            total.update(node["Resources"])
    free: Counter[str] = Counter()
    for amounts in state.available_resources_per_node().values():
        free.update(amounts)
    named = {commands.get(job, f"job {job}"): dict(amounts) for job, amounts in held.items()}
    return Holders(dict(total), dict(free), named, n_pending)


def _in_words(job: Mapping[str, Any]) -> str:
    words = [word for word in str(job.get("Entrypoint", "")).split() if "=" not in word]
    command = " ".join(words[:COMMAND_WORDS])
    command = f"{command}, " if command else ""
    return f"job {job['JobID']} ({command}pid {job['DriverPid']} on {job['DriverIPAddress']})"
