"""The loopback server: real requests, real signals."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
from werkzeug.test import create_environ
from werkzeug.wrappers import Response

from hms_ray.errors import ResourceError
from hms_ray.report.loopback import OwnNamesOnly, running
from tests.refused import refusal

APP = Response("hello")
"""A WSGI application."""


def ask(port: int, *hosts: str, path: str = "/page") -> tuple[int, str]:
    """Status and text of a request with these Host headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    for host in hosts:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_requests_for_this_machine_are_answered_and_others_refused() -> None:
    with running(APP) as address:
        port = urlsplit(address).port
        assert address == f"http://127.0.0.1:{port}"
        for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
            assert ask(port, f"{name}:{port}") == (200, "hello")
        refused = [
            (f"evil.example:{port}",),
            (f"localhost.evil.example:{port}",),
            (f"127.0.0.1:{port}.evil.example",),
            ("localhost",),
            (f"localhost:{port + 1}",),
            ("",),
            (),
            (f"localhost:{port}", f"evil.example:{port}"),
        ]
        for hosts in refused:
            status, text = ask(port, *hosts)
            assert status == 403, hosts
            assert f"ssh -L {port}:127.0.0.1:{port}" in text


def test_only_the_loopback_address_is_bound() -> None:
    with running(APP) as address:
        port = int(address.rpartition(":")[2])
        # All of 127.0.0.0/8 reaches this machine, but only what is bound to it answers.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
    with pytest.raises(ConnectionRefusedError):
        ask(port, f"localhost:{port}")


def test_requests_do_not_wait_for_each_other() -> None:
    both = threading.Barrier(2, timeout=10)

    def slow(environ: dict, start_response: object) -> list[bytes]:
        both.wait()
        start_response("200 OK", [])  # type: ignore[operator]
        return [b"done"]

    with running(slow) as address:
        port = int(address.rpartition(":")[2])
        found: list[tuple[int, str]] = []
        threads = [
            threading.Thread(target=lambda: found.append(ask(port, f"localhost:{port}")))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [(200, "done")] * 2


def test_the_default_port_may_be_left_out() -> None:
    def status(port: int, host: str) -> str:
        said: list[str] = []
        checked = OwnNamesOnly(APP, port)
        environ = {**create_environ("/"), "HTTP_HOST": host}
        list(checked(environ, lambda line, _: said.append(line)))
        return said[0]

    assert status(80, "localhost") == "200 OK"
    assert status(8000, "localhost") == "403 Forbidden"
    assert status(80, "evil.example") == "403 Forbidden"


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            refusal(
                ResourceError,
                "the port must be free",
                got=f"{port}: Address already in use",
                where="127.0.0.1",
                fix="Give another --port",
            ),
            running(APP, port=port),
        ):
            pass


def test_a_port_that_cannot_exist_is_refused() -> None:
    with refusal(ResourceError, "must be free", got="70000: no such port"):
        running(APP, port=70_000).__enter__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(number: signal.Signals) -> None:
    code = (
        "from werkzeug.wrappers import Response\n"
        "from hms_ray.report.loopback import serve\n"
        "serve(Response('hello'), path='/page?a=1#b')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        parts = urlsplit(process.stdout.readline().strip())
        assert process.stdout.readline() == "Ctrl-C ends it\n"
        assert (parts.path, parts.query, parts.fragment) == ("/page", "a=1", "b")
        port = parts.port
        assert port is not None
        assert ask(port, f"localhost:{port}") == (200, "hello")
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "\n", "")
