import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ray.exceptions import RayError

import hms_ray
from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed import cluster, nodes, process_state
from hms_ray.distributed.cluster import (
    LONGEST_SOCKET,
    Cluster,
    Node,
    check_connection,
    n_concurrent_trials,
    n_groups,
    session,
)
from hms_ray.distributed.group_resources import placement, worker_resources
from hms_ray.distributed.process_state import environment
from hms_ray.errors import ResourceError, Terminated
from tests.refused import refusal

PACKAGE = Path(hms_ray.__file__).parent


def node(cpus: float, gpus: float = 0) -> Node:
    return Node(id=f"{cpus}-{gpus}", host="host", cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    ("nodes", "resources", "groups"),
    [
        ([node(2)], {}, 2),
        ([node(2)], {"workers": 2}, 1),
        ([node(2)], {"workers": 3}, 0),
        ([node(2)], {"cpus_per_worker": 4}, 0),
        # 0.1 + 0.1 + 0.1 is a little more than 0.3, ten times 0.1 is 1.
        ([node(1)], {"cpus_per_worker": 0.1}, 10),
        # Workers of a group may lie on several nodes, one worker may not.
        ([node(3), node(3)], {"workers": 3, "cpus_per_worker": 2}, 0),
        ([node(3), node(3)], {"workers": 2, "cpus_per_worker": 2}, 1),
        # GPUs decide where CPUs are plenty, and the other way round.
        ([node(64, 4)], {"gpus_per_worker": 1}, 4),
        ([node(64, 4)], {"gpus_per_worker": 0.5, "workers": 2}, 4),
        ([node(2, 8)], {"gpus_per_worker": 1}, 2),
        # The head of a cluster often has no GPU.
        ([node(8), node(8, 2)], {"gpus_per_worker": 1}, 2),
    ],
)
def test_number_of_groups_that_fit(nodes: list[Node], resources: dict, groups: int) -> None:
    assert n_groups(nodes, ResourcesConfig(**resources)) == groups


def test_concurrent_trials_are_limited_by_cluster_and_configuration() -> None:
    cluster = Cluster((node(8),), embedded=True)
    assert n_concurrent_trials(cluster, ResourcesConfig(workers=2)) == 5
    assert n_concurrent_trials(cluster, ResourcesConfig(workers=2, max_groups=2)) == 3
    assert n_concurrent_trials(cluster, ResourcesConfig(workers=2, max_concurrent_trials=3)) == 3
    grows = ResourcesConfig(workers=9, autoscale=True, max_groups=6)
    assert n_concurrent_trials(cluster, grows) == 7
    assert n_concurrent_trials(cluster, ResourcesConfig(workers=9, autoscale=True)) == 2


@pytest.mark.parametrize(
    ("gpus", "share", "workers"),
    [(2, 0.6, 2), (4, 0.6, 4), (2, 0.5, 4), (1, 1 / 3, 3), (0.5, 1, 0)],
)
def test_fraction_of_a_gpu_fits_on_one_device(gpus: float, share: float, workers: int) -> None:
    resources = ResourcesConfig(gpus_per_worker=share)
    assert n_groups([node(64, gpus)], resources) == workers


def test_gpus_are_a_whole_number_or_a_fraction_below_one() -> None:
    with pytest.raises(ValueError, match=r"a whole number or a fraction of one GPU, got 1\.5"):
        ResourcesConfig(gpus_per_worker=1.5)
    assert ResourcesConfig(gpus_per_worker=2).gpus_per_worker == 2


def test_group_that_fits_nowhere_is_an_error_with_request_and_cluster() -> None:
    cluster = Cluster((node(8), node(8)), embedded=False)
    with pytest.raises(ResourceError, match="a worker group must fit") as caught:
        n_concurrent_trials(cluster, ResourcesConfig(workers=2, gpus_per_worker=1))
    assert "got 2 workers with 1 CPU and 1 GPU each on 2 nodes: 16 CPUs, 0 GPUs" in str(
        caught.value
    )
    assert "resources.gpus_per_worker=0" in str(caught.value)


