"""A cluster with tokens, started as users do: a head without CPUs and two machines of one CPU.

Two studies share it, one started with ``--address`` and one with ``ray job submit``.
"""

import ipaddress
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from hms_ray.study.folder import StudyFolder
from tests.competition_folder import write_competition_folder
from tests.ray.sweep_process import ROOT

pytestmark = pytest.mark.ray

RAY = str(Path(sys.executable).parent / "ray")
TIMEOUT_S = 120.0
SPACE = {
    "experiment": {
        "data": {"n_folds": 2},
        "input": {"downsample": [10, 10]},
        "model": {"name": "test_efficientnet", "pretrained": False},
        "training": {"stages": [{"rows": "all", "epochs": 1}]},
    },
    "parameters": {"training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
    "budget": {"trials": 2},
    "prune": "none",
    "resources": {"max_groups": 1, "health_check_interval_s": 0.2},
}


@dataclass
class TokenCluster:
    base: Path
    port: int
    dashboard: int
    client: int
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def sweep(self, study: str, address: str) -> list[str]:
        words = [sys.executable, "-m", "hms_ray", "sweep", str(self.base / "space.yaml")]
        words += ["--data", str(self.base / "data"), "--results", str(self.base / "results")]
        return [*words, "--study", study, "--address", address]

    def start(self, words: list[str], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def listening(self) -> dict[int, set[str]]:
        """Port -> addresses on which a process of the cluster listens."""
        found: dict[int, set[str]] = {}
        for started in self.processes:
            root = psutil.Process(started.pid)
            for process in [root, *root.children(recursive=True)]:
                for connection in process.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        found.setdefault(connection.laddr.port, set()).add(connection.laddr.ip)
        return found


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenCluster]:
    base = tmp_path_factory.mktemp("cluster")
    write_competition_folder(base / "data", 12)
    (base / "space.yaml").write_text(yaml.safe_dump(SPACE))
    token = base / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    environment.pop("RAY_AUTH_TOKEN", None)
    port, dashboard, client, *agents = free_ports(6)
    made = TokenCluster(base, port, dashboard, client, environment, [])
    head = [f"--port={port}", "--head", "--num-cpus=0", "--dashboard-host=127.0.0.1"]
    head += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    machine = [f"--address={made.address}", "--num-cpus=1"]
    try:
        for n_cpus, words in enumerate((head, machine, machine)):
            words = [RAY, "start", *words, "--object-store-memory=100000000", "--block"]
            # The Ray of other tests may have the usual port, and without one no job starts.
            words.append(f"--dashboard-agent-listen-port={agents[n_cpus]}")
            with (base / "ray.txt").open("ab") as log:
                made.processes.append(
                    subprocess.Popen(words, env=environment, stdout=log, stderr=log)
                )
            # One after the other: each machine looks for ports that are free.
            wait_for(port)
            wait_until_joined(made, n_cpus)
        wait_for(dashboard)
        yield made
    finally:
        started = [psutil.Process(process.pid) for process in made.processes]
        children = [child for one in started for child in one.children(recursive=True)]
        for process in made.processes:
            process.terminate()
        for process in made.processes:
            process.wait(timeout=60)
        _, alive = psutil.wait_procs(children, timeout=5)
        for child in alive:
            child.kill()


def wait_for(port: int) -> None:
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(port)


def wait_until_joined(cluster: TokenCluster, n_cpus: int) -> None:
    words = [RAY, "status", "--address", cluster.address]
    end = time.monotonic() + TIMEOUT_S
    joined = f"/{n_cpus}.0 CPU" if n_cpus else "node_"
    while joined not in cluster.start(words).communicate()[0]:
        assert time.monotonic() < end
        assert cluster.processes[-1].poll() is None


def end_of_job(cluster: TokenCluster, words: list[str]) -> tuple[subprocess.Popen[str], str]:
    """A submitted job that has ended; the head's agent, which starts jobs, comes late."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        run = cluster.start(words)
        printed, _ = run.communicate(timeout=200)
        if "No available agent" not in printed or time.monotonic() > end:
            return run, printed
        time.sleep(0.5)


@pytest.mark.timeout(300)
def test_two_studies_share_a_cluster_and_one_is_a_submitted_job(cluster: TokenCluster) -> None:
    submit = [RAY, "job", "submit", "--address", f"http://127.0.0.1:{cluster.dashboard}"]
    direct = cluster.start(cluster.sweep("direct", cluster.address))
    # Equal experiments would share their folds, and the later study would need no group.
    sweep = [*cluster.sweep("submitted", cluster.address), "--set", "training.seed=1"]
    job = end_of_job(cluster, [*submit, "--", *sweep])
    ended = {"direct": (direct, direct.communicate(timeout=200)[0]), "submitted": job}
    for name, (run, text) in ended.items():
        assert run.returncode == 0, text
        assert "on 3 nodes: 2 CPUs" in text
        assert "group-0 started" in text
        assert "group-1" not in text, "one group each"
        folder = StudyFolder.open(name, cluster.base / "results")
        assert [trial.finished for trial in folder.trials()] == [True, True]
        record = (folder.path / "environment.json").read_text()
        token = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        assert token not in record + text + (folder.path / "log.txt").read_text()
    assert "Job 'raysubmit_" in job[1]


@pytest.mark.parametrize(("given", "got"), [("another", "another token"), (None, "no token")])
def test_a_request_without_the_token_is_refused_in_one_line(
    cluster: TokenCluster, given: str | None, got: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    if given is not None:
        file.write_text(given)
    started = time.monotonic()
    run = cluster.start(
        cluster.sweep("refused", cluster.address), RAY_AUTH_TOKEN_PATH=str(file), HOME=str(tmp_path)
    )
    printed, _ = run.communicate(timeout=60)
    seconds = time.monotonic() - started
    print(f"refused in {seconds:.1f} s")
    assert run.returncode == 2, printed
    assert printed.count("\n") == 1, printed
    assert f"must have the token of its cluster, got {got}, in {cluster.address}" in printed
    assert not (cluster.base / "results" / "refused").exists()
    assert seconds < 5 or os.getloadavg()[0] > 2, "two cores"


def test_dashboard_jobs_and_client_listen_on_loopback_or_a_private_address(
    cluster: TokenCluster,
) -> None:
    listening = cluster.listening()
    for port in (cluster.dashboard, cluster.client):
        assert listening[port]
        for found in listening[port]:
            # As IPv6 writes an IPv4 address.
            where = ipaddress.ip_address(found.removeprefix("::ffff:"))
            assert where.is_loopback or where.is_private, (port, found)
            assert not where.is_unspecified, (port, found)
