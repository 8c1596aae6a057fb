"""Machines that join, are drained or lost while a standing group trains on them.

One cluster, whose head has no CPU, and one group of one worker serve all tests. A lost fold
fails at once here (``max_failures=0``), unless its loss does not count.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from ray._common.utils import get_system_memory
from ray._private.node import Node
from ray._private.utils import get_used_memory
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster as RayCluster
from ray.core.generated import autoscaler_pb2

from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed import standing_groups as supply
from hms_ray.distributed.cluster import session
from hms_ray.distributed.queue_actor import lost_nodes
from hms_ray.errors import TrainingError
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import collect, plan_folds
from hms_ray.train.process import Process
from tests.ray.leftovers import nothing_left
from tests.ray.worker_groups import EXPERIMENT, EventFile, Groups, standing_groups
from tests.refused import refusal

pytestmark = pytest.mark.ray

TIMEOUT_S = 180.0
GOAL_S = 60.0
"""From the loss of a machine, if another one joins, to the next step."""
ROOM_BYTES = 5 * 2**30
"""More than a group that starts and other tests take."""
CHUNK_BYTES = 2**28


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    assert not ray.is_initialized(), "these tests need a Ray of their own: run them first"
    made = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        with session(made.address):
            yield made
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def groups(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Groups]:
    folder = tmp_path_factory.mktemp("groups")
    resources: dict[str, Any] = {
        "autoscale": True,
        "max_groups": 1,
        "max_failures": 0,
        "checkpoint_every_s": 0,
        "share_stages": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supply, "WAITING_S", 1.0)
        with standing_groups(folder, **resources) as groups:
            yield groups


@pytest.fixture(scope="module")
def undisturbed(two_folds: Prepared, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    tasks = plan(two_folds, tmp_path_factory.mktemp("undisturbed"))
    InProcessRunner(device="cpu").run(tasks, lambda record: None)
    return collect(tasks, trained=[0]).oof


def plan(two_folds: Prepared, results: Path) -> list[FoldTask]:
    # Several batches per epoch, for two evaluations in each.
    training = EXPERIMENT.training.model_copy(update={"batch_size": 4})
    experiment = EXPERIMENT.model_copy(update={"training": training})
    return plan_folds(experiment, two_folds, results, Placement(world_size=1), [0])


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


class HeldEvents(EventFile):
    """Holds the training at one of its evaluations, until its process is killed or released."""

    def __init__(self, file: Path, *held_at: int) -> None:
        super().__init__(file)
        self._held_at, self._release = held_at, file.with_name("release")

    def __call__(self, record: dict[str, Any]) -> None:
        super().__call__({**record, "pid": os.getpid(), "at": time.time()})
        evaluated = record["event"] == "evaluation"
        if evaluated and len(self.evaluations()) in self._held_at:
            until(self._release.exists)

    def release(self) -> None:
        """Lets the training go on, now and later."""
        self._release.touch()

    def events(self) -> list[dict[str, Any]]:
        return super().events() if self.file.exists() else []

    def evaluations(self) -> list[tuple[str, float]]:
        events = [event for event in self.events() if event["event"] == "evaluation"]
        return [(event["stage"], event["epoch"]) for event in events]

    def wait_for(self, n_evaluations: int) -> int:
        """Waits until the training is held; returns the id of its process."""
        until(lambda: len(self.evaluations()) == n_evaluations)
        pid: int = self.events()[-1]["pid"]
        return pid


@dataclass
class Machines:
    """The machines of a cluster with CPUs: one at a time."""

    cluster: RayCluster
    node: Node | None = None
    has_limit: bool = False

    def add(self) -> str:
        """Adds a machine, which Ray does from the main thread alone; returns its id."""
        self.node, self.has_limit = self.cluster.add_node(num_cpus=1), False
        node_id: str = self.node.node_id
        return node_id

    def add_with_memory(self, n_bytes: int) -> None:
        """Adds a machine on which Ray's monitor ends a process when so much more is used."""
        share = (get_used_memory() + n_bytes) / get_system_memory()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_memory_usage_threshold", str(share))
            self.add()
        self.has_limit = True

    def lose(self) -> None:
        """Kills the processes of the machine, if there is one."""
        if self.node is not None:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None

    def drain(self) -> None:
        """Announces that the machine will be gone in an hour."""
        assert self.node is not None
        accepted, _ = GcsClient(address=self.cluster.address).drain_node(
            self.node.node_id,
            autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "announced by a test",
            (time.time_ns() + 3_600 * 10**9) // 10**6,
        )
        assert accepted


@pytest.fixture(scope="module")
def machines(cluster: RayCluster) -> Machines:
    return Machines(cluster)


