"""The supply of worker groups without Ray: when groups are started, given back and replaced."""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed import standing_groups
from hms_ray.distributed.cluster import Node
from hms_ray.distributed.job_queue import JobQueue
from hms_ray.distributed.standing_groups import MAX_FAILED_STARTS, WAITING_S, StandingGroups
from hms_ray.errors import ResourceError
from tests.unit.test_job_queue import Clock, Group, jobs, raised


class Remote:
    """A queue whose calls are answered at once."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        for name in ("call", "status", "times"):
            method: Callable[..., Any] = getattr(self, f"_{name}")
            setattr(self, name, type("Method", (), {"remote": staticmethod(method)}))

    def _call(self, name: str, *arguments: Any) -> Any:
        return getattr(self.queue, name)(*arguments)

    def _status(self) -> Any:
        return self.queue.status()

    def _times(self) -> Any:
        return self.queue.times()


class World:
    """Groups that run until a test ends them, on machines that it sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.said, self.runs = Clock(), list[str](), dict[str, threading.Event]()
        self.reasons: dict[str, str | None] = {}
        self.run_names: list[str] = []
        self.cpus = [2.0]
        self.queue = JobQueue(clock=self.clock, wall=self.clock)
        module = standing_groups
        monkeypatch.setattr(module, "start_queue", lambda resources: Remote(self.queue))
        monkeypatch.setattr(module.ray, "get", lambda value: value)
        monkeypatch.setattr(module, "run_group", self._run)
        monkeypatch.setattr(module, "alive_nodes", self._nodes)
        monkeypatch.setattr(module.time, "monotonic", self.clock)
        monkeypatch.setattr(module.StrayGroups, "remove", lambda self: 0)
        monkeypatch.setattr(module, "wait_reason", lambda resources: "busy")

    def _nodes(self) -> tuple[Node, ...]:
        return tuple(Node(str(n), str(n), cpus, 0) for n, cpus in enumerate(self.cpus))

    def _run(self, queue: Any, name: str, run: str, *rest: Any) -> str | None:
        self.run_names.append(run)
        self.runs[name] = threading.Event()
        assert self.runs[name].wait(20)
        return self.reasons.get(name)

    def groups(self, **resources: Any) -> StandingGroups:
        made = StandingGroups(ResourcesConfig(**resources), Path("no folder"), self.said.append)
        made.queue = Remote(self.queue)
        return made

    def end(self, groups: StandingGroups, name: str, reason: str | None) -> None:
        self.reasons[name] = reason
        thread = groups._groups[name].thread
        self.runs[name].set()
        thread.join()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(monkeypatch)
    yield made
    for run in made.runs.values():
        run.set()


def names(groups: StandingGroups) -> list[str]:
    return list(groups._groups)


def test_groups_are_started_for_waiting_folds_up_to_what_fits(world: World) -> None:
    groups = world.groups()
    groups._step()
    assert names(groups) == []
    world.queue.submit(jobs("a", 1))
    groups._step()
    groups._step()
    assert names(groups) == ["group-0"]
    world.queue.submit(jobs("b", 9))
    groups._step()
    assert names(groups) == ["group-0", "group-1"]


def test_a_free_group_is_used_before_another_is_started(world: World) -> None:
    groups = world.groups()
    world.queue.submit(jobs("a", 1))
    groups._step()
    group = Group(world.queue, "group-0")
    groups._step()
    group.take()
    group.done()
    world.queue.submit(jobs("b", 1))
    groups._step()
    assert names(groups) == ["group-0"]
    assert world.said == ["group-0 started in 0 s"]


def test_max_groups_bounds_them_and_machines_that_join_get_groups(world: World) -> None:
    groups = world.groups(max_groups=3)
    world.queue.submit(jobs("a", 9))
    groups._step()
    assert len(names(groups)) == 2
    world.cpus.append(8)
    groups._step()
    assert len(names(groups)) == 3


def test_autoscale_requests_what_does_not_fit_yet_and_says_that_it_waits(world: World) -> None:
    groups = world.groups(autoscale=True, gpus_per_worker=1)
    world.queue.submit(jobs("a", 3))
    groups._step()
    assert len(names(groups)) == 3
    assert world.said == []
    world.clock.now += WAITING_S
    groups._step()
    groups._step()
    text = "group-0, group-1, group-2 have waited {} s for 1 worker with 1 CPU and 1 GPU each: busy"
    assert world.said == [text.format(30)]
    for waited in (59, 60, 119, 120):
        world.clock.now = 1000 + waited
        groups._step()
    assert world.said == [text.format(waited) for waited in (30, 60, 120)]


def test_an_idle_group_is_given_back_and_another_started_when_folds_come(world: World) -> None:
    groups = world.groups(group_idle_s=60)
    world.queue.submit(jobs("a", 1))
    groups._step()
    group = Group(world.queue, "group-0")
    group.take()
    world.clock.now += 100
    groups._step()
    group.done()
    world.clock.now += 59
    groups._step()
    assert group.take() is None
    world.clock.now += 1
    groups._step()
    assert group.take() == "stop"
    world.end(groups, "group-0", None)
    groups._step()
    assert names(groups) == []
    assert world.said[-1] == "group-0 had no fold for 60 s: given back"
    world.queue.submit(jobs("b", 1))
    groups._step()
    assert names(groups) == ["group-1"]


