"""What the benchmark of random kills kills and watches: a cluster, and its workers' logs."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import hms_ray.distributed.cluster  # noqa: F401 - imports ray with tokens, which has a psutil

# isort: split
import psutil

TIME = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z"
STARTED = re.compile(rf"{TIME} .*fold started on .*cache key (\w+)")
EVALUATED = re.compile(rf"{TIME} .*rank 0\] stage \w+ epoch ([\d.]+): KL all")


class Site:
    """A cluster on this machine with one CPU.

    Args:
        with_node: whether a node has it, beside the head.
    """

    def __init__(self, *, with_node: bool) -> None:
        from ray.cluster_utils import Cluster

        n_cpus = 0 if with_node else 1
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": n_cpus})
        self._node = self._cluster.add_node(num_cpus=1) if with_node else None
        self.address = str(self._cluster.address)

    def replace_node(self) -> None:
        """Kills all processes of the node; another one joins."""
        self._cluster.remove_node(self._node, allow_graceful=False)
        self._node = self._cluster.add_node(num_cpus=1)

    def processes(self, title: str) -> list[psutil.Process]:
        """Processes of Ray whose titles begin like this."""
        found = []
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                words = child.cmdline() if child.status() != psutil.STATUS_ZOMBIE else []
                if words and words[0].startswith(title):
                    found.append(child)
        return found

    def kill(self) -> None:
        """Kills all processes of all machines at once."""
        self._kill_children()
        self._cluster.shutdown()

    def _kill_children(self) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "hms_ray" not in " ".join(child.cmdline()):
                    child.kill()

    def stop(self) -> None:
        """Ends the cluster."""
        self._cluster.shutdown()


def kill_process(process: psutil.Process) -> None:
    """Kills a process, unless it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        process.kill()


@dataclass
class Logs:
    """What the logs of all workers say.

    Attributes:
        folder: of the logs.
        starts: time and cache key of each start of a training.
        evaluations: time, cache key and epoch of each, and the time of its training's start.
    """

    folder: Path
    starts: list[tuple[float, str]] = field(default_factory=list)
    evaluations: list[tuple[float, str, float, float]] = field(default_factory=list)

    def read(self) -> Logs:
        self.starts, self.evaluations = [], []
        for file in self.folder.glob("*.txt"):
            key, started = "", 0.0
            for line in file.read_text(errors="replace").splitlines():
                if found := STARTED.match(line):
                    key, started = found[2], _seconds(found[1])
                    self.starts.append((started, key))
                elif found := EVALUATED.match(line):
                    epoch = float(found[2])
                    self.evaluations.append((_seconds(found[1]), key, epoch, started))
        return self

    def n_different(self) -> int:
        return len({(key, epoch) for _, key, epoch, _ in self.evaluations})


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