@contextmanager
def in_training(
    groups: Groups, tasks: list[FoldTask], events: HeldEvents
) -> Iterator[list[Exception]]:
    """Trains from a thread while a block runs, and until the folds have ended; yields errors."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            groups.runner().run(tasks, events)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield errors
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


HOLD_A_CPU = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
holder = ray.remote(num_cpus=1)(type("Holder", (), {"held": lambda self: True})).remote()
ray.get(holder.held.remote())
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_job(address: str) -> Iterator[int]:
    """Another driver whose actor has a CPU while a block runs; yields the driver's id."""
    command = [sys.executable, "-c", HOLD_A_CPU, address]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        yield driver.pid
        driver.kill()


def test_a_group_that_waits_says_who_holds_its_resources(
    machines: Machines, groups: Groups, two_folds: Prepared, tmp_path: Path
) -> None:
    tasks = plan_folds(EXPERIMENT, two_folds, tmp_path, Placement(world_size=1))
    machines.add()
    with ExitStack() as driver:
        pid = driver.enter_context(held_by_another_job(machines.cluster.address))
        with in_training(groups, tasks, HeldEvents(tmp_path / "events")) as errors:
            until(lambda: any("held by" in text for text in groups.said))
            driver.close()
    assert errors == []
    text = next(text for text in groups.said if "held by" in text)
    assert re.fullmatch(
        r"group-0 has waited \d+ s for 1 worker with 1 CPU and 0 GPUs each: 0 of 1 CPU free; "
        rf"held by job \w+ \(.+, pid {pid} on [\d.]+\): 1 CPU",
        text,
    )
    assert groups.said[-1].startswith("group-0 started in ")
    (times,) = groups.standing.times()
    assert times.n_folds == len(tasks) == 2, "one group at most, for two folds that wait"


def test_a_fold_resumes_on_another_machine_after_its_own_was_lost_or_drained(
    machines: Machines,
    groups: Groups,
    two_folds: Prepared,
    tmp_path: Path,
    undisturbed: pd.DataFrame,
) -> None:
    tasks, events = plan(two_folds, tmp_path), HeldEvents(tmp_path / "events", 2, 5)
    if machines.node is None:
        # The test before has not run.
        machines.add()
    with in_training(groups, tasks, events) as errors:
        events.wait_for(2)
        lost_at = time.time()
        machines.lose()
        drained = machines.add()
        events.wait_for(5)
        machines.drain()
        until(lambda: lost_nodes(frozenset([drained])) == {drained})
        former = machines.node
        # For the next test.
        machines.add_with_memory(ROOM_BYTES)
        events.release()
    assert errors == []
    assert former is not None
    machines.cluster.remove_node(former)
    oof = collect(tasks, trained=[0]).oof
    pd.testing.assert_frame_equal(oof, undisturbed, check_exact=True)
    # The lost machine had no checkpoint of the evaluation at which it was held; a machine that
    # announces its end writes one and leaves.
    assert events.evaluations() == [
        *[("noisy", 0.5), ("noisy", 1)],
        *[("noisy", 1), ("good", 0.5), ("good", 1)],
        *[("good", 1.5), ("good", 2)],
    ]
    assert any(text.endswith("is about to leave; another one continues") for text in groups.said)
    assert [event["event"] for event in events.events()].count("fold_resumed") == 2
    seconds = [event["at"] for event in events.events() if event["event"] == "evaluation"][
        2
    ] - lost_at
    print(f"loss of a machine: {seconds:.1f} s to the next evaluation")
    assert seconds < 2 * GOAL_S, "tests of other modules may run beside"
    nothing_left(tmp_path, groups=1, workers=1)


def fill_memory(task: FoldTask, process: Process) -> None:
    """Fills the memory of its machine, within limits."""
    filled = []
    for _ in range(2 * ROOM_BYTES // CHUNK_BYTES):
        filled.append(np.ones(CHUNK_BYTES, np.uint8))
        time.sleep(0.05)
    until(lambda: False)


def test_a_worker_that_rays_memory_monitor_ends_is_a_loss_with_its_numbers(
    machines: Machines, groups: Groups, two_folds: Prepared, tmp_path: Path
) -> None:
    if not machines.has_limit:
        # The test before has not run.
        machines.lose()
        machines.add_with_memory(ROOM_BYTES)
    tasks, n_said = plan(two_folds, tmp_path), len(groups.said)
    with refusal(TrainingError, "before it is lost 1 time", got="OutOfMemoryError: "):
        groups.runner(fill_memory).run(tasks, lambda record: None)
    (text,) = (text for text in groups.said[n_said:] if "fold 0 was lost by" in text)
    assert re.search(r"Memory on the node .* was [\d.]+GB used / [\d.]+GB limit", text)
    # No fold waits: the group does not start again.
    nothing_left(tmp_path)