def test_worker_without_gpu_requests_none() -> None:
    assert worker_resources(ResourcesConfig(cpus_per_worker=2)) == {"CPU": 2.0}
    assert worker_resources(ResourcesConfig(gpus_per_worker=0.5)) == {"CPU": 1.0, "GPU": 0.5}


def test_placement_follows_the_resources() -> None:
    assert placement(ResourcesConfig(workers=2)).device_class == "cpu"
    on_gpu = placement(ResourcesConfig(workers=2, gpus_per_worker=1), bfloat16=True)
    assert (on_gpu.world_size, on_gpu.device_class, on_gpu.bfloat16) == (2, "cuda", True)


# Half a gigabyte in each process of a trial and in that of the queue.
HEAVY = """
import sys
import hms_ray.distributed.queue_actor, hms_ray.sweep.trial_actor
print(sorted({"torch", "ray.train.torch", "timm"} & sys.modules.keys()))
"""


def test_processes_that_do_not_train_import_no_torch() -> None:
    command = [sys.executable, "-c", HEAVY]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.splitlines()[-1] == "[]"


def test_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMS_TEST_SET", "before")
    monkeypatch.delenv("HMS_TEST_UNSET", raising=False)
    with environment({"HMS_TEST_SET": "inside", "HMS_TEST_UNSET": "inside"}):
        assert os.environ["HMS_TEST_SET"] == os.environ["HMS_TEST_UNSET"] == "inside"
    assert os.environ["HMS_TEST_SET"] == "before"
    assert "HMS_TEST_UNSET" not in os.environ


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_too_long_temporary_path_is_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, "/" + 39 * "t")
    with refusal(ResourceError, "at most 39 bytes", got="40", where="/ttt", fix="RAY_TMPDIR=/tmp"):
        check_connection(None)
    monkeypatch.setenv(variable, "/" + 38 * "t" + "/")
    check_connection(None)


def test_longest_temporary_path_is_rays_own_limit() -> None:
    from ray._private.utils import validate_socket_filepath

    below = f"/{LONGEST_SOCKET}"
    validate_socket_filepath("/" + 38 * "t" + below)
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath("/" + 39 * "t" + below)


@pytest.mark.parametrize(
    ("address", "rule", "got"),
    [
        ("ray://head:10001", "must be host:port or auto", "ray://head:10001"),
        ("head", "a Ray cluster must answer", "head: not host:port"),
        ("127.0.0.1:1", "a Ray cluster must answer", "127.0.0.1:1: "),
    ],
)
def test_cluster_that_does_not_answer_is_refused_first(address: str, rule: str, got: str) -> None:
    with refusal(ResourceError, rule, got=got, fix="of the cluster" if "://" in address else "up"):
        check_connection(address)


def test_session_leaves_log_levels_signals_and_environment_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("ray", "ray.tune")

    def state() -> list[object]:
        levels = [logging.getLogger(name).level for name in names]
        return [*levels, signal.getsignal(signal.SIGTERM), dict(os.environ)]

    def connect(address: str | None) -> None:
        # As ``ray.init`` does.
        logging.getLogger("ray").setLevel(logging.FATAL)
        signal.signal(signal.SIGTERM, lambda *_: None)

    monkeypatch.setattr(cluster, "_connect", connect)
    monkeypatch.setattr(cluster, "alive_nodes", lambda: (node(2),))
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(logging.getLogger("ray.tune"), "level", logging.INFO)
    before = state()
    with session():
        assert logging.getLogger("ray.tune").level == logging.CRITICAL
        assert state() != before
        assert signal.getsignal(signal.SIGTERM) == before[2], "not Ray's, which dumps stacks"
    assert state() == before


