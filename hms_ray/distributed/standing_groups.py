"""Worker groups that stay for a run: started when folds wait, given back when they are idle."""

from __future__ import annotations

import itertools
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayActorError

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.cluster import alive_nodes, n_groups
from hms_ray.distributed.holders import wait_reason
from hms_ray.distributed.job import GroupTimes, QueueStatus
from hms_ray.distributed.process_state import environment
from hms_ray.distributed.queue_actor import start_queue
from hms_ray.distributed.stray_groups import StrayGroups
from hms_ray.distributed.worker_group import run_group, train_environment
from hms_ray.errors import ResourceError
from hms_ray.storage.run_log import FaultLog
from hms_ray.text import counted, shortened_list

logger = logging.getLogger(__name__)

POLL_S: Final = 0.5
STRAY_GROUPS_S: Final = 5.0
WAITING_S: Final = 30.0
"""A group that has not started by then waits for resources, which is reported; again after
twice the time."""
MAX_FAILED_STARTS: Final = 3
"""So many groups in a row that end before their workers have started end the run's folds."""
SHUTDOWN_TIMEOUT_S: Final = 20.0


@dataclass
class _Group:
    """A worker group that was requested."""

    thread: threading.Thread
    requested: float
    seated: bool = False
    ended: list[str | None] = field(default_factory=list)
    """Why its run returned, once it has."""


