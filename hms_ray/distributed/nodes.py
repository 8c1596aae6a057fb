"""Checks of a cluster's nodes before a run: version, visible files, bfloat16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import hms_ray
from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.cluster import Cluster, Node
from hms_ray.errors import ResourceError, one_line
from hms_ray.train.versions import key_versions

NODE_TIMEOUT_S = 120.0
"""A node must start a first process and answer within this time."""


def check_nodes(cluster: Cluster, paths: Sequence[Path]) -> None:
    """Checks that every node has this version and sees the files of the run.

    On an embedded Ray, workers must also import the very package of this command: the folder
    in which it was started may hold another copy.

    Args:
        cluster: where the run is.
        paths: files and folders that trials and workers open.

    Raises:
        ResourceError: with the nodes that fail the check.
    """
    answers = _call_on_nodes(cluster.nodes, _describe_node, [str(path) for path in paths])
    if cluster.embedded:
        _require_this_package(answers)
        return
    wanted = _versions()
    faults = []
    for node in cluster.nodes:
        answer = answers[node.id]
        if isinstance(answer, RayError):
            faults.append(f"{node.host} cannot import it")
            continue
        found, missing, _ = answer
        others = [f"{name} {found[name]}" for name in wanted if found[name] != wanted[name]]
        if others:
            faults.append(f"{node.host} has {', '.join(others)}")
        elif missing:
            faults.append(f"{node.host} does not see {missing[0]}")
    if faults:
        versions = ", ".join(f"{name} {version}" for name, version in wanted.items())
        raise ResourceError(
            f"every node must have {versions} and see the study's files",
            got="; ".join(faults),
            fix="Install the same version on all nodes, and keep data and results on a shared "
            "file system (see cluster/README.md).",
        )


def has_bfloat16(cluster: Cluster, resources: ResourcesConfig) -> bool:
    """Whether every GPU that a run may use has bfloat16; False if it uses none."""
    if resources.gpus_per_worker == 0:
        return False
    with_gpus = [node for node in cluster.nodes if node.gpus > 0]
    answers = _call_on_nodes(with_gpus, _gpu_has_bfloat16, num_gpus=0.001)
    return all(answer is True for answer in answers.values())


def _call_on_nodes(
    nodes: Sequence[Node], function: Any, *arguments: Any, num_gpus: float = 0
) -> Mapping[str, Any]:
    """Calls a function on every node: node id -> its result or its error."""
    remote = ray.remote(num_cpus=0, num_gpus=num_gpus, max_retries=1)(function)
    references = {
        node.id: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(*arguments)
        for node in nodes
    }
    answers: dict[str, Any] = {}
    for node in nodes:
        try:
            answers[node.id] = ray.get(references[node.id], timeout=NODE_TIMEOUT_S)
        except GetTimeoutError:
            raise ResourceError(
                f"every node must answer within {NODE_TIMEOUT_S:g} s",
                got=f"nothing from {node.host}",
                fix="Check with `ray status` whether another job uses its GPUs.",
            ) from None
        except RayError as error:
            answers[node.id] = error
    return answers


def _require_this_package(answers: Mapping[str, Any]) -> None:
    for answer in answers.values():
        if isinstance(answer, RayError):
            raise ResourceError(
                "Ray's workers must import hms_ray",
                got=one_line(answer),
                fix="Read Ray's logs, in /tmp/ray/session_latest/logs.",
            )
        if answer[2] != _package():
            raise ResourceError(
                f"Ray's workers must import hms_ray from {_package()}, as this command does",
                got=answer[2],
                fix="Run the command in another folder, or without that copy in PYTHONPATH.",
            )


def _describe_node(paths: list[str]) -> tuple[dict[str, str], list[str], str]:
    return _versions(), [path for path in paths if not Path(path).exists()], _package()


def _package() -> str:
    """Folder of the package that this process has imported."""
    return str(Path(hms_ray.__file__).resolve().parent)


def _versions() -> dict[str, str]:
    """What all nodes must have in common, without importing torch; workers check CUDA."""
    return {"hms_ray": hms_ray.__version__, **key_versions("cpu")}


def _gpu_has_bfloat16() -> bool:
    import torch

    from hms_ray.train import score

    return score.has_bfloat16(torch.device("cuda"))
