"""Connection to Ray, started here or at an address, and the worker groups that fit on it."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError

import hms_ray
from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.process_state import (
    as_signalled,
    end_without_ray,
    environment,
    interrupt_status,
    log_levels,
    signal_handlers,
)
from hms_ray.distributed.tokens import close_token_file, require_token
from hms_ray.errors import ResourceError, Terminated
from hms_ray.experiment.placement import workers_that_fit
from hms_ray.text import counted

OBJECT_STORE_BYTES = 200 * 2**20
"""For an embedded Ray: workers get paths, not arrays, so the object store holds little."""

CONNECT_TIMEOUT_S = 5.0

SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket."""

LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Path of Ray's own sockets below its temporary folder; process ids have up to 7 digits."""

DRIVER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise Ray warns about changes of its own that do not matter here.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    # Tune's newer output prints a table and a heartbeat even at verbosity 0.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ctrl-C ends the command at once; the fold store and Optuna's journal allow resuming.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's own record of all trials is never read: Optuna's journal has the study's state.
    "TUNE_GLOBAL_CHECKPOINT_S": str(365 * 24 * 3600),
}

LOG_LEVELS = {"ray": logging.ERROR, "ray.tune": logging.CRITICAL}
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Ray's start and Tune's search install handlers of their own."""

EMBEDDED_ENVIRONMENT = {
    # Saves one process per worker group: this machine is not preempted.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray then takes the loopback address for that of its node, as on macOS and Windows, so that
    # its ports are closed to other machines; its processes inherit it.
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
}


@dataclass(frozen=True)
class Node:
    """One machine of a cluster.

    Attributes:
        id: Ray's id of the node.
        host: its name.
        cpus: logical CPUs that Ray assigns.
        gpus: GPUs that Ray assigns.
    """

    id: str
    host: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Cluster:
    """The machines that a run uses.

    Attributes:
        nodes: machines alive at the start.
        embedded: whether this process started Ray itself.
    """

    nodes: tuple[Node, ...]
    embedded: bool

    @property
    def cpus(self) -> float:
        """Logical CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    def __str__(self) -> str:
        where = "this machine" if self.embedded else counted(len(self.nodes), "node")
        return f"{where}: {counted(self.cpus, 'CPU')}, {counted(self.gpus, 'GPU')}"


def n_groups(nodes: Sequence[Node], resources: ResourcesConfig) -> int:
    """How many worker groups fit at once; each worker must fit on one node.

    Args:
        nodes: machines.
        resources: of a group.
    """
    workers = sum(workers_that_fit(node.cpus, node.gpus, resources) for node in nodes)
    return workers // resources.workers


def require_fitting(cluster: Cluster, resources: ResourcesConfig) -> None:
    """Checks that a worker group fits, unless the cluster grows on demand.

    Raises:
        ResourceError: if none fits.
    """
    if n_groups(cluster.nodes, resources) > 0 or resources.autoscale:
        return
    group = f"{counted(resources.workers, 'worker')} with "
    group += f"{counted(resources.cpus_per_worker, 'CPU')} and "
    group += f"{counted(resources.gpus_per_worker, 'GPU')} each"
    raise ResourceError(
        "a worker group must fit on the cluster",
        got=f"{group} on {cluster}",
        fix="Request less with --set resources.workers=N, resources.cpus_per_worker=N or "
        "resources.gpus_per_worker=0, or use a larger cluster with --address.",
    )


def n_concurrent_trials(cluster: Cluster, resources: ResourcesConfig) -> int:
    """Trials that run at once: one more than worker groups, so that each has a next fold.

    Raises:
        ResourceError: if no group fits.
    """
    require_fitting(cluster, resources)
    return resources.max_concurrent_trials or 1 + n_groups_at_most(cluster, resources)


def n_groups_at_most(cluster: Cluster, resources: ResourcesConfig) -> int:
    """Worker groups that a run may have at once, at least 1.

    Args:
        cluster: as it is now; with ``resources.autoscale`` it may grow to ``max_groups``.
        resources: of a group.
    """
    fitting, limit = n_groups(cluster.nodes, resources), resources.max_groups
    if resources.autoscale and limit is not None:
        return limit
    return max(1, min(fitting, limit or fitting))