def test_a_group_that_ends_by_itself_is_replaced_and_its_fold_waits(world: World) -> None:
    groups = world.groups()
    submission = world.queue.submit(jobs("a", 1))
    groups._step()
    Group(world.queue, "group-0").take()
    groups._step()
    world.end(groups, "group-0", "ActorDiedError: killed")
    groups._step()
    assert names(groups) == ["group-1"]
    assert "group-0 was lost: ActorDiedError: killed" in world.said
    again = Group(world.queue, "group-1")
    assert again.take() == "a0"
    groups._step()
    assert "a fold 0 was lost by group-0: ActorDiedError: killed" in world.said
    again.done()
    assert raised(world.queue, submission, 0) is None


def test_groups_that_never_start_end_the_folds_that_wait(world: World) -> None:
    groups = world.groups(max_groups=1)
    submission = world.queue.submit(jobs("a", 1))
    for number in itertools.count():
        groups._step()
        if number == MAX_FAILED_STARTS:
            break
        world.end(groups, f"group-{number}", "RuntimeError: no such file")
    error = raised(world.queue, submission, 0)
    assert isinstance(error, ResourceError)
    assert "no such file" in str(error)


def test_a_group_that_started_and_was_lost_between_two_looks_has_started(world: World) -> None:
    world.queue = JobQueue(max_failures=9, clock=world.clock, wall=world.clock)
    groups = world.groups(max_groups=1)
    submission = world.queue.submit(jobs("a", 1))
    for number in range(MAX_FAILED_STARTS + 1):
        groups._step()
        Group(world.queue, f"group-{number}").take()
        world.queue.lost(f"group-{number}", "killed")
        world.end(groups, f"group-{number}", "killed")
    groups._step()
    assert not world.queue.ended(submission, 0)


def test_times_of_groups_outlive_a_lost_queue(world: World) -> None:
    groups = world.groups(max_groups=1)
    world.queue.submit(jobs("a", 2))
    groups._step()
    group = Group(world.queue, "group-0")
    group.take()
    world.clock.now += 10
    groups._step()
    world.queue = groups.queue.queue = JobQueue(life=5, clock=world.clock, wall=world.clock)
    groups._step()
    group = Group(world.queue, "group-0")
    world.queue.submit(jobs("a", 2))
    group.take()
    world.clock.now += 3
    (times,) = groups.times()
    assert (times.busy_s, times.n_folds, times.n_restarts) == (13, 2, 1)
    groups._step()
    assert groups.times() == [times], "restored once"


def test_runs_of_two_commands_have_different_names(world: World) -> None:
    for _ in range(2):
        groups = world.groups(max_groups=1)
        world.queue.submit(jobs("a", 1))
        groups._step()
        assert names(groups) == ["group-0"]
    first, second = world.run_names
    assert first != second
    assert first.startswith("group-0-")


def test_a_run_starts_its_groups_before_folds_come_and_ends_them(
    world: World, tmp_path: Path
) -> None:
    resources = ResourcesConfig(health_check_interval_s=0.3)
    scratch = tmp_path / "scratch"
    with StandingGroups(resources, scratch, world.said.append, expected=9) as groups:
        assert names(groups) == ["group-0", "group-1"]
        for run in world.run_names:
            (scratch / run).mkdir(parents=True)
        group = Group(world.queue, "group-0")
        for run in world.runs.values():
            run.set()
    assert group.take() == "stop"
    assert [times.group for times in groups.times()] == ["group-0", "group-1"]
    assert not scratch.exists(), "nothing of Ray Train is left"


def test_of_the_scratch_folder_only_its_own_files_are_removed(world: World, tmp_path: Path) -> None:
    with StandingGroups(ResourcesConfig(), tmp_path, world.said.append) as groups:
        own, other = tmp_path / f"group-0-{groups._run_suffix}", tmp_path / "group-0-1f"
        for folder in (own, other):
            folder.mkdir()
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(
    ("resources", "n_started"), [({}, 2), ({"gpus_per_worker": 1}, 1), ({"max_groups": 5}, 5)]
)
def test_a_cluster_that_grows_is_not_asked_for_a_group_per_expected_fold(
    world: World, resources: dict[str, Any], n_started: int
) -> None:
    made = ResourcesConfig(autoscale=True, **resources)
    with StandingGroups(made, Path("no folder"), world.said.append, expected=200) as groups:
        n_groups = len(names(groups))
        for run in world.runs.values():
            run.set()
    assert n_groups == n_started


def test_environment_of_ray_train_is_set_for_the_run_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "9")
    before = dict(os.environ)
    resources = ResourcesConfig(health_check_interval_s=0.3)
    with StandingGroups(resources, Path("no folder"), world.said.append):
        assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.3"
    assert dict(os.environ) == before