class StandingGroups:
    """Starts and ends the worker groups of a run while a block runs.

    A group is requested when a fold waits that no free or starting group would take, up to
    ``resources.max_groups`` and to what fits on the cluster, machines that join later included;
    with ``resources.autoscale`` also beyond what fits. A group without a fold for
    ``resources.group_idle_s`` is given back. A group whose run ends by itself is replaced.

    Args:
        resources: of a group, and how many there are.
        scratch: folder for Ray Train's own files, which are removed at the end; on several nodes
            a shared one.
        say: shows a line to the user.
        expected: folds that will be submitted at once: groups for them start before they are.

    Attributes:
        queue: handle of the queue's actor, for ``QueueRunner``.
    """

    def __init__(
        self,
        resources: ResourcesConfig,
        scratch: Path,
        say: Callable[[str], None],
        *,
        expected: int = 0,
    ) -> None:
        self._resources, self._scratch, self._say = resources, scratch, say
        self._expected = expected
        self._groups: dict[str, _Group] = {}
        self._names = (f"group-{number}" for number in itertools.count())
        # Ray Train would continue a run of the same name, such as one of another command.
        self._run_suffix = secrets.token_hex(4)
        self._n_failed_starts = 0
        self._waiting_due = WAITING_S
        self._stray, self._stray_at = StrayGroups(), 0.0
        self._faults = FaultLog(logger)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="groups", daemon=True)
        self._environment = environment(train_environment(resources))
        self._times: dict[str, GroupTimes] = {}
        self._queue_life: int | None = None
        self.queue: Any = None

    def __enter__(self) -> StandingGroups:
        # Once for all threads: each would restore what it found.
        self._environment.__enter__()
        self.queue = start_queue(self._resources)
        self._start_missing(self._n_expected())
        self._thread.start()
        return self

    def __exit__(self, kind: object, *reason: object) -> None:
        try:
            self._stopping.set()
            self._thread.join()
            with self._faults("worker groups could not be stopped"):
                ray.get(self.queue.call.remote("stop"))
                self._note_times(ray.get(self.queue.times.remote()))
                end = time.monotonic() + (SHUTDOWN_TIMEOUT_S if kind is None else 0.0)
                for group in self._groups.values():
                    group.thread.join(max(0.0, end - time.monotonic()))
                self._stray.remove()
            if kind is None:
                self._remove_scratch()
        finally:
            self._environment.__exit__(None, None, None)

    def _remove_scratch(self) -> None:
        for run in self._scratch.glob(f"*-{self._run_suffix}"):
            shutil.rmtree(run, ignore_errors=True)
        with suppress(OSError):
            self._scratch.rmdir()

    def times(self) -> list[GroupTimes]:
        """Times of all groups; after the block, as they were at its end."""
        if not self._stopping.is_set():
            self._note_times(ray.get(self.queue.times.remote()))
        return list(self._times.values())

    def _note_times(self, times: Iterable[GroupTimes]) -> None:
        self._times.update((one.group, one) for one in times)

    def cancel(self, trial: int) -> None:
        """Cancels the folds of a trial, from any thread; they end within seconds."""
        self.queue.call.remote("cancel", trial)

    def _n_expected(self) -> int:
        """Expected folds for which groups start at once.

        A cluster that grows without a limit gets groups as trials submit their folds.
        """
        if not self._resources.autoscale or self._resources.max_groups is not None:
            return self._expected
        return min(self._expected, max(1, n_groups(alive_nodes(), self._resources)))

    def _supervise(self) -> None:
        while not self._stopping.wait(POLL_S):
            # A fault here must not end the supply of groups.
            with self._faults("worker groups could not be supervised"), suppress(RayActorError):
                # Ray restarts a lost queue; its callers submit again.
                self._step()

    def _step(self) -> None:
        """One look at the groups and the queue."""
        ended = [name for name, group in self._groups.items() if group.ended]
        status = self._status()
        for times in status.times:
            if times.started is not None:
                self._note_seated(times.group)
        if ended:
            for name in ended:
                self._end(name)
            after = self._status()
            status = replace(after, losses=status.losses + after.losses)
        for text in status.losses:
            self._say(text)
        self._give_back(status)
        free = sum(idle_s is not None for idle_s in status.idle_s.values())
        self._start_missing(status.n_waiting - free)
        self._report_waiting()
        self._remove_stray()

    def _status(self) -> QueueStatus:
        status: QueueStatus = ray.get(self.queue.status.remote())
        if self._queue_life not in (None, status.life):
            # Restarted, so that it does not know the groups.
            ray.get(self.queue.call.remote("restore", list(self._times.values())))
            status = replace(ray.get(self.queue.status.remote()), losses=status.losses)
        self._queue_life = status.life
        self._note_times(status.times)
        return status

    def _give_back(self, status: QueueStatus) -> None:
        for name, idle_s in status.idle_s.items():
            if idle_s is not None and idle_s >= self._resources.group_idle_s:
                ray.get(self.queue.call.remote("release", name))
                self._say(f"{name} had no fold for {idle_s:.0f} s: given back")

    def _note_seated(self, name: str) -> None:
        group = self._groups.get(name)
        if group is not None and not group.seated:
            group.seated, self._n_failed_starts = True, 0
            started = time.monotonic() - group.requested
            if self._resources.group == "study":
                self._say(f"{name} started in {started:.0f} s")

    def _end(self, name: str) -> None:
        """Notes that the run of a group has returned."""
        group = self._groups.pop(name)
        reason = group.ended[0]
        finished = self.queue.call.remote("finished", name, reason or "the group was given back")
        self._note_times(filter(None, [ray.get(finished)]))
        if reason is None:
            return
        self._say(f"{name} was lost: {reason}")
        if group.seated:
            return
        self._n_failed_starts += 1
        if self._n_failed_starts >= MAX_FAILED_STARTS:
            error = ResourceError(
                "a worker group must start",
                got=f"{counted(self._n_failed_starts, 'group')} that ended at once, the last "
                f"with {reason}",
                fix="Read Ray's logs, in /tmp/ray/session_latest/logs on each machine.",
            )
            self._n_failed_starts = 0
            ray.get(self.queue.call.remote("fail_waiting", error))

    def _start_missing(self, n_waiting: int) -> None:
        """Starts groups for folds that no free group takes."""
        n_starting = sum(not group.seated for group in self._groups.values())
        n_missing = n_waiting - n_starting
        if n_missing <= 0:
            return
        most = self._resources.max_groups or n_waiting + len(self._groups)
        if not self._resources.autoscale:
            # Nodes may have joined or left.
            most = min(most, n_groups(alive_nodes(), self._resources))
        for _ in range(min(n_missing, most - len(self._groups))):
            self._start()

    def _start(self) -> None:
        name = next(self._names)
        ended: list[str | None] = []

        def run() -> None:
            try:
                run = f"{name}-{self._run_suffix}"
                ended.append(run_group(self.queue, name, run, self._resources, self._scratch))
            except BaseException as error:
                logger.exception("the run of %s failed", name)
                ended.append(f"{type(error).__name__}: {error}")

        ray.get(self.queue.call.remote("requested", name))
        # A daemon, so that Ctrl-C ends the command at once.
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._groups[name] = _Group(thread, time.monotonic(), ended=ended)
        thread.start()

    def _report_waiting(self) -> None:
        now = time.monotonic()
        waited = {
            name: now - group.requested
            for name, group in self._groups.items()
            if not group.seated and now - group.requested >= WAITING_S
        }
        if not waited:
            self._waiting_due = WAITING_S
        elif (longest := max(waited.values())) >= self._waiting_due:
            self._waiting_due = 2 * longest
            text = f"{shortened_list(list(waited))} {'has' if len(waited) == 1 else 'have'}"
            text += f" waited {longest:.0f} s for {counted(self._resources.workers, 'worker')}"
            text += f" with {counted(self._resources.cpus_per_worker, 'CPU')} and"
            text += f" {counted(self._resources.gpus_per_worker, 'GPU')} each"
            reason = wait_reason(self._resources)
            self._say(f"{text}: {reason}" if reason else text)

    def _remove_stray(self) -> None:
        if time.monotonic() - self._stray_at < STRAY_GROUPS_S:
            return
        self._stray_at = time.monotonic()
        if n := self._stray.remove():
            self._say(f"freed the resources of {counted(n, 'lost worker group')}")