@contextmanager
def session(address: str | None = None) -> Iterator[Cluster]:
    """A connection to Ray; a Ray started here is shut down at the end.

    After Ctrl-C or SIGTERM its processes end with this one, which does not wait for them.

    Args:
        address: ``host:port`` of a running cluster, or ``auto``; default: a Ray is started
            that only this machine can reach. An existing connection of this process is
            used as it is.

    Raises:
        ResourceError: if no cluster answers at the address.
    """
    with environment(DRIVER_ENVIRONMENT), log_levels(LOG_LEVELS), signal_handlers(SIGNALS):
        if ray.is_initialized():
            yield Cluster(alive_nodes(), embedded=address is None)
            return
        try:
            # Otherwise Ray's own handler of SIGTERM would stay, which dumps stacks.
            with signal_handlers((signal.SIGTERM,)):
                _connect(address)
            yield Cluster(alive_nodes(), embedded=address is None)
        except KeyboardInterrupt as interrupt:
            signalled = as_signalled(interrupt)
            end_without_ray(interrupt_status(signalled))
            raise signalled from None
        except BaseException:
            ray.shutdown()
            raise
        else:
            ray.shutdown()


def check_connection(address: str | None) -> None:
    """Checks within seconds that Ray can be started here, or that a cluster lets this process in.

    Args:
        address: see ``session``.

    Raises:
        ResourceError: if Ray's temporary folder has too long a path for its sockets, or no
            cluster answers with the same token.
    """
    if ray.is_initialized():
        return
    if address is not None:
        _require_listener(address)
        require_token(address)
        return
    # As Ray finds it; on Windows it uses no sockets of this kind.
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108
    longest = SOCKET_PATH_BYTES - len(LONGEST_SOCKET) - 1
    length = len(os.fsencode(folder.rstrip("/")))
    if sys.platform != "win32" and length > longest:
        raise ResourceError(
            f"the path of Ray's temporary folder must have at most {longest} bytes",
            got=f"{length}",
            where=folder,
            fix="Name a shorter one for Ray alone: export RAY_TMPDIR=/tmp",
        )


def _connect(address: str | None) -> None:
    try:
        _init(address)
    except SystemExit as end:
        # What Ray does at SIGTERM while it starts.
        raise Terminated from end


def _init(address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        package = str(Path(hms_ray.__file__).parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        with (
            environment({**EMBEDDED_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}),
            _loopback(),
        ):
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
        close_token_file()
        return
    _require_listener(address)
    require_token(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, TimeoutError, ValueError, AuthenticationError, RuntimeError) as error:
        raise _no_cluster(address, error) from error


@contextmanager
def _loopback() -> Iterator[None]:
    """What the variable does in processes to come: Ray read it when it was imported."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _require_listener(address: str) -> None:
    """Fails at once, where Ray would try for minutes; ``auto`` is left to Ray."""
    if "://" in address:
        raise ResourceError(
            "the address of a cluster must be host:port or auto",
            got=address,
            fix="Run the command on a machine of the cluster, which sees its shared folders.",
        )
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not (colon and host and port.isdigit()):
        raise _no_cluster(address, ValueError("not host:port"))
    _require_private(address, host)
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_cluster(address, error) from None


def _require_private(address: str, host: str) -> None:
    """Refuses a public address, before a token is sent to it.

    Ray does not encrypt, and whoever reads the token on its way can run code on the cluster.
    """
    with suppress(OSError, UnicodeError):
        for *_, found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
            if ipaddress.ip_address(str(found[0]).partition("%")[0]).is_global:
                raise ResourceError(
                    "the address of a cluster must be on a private network or this machine, since "
                    "Ray does not encrypt its token",
                    got=address if host == found[0] else f"{address}, which is {found[0]}",
                    fix="Run the command on a machine of the cluster, with its private address.",
                )


def _no_cluster(address: str, error: Exception) -> ResourceError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return ResourceError(
        "a Ray cluster must answer at the address",
        got=f"{address}: {reason[0].rstrip('.')}",
        fix="Start one with `ray start --head` or `ray up`; cluster/README.md explains its "
        "token (RAY_AUTH_MODE).",
    )


def alive_nodes() -> tuple[Node, ...]:
    """The machines that Ray has now."""
    return tuple(
        Node(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    )
