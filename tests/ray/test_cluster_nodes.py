from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

import hms_ray
from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.cluster import n_concurrent_trials, session
from hms_ray.distributed.nodes import check_nodes, has_bfloat16
from hms_ray.errors import ResourceError

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes of one CPU each, on this machine."""
    assert not ray.is_initialized(), "these tests need a Ray of their own: run them first"
    cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def test_running_cluster_is_joined_and_its_nodes_checked(address: str, tmp_path: Path) -> None:
    with session(address) as cluster:
        assert not cluster.embedded
        assert [node.cpus for node in cluster.nodes] == [1, 1]
        assert n_concurrent_trials(cluster, ResourcesConfig(workers=2)) == 2
        with pytest.raises(ResourceError, match="a worker group must fit"):
            n_concurrent_trials(cluster, ResourcesConfig(cpus_per_worker=2))
        check_nodes(cluster, [tmp_path])
        with pytest.raises(ResourceError, match="see the study's files") as caught:
            check_nodes(cluster, [tmp_path, tmp_path / "missing"])
        assert str(tmp_path / "missing") in str(caught.value)
        assert hms_ray.__version__ in str(caught.value)
        assert has_bfloat16(cluster, ResourcesConfig()) is False


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "localhost:99999"])
def test_address_without_a_cluster_is_an_error(address: str) -> None:
    with (
        pytest.raises(ResourceError, match=f"must answer at the address, got {address}: "),
        session(address),
    ):
        pass


def test_client_address_is_an_error() -> None:
    with pytest.raises(ResourceError, match="must be host:port or auto"), session("ray://a:1"):
        pass
