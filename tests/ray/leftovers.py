"""What a fault could leave behind: placement groups, actors, processes, drafts and locks."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray

from hms_ray.storage.drafts import DRAFT_PREFIX
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.locks import running_since
from hms_ray.storage.resume_folder import RESUME

TIMEOUT_S = 30.0
ACTORS = {"TrainController": "controller", "RayTrainWorker": "worker"}


def nothing_left(results: Path, *, groups: int = 0, workers: int = 0) -> None:
    """Waits until only the worker groups that run on purpose are there, and fails without end.

    Args:
        results: folder whose store must hold no draft, no checkpoint and no lock.
        groups: worker groups of this job that run.
        workers: of each.
    """
    expected: dict[str, Any] = {"placement groups": groups, "files": []}
    for kind in ("actors", "processes"):
        expected[f"controller {kind}"], expected[f"worker {kind}"] = groups, groups * workers
    end = time.monotonic() + TIMEOUT_S
    while (found := {**in_ray(), "files": in_folder(results)}) != expected:
        assert time.monotonic() < end, {
            name: (found[name], expected[name])
            for name in expected
            if found[name] != expected[name]
        }
        time.sleep(0.2)


def in_folder(results: Path) -> list[Path]:
    """Drafts, held locks, checkpoints of stored folds and scratch files below a results folder.

    The checkpoint of a fold that failed stays: it resumes if it is retried.
    """
    store = FoldStore(results)
    drafts = list(results.rglob(f"{DRAFT_PREFIX}*"))
    resumes = list((store.root / RESUME).glob("*"))
    folders = [path for path in results.glob("*") if path.is_dir()]
    locked = [path for path in folders + resumes if running_since(path) is not None]
    scratch = [path for folder in folders for path in (folder / ".ray").glob("*")]
    return drafts + locked + scratch + [path for path in resumes if store.has(path.name)]


def in_ray() -> dict[str, int]:
    """Placement groups, actors and processes of the worker groups of this process."""
    from ray._private.state import state

    accessor = state._connect_and_get_accessor()
    found = _in_tables(accessor, ray.get_runtime_context().get_job_id())
    titles = [title for node in ray.nodes() if node["Alive"] for title in _titles(node)]
    for name, word in ACTORS.items():
        found[f"{word} processes"] = sum(title.startswith(f"ray::{name}") for title in titles)
    return found


def in_cluster(address: str) -> dict[str, int]:
    """The same of all jobs of a cluster, to which this process need not be connected."""
    from ray._raylet import GcsClientOptions, GlobalStateAccessor

    options = GcsClientOptions.create(
        address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
    )
    accessor = GlobalStateAccessor(options)
    accessor.connect()
    return _in_tables(accessor, None)


def _in_tables(accessor: Any, job: str | None) -> dict[str, int]:
    from ray.core.generated import gcs_pb2

    table: Any = gcs_pb2.PlacementGroupTableData
    groups = [table.FromString(raw) for raw in accessor.get_placement_group_table()]
    found = {
        "placement groups": sum(
            job in (None, group.creator_job_id.hex())
            and group.state != table.REMOVED
            # Tune's own groups have no creator actor: its id is all ones.
            and (job is None or group.creator_actor_id.strip(b"\xff") != b"")
            for group in groups
        )
    }
    kind: Any = gcs_pb2.ActorTableData
    actors = [kind.FromString(raw) for raw in accessor.get_actor_table(None, None)]
    actors = [actor for actor in actors if actor.state != kind.DEAD]
    # Ray keeps one for the whole cluster.
    actors = [actor for actor in actors if actor.class_name != "_AutoscalingCoordinatorActor"]
    if job is None:
        return {**found, **Counter(f"actor {actor.class_name}" for actor in actors)}
    for name, word in ACTORS.items():
        found[f"{word} actors"] = sum(
            actor.job_id.hex() == job and actor.class_name == name for actor in actors
        )
    return found


def _titles(node: dict[str, Any]) -> list[str]:
    """Titles of the processes that a node of this machine has started."""
    titles = []
    for process in psutil.process_iter(["name", "cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if process.info["name"] != "raylet" or node["NodeID"] not in command:
            continue
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    titles.append(" ".join(child.cmdline()))
    return titles
