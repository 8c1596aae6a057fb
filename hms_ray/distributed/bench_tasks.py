"""A bench on a cluster: one task on one node of each kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.cluster import Cluster, Node, n_groups_at_most, require_fitting, session
from hms_ray.distributed.nodes import check_nodes
from hms_ray.errors import ResourceError
from hms_ray.experiment.bench import BenchJob, MachineSpeed, local_machine, measure_machine
from hms_ray.experiment.placement import workers_that_fit
from hms_ray.text import counted


def measure_on_cluster(job: BenchJob, *, address: str) -> tuple[list[MachineSpeed], int]:
    """Measures a job on one node of each kind that a worker fits on.

    A task requests all CPUs of its node, and one of its GPUs if workers have any, so that
    nothing else runs there meanwhile; processes of the task are those of worker groups.

    Args:
        job: what is measured.
        address: of a running Ray cluster.

    Returns:
        Speeds by kind of node, and the worker groups at once on the whole cluster.

    Raises:
        ResourceError: if no cluster answers, no group fits, or a node fails its check.
        HmsRayError: as training.
    """
    with session(address) as cluster:
        require_fitting(cluster, job.resources)
        slots = n_groups_at_most(cluster, job.resources)
        packs = [pack.path for pack in job.prepared.packs.values()]
        check_nodes(cluster, [job.prepared.rows_file, *packs])
        kinds = _kinds(cluster, job.resources)
        if not kinds:
            raise ResourceError(
                "a worker must fit on a node",
                got=str(cluster),
                fix="Request less with --set resources.cpus_per_worker=N, or use larger machines.",
            )
        tasks = [_start(job, nodes[0], name) for name, nodes in kinds.items()]
        speeds = []
        for task, nodes in zip(tasks, kinds.values(), strict=True):
            try:
                found: MachineSpeed = ray.get(task)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            speeds.append(replace(found, n_machines=len(nodes), local=False))
        return speeds, slots


def _kinds(cluster: Cluster, resources: ResourcesConfig) -> dict[str, list[Node]]:
    """Name of a kind -> its nodes; equal CPUs, GPUs and type of GPU are one kind."""
    types = {
        node["NodeID"]: next(
            (name.split(":")[1] for name in node["Resources"] if name.startswith("accelerator")),
            "",
        )
        for node in ray.nodes()
    }
    kinds: dict[str, list[Node]] = {}
    for node in cluster.nodes:
        if workers_that_fit(node.cpus, node.gpus, resources) < 1:
            continue
        name = counted(node.cpus, "CPU")
        if node.gpus:
            name += f", {counted(node.gpus, 'GPU')} {types[node.id]}".rstrip()
        kinds.setdefault(name, []).append(node)
    return kinds


def machine_kinds(cluster: Cluster, resources: ResourcesConfig) -> dict[str, int]:
    """Kind of machine -> how many a cluster has, named as by a bench there.

    Only machines that a worker fits on count.
    """
    if cluster.embedded:
        return {local_machine(cluster.cpus, cluster.gpus): 1}
    return {name: len(nodes) for name, nodes in _kinds(cluster, resources).items()}


def _start(job: BenchJob, node: Node, name: str) -> Any:
    task = ray.remote(num_cpus=node.cpus, max_retries=0)(measure_machine)
    return task.options(
        num_gpus=1 if job.resources.gpus_per_worker else 0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
    ).remote(job, node.cpus, node.gpus, name)
