"""A Ray that hms_ray starts itself: its ports."""

import ipaddress

import psutil
import pytest
import ray

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]


def test_an_embedded_ray_listens_on_loopback_alone() -> None:
    ray.get(ray.remote(num_cpus=0)(lambda: None).remote())
    this = psutil.Process()
    listening = {
        (process.name(), connection.laddr.ip)
        for process in [this, *this.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {name for name, _ in listening} >= {"raylet", "gcs_server"}
    beyond = {
        (name, found)
        for name, found in listening
        # As IPv6 writes an IPv4 address.
        if not ipaddress.ip_address(found.removeprefix("::ffff:")).is_loopback
    }
    assert beyond == set()