def test_sigterm_while_ray_starts_ends_the_command_as_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*_: object, **__: object) -> None:
        # Ray's own handler.
        sys.exit(signal.SIGTERM)

    statuses: list[int] = []
    monkeypatch.setattr(process_state, "_first", None)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", start)
    monkeypatch.setattr(cluster, "end_without_ray", statuses.append)
    with pytest.raises(Terminated), session():
        pass
    # Ray's own calls raise another error than the handler.
    monkeypatch.setattr(cluster.ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(cluster, "alive_nodes", lambda: (node(2),))
    monkeypatch.setattr(process_state, "_first", Terminated())
    with pytest.raises(Terminated), session():
        raise KeyboardInterrupt
    assert statuses == [143, 143]


@pytest.mark.parametrize(
    ("changed", "missing", "got"),
    [
        ({"torch": "2.10"}, [], "host has torch 2.10"),
        ({"hms_ray": "0.0", "timm": "0.9"}, ["/data"], "host has hms_ray 0.0, timm 0.9"),
        ({}, ["/data"], "host does not see /data"),
    ],
)
def test_nodes_must_have_the_versions_of_the_driver(
    changed: dict[str, str],
    missing: list[str],
    got: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = nodes._describe_node([])[0]
    answer = {**here, **changed}, missing, "elsewhere"
    monkeypatch.setattr(nodes, "_call_on_nodes", lambda called, *_: {called[0].id: answer})
    with refusal(ResourceError, f"torch {here['torch']}", got=got, fix="same version"):
        nodes.check_nodes(Cluster((node(2),), embedded=False), [])


@pytest.mark.parametrize(
    ("answer", "rule", "got", "fix"),
    [
        (({}, [], "/other/hms_ray"), f"from {PACKAGE}, as", "/other/hms_ray", "another folder"),
        (RayError("No module named hms_ray"), "must import hms_ray", "No module", "Ray's logs"),
    ],
)
def test_an_embedded_ray_must_import_the_package_of_the_command(
    answer: object, rule: str, got: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = Cluster((node(2),), embedded=True)
    monkeypatch.setattr(nodes, "_call_on_nodes", lambda called, *_: {called[0].id: answer})
    with refusal(ResourceError, rule, got=got, fix=fix):
        nodes.check_nodes(embedded, [])
    here = nodes._describe_node([])
    monkeypatch.setattr(nodes, "_call_on_nodes", lambda called, *_: {called[0].id: here})
    nodes.check_nodes(embedded, [])


@pytest.mark.parametrize(
    ("address", "found", "got"),
    [
        ("8.8.8.8:6379", "8.8.8.8", "8.8.8.8:6379"),
        ("head.example.org:6379", "8.8.8.8", "head.example.org:6379, which is 8.8.8.8"),
        ("head.example.org:6379", "2606:4700::1111", "which is 2606:4700::1111"),
    ],
)
def test_public_address_is_refused_before_it_is_contacted(
    address: str, found: str, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a public address was contacted")

    monkeypatch.setattr(cluster.socket, "create_connection", connect)
    resolved = [(0, 0, 0, "", (found, 0))]
    monkeypatch.setattr(cluster.socket, "getaddrinfo", lambda *_, **__: resolved)
    with refusal(ResourceError, "on a private network", got=got, fix="its private address"):
        check_connection(address)


@pytest.mark.parametrize(
    "found", ["10.0.0.1", "127.0.0.1", "100.64.0.1", "fd00::1", "fe80::1%eth0"]
)
def test_private_address_is_contacted(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contacted: list[tuple[str, int]] = []

    class Connection:
        def close(self) -> None:
            pass

    def connect(where: tuple[str, int], timeout: float) -> Connection:
        contacted.append(where)
        return Connection()

    monkeypatch.setattr(cluster.socket, "create_connection", connect)
    resolved = [(0, 0, 0, "", (found, 0))]
    monkeypatch.setattr(cluster.socket, "getaddrinfo", lambda *_, **__: resolved)
    asked: list[str] = []
    monkeypatch.setattr(cluster, "require_token", asked.append)
    check_connection("head:6379")
    assert contacted == [("head", 6379)]
    assert asked == ["head:6379"]
