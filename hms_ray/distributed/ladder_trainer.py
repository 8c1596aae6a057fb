"""A ladder on Ray: as many worker groups at once as fit, each kept for many folds."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TextIO

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.cluster import (
    Cluster,
    n_concurrent_trials,
    session,
)
from hms_ray.distributed.nodes import check_nodes, has_bfloat16
from hms_ray.distributed.progress import ProgressPrinter
from hms_ray.distributed.worker_group import (
    Train,
    WorkerGroupRunner,
    environment,
    placement,
    train_environment,
)
from hms_ray.experiment.fold_task import FoldTask, Report, run_task
from hms_ray.experiment.placement import Placement
from hms_ray.ladder.local import one_line, step_failed
from hms_ray.ladder.plan import LadderPlan, shares
from hms_ray.ladder.progress import LadderLines
from hms_ray.storage.fold_store import FoldStore
from hms_ray.text import counted

POLL_S = 0.5


class ShareRunner(Protocol):
    """Trains a share of the folds in one go (see ``WorkerGroupRunner``)."""

    def run(self, tasks: Sequence[FoldTask], report: Report) -> None:
        """Trains every task, or raises; what is finished is in the store."""


class RayTrainer:
    """Trains missing folds in worker groups; a Ray is there while a block runs.

    With ``resources.group: trial`` every group gets its share of all folds at once and
    is started once; with ``fold`` groups take the next folds as they finish.

    Args:
        resources: of a group.
        scratch: folder for Ray Train's own files; on several nodes a shared one.
        results: folder of the store.
        address: of a running Ray cluster; without one an embedded Ray is started.
        train: trains one fold in a worker.
        stream: where progress goes; standard output where absent.
    """

    def __init__(
        self,
        resources: ResourcesConfig,
        scratch: Path,
        results: Path,
        *,
        address: str | None = None,
        train: Train = run_task,
        stream: TextIO | None = None,
    ) -> None:
        self._resources, self._scratch, self._results = resources, scratch.resolve(), results
        self._address, self._train, self._stream = address, train, stream
        self._stack = ExitStack()
        self._cluster: Cluster | None = None

    def __enter__(self) -> RayTrainer:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    @property
    def placement(self) -> Placement:
        """Of the groups. Only GPUs must be asked what they can, so only they start Ray."""
        gpus = self._resources.gpus_per_worker > 0
        return placement(
            self._resources, has_bfloat16(self._connected(), self._resources) if gpus else False
        )

    def _connected(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._stack.enter_context(session(self._address))
        return self._cluster

    def train(self, plan: LadderPlan, lines: LadderLines) -> dict[str, str]:
        """Trains the missing folds of a plan; see ``ladder.run.Trainer``.

        Raises:
            ResourceError: where no worker group fits, or a node cannot take part.
        """
        cluster = self._connected()
        n_groups = min(n_concurrent_trials(cluster, self._resources), len(plan.missing))
        check_nodes(cluster, [*_files(plan), self._results.resolve()])
        bfloat16 = has_bfloat16(cluster, self._resources)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        if self._resources.group == "trial":
            dealt = shares(plan.missing, plan.costs, n_groups)
        else:
            dealt = plan.missing
        with ProgressPrinter(lines, self._stream) as printer:
            printer.say(f"on {cluster}; {counted(n_groups, 'worker group')} at once")
            make = partial(
                WorkerGroupRunner,
                self._resources,
                scratch=self._scratch,
                bfloat16=bfloat16,
                train=self._train,
            )
            report = partial(_tell, printer.events)
            # Once for all threads: each would put back what it found.
            with environment(train_environment(self._resources)):
                return run_shares(plan, dealt, n_groups, make, report, printer.show)


def _files(plan: LadderPlan) -> list[Path]:
    """Files that workers open."""
    prepared = plan.missing[0][0].prepared
    return [prepared.rows_file, *(pack.path for pack in prepared.packs.values())]


def _tell(events: Any, event: dict[str, Any]) -> None:
    """Called in a worker; never waits."""
    events.put.remote(event)


def run_shares(
    plan: LadderPlan,
    dealt: Sequence[list[FoldTask]],
    n_groups: int,
    make: Callable[..., ShareRunner],
    report: Report,
    show: Report,
) -> dict[str, str]:
    """Runs shares of folds from as many threads as there are groups.

    Where a share ends with an error, its first fold that is not in the store is the one
    that failed: folds are trained in turn. Its experiment is left out from then on, in
    all shares, and the share goes on with the others.

    Args:
        plan: whose folds they are.
        dealt: shares, taken in turn.
        n_groups: shares that run at once.
        make: makes a runner, called with a ``name`` of its own each time.
        report: called in the workers, hence picklable; gets what folds report.
        show: gets ``step_failed`` events.

    Returns:
        Name of a failed experiment -> why, one line.
    """
    waiting: queue.SimpleQueue[tuple[int, list[FoldTask]]] = queue.SimpleQueue()
    for numbered in enumerate(dealt):
        waiting.put(numbered)
    failed: dict[str, str] = {}
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors:
                number, share = waiting.get_nowait()
                _run_share(plan, number, share, (make, report, show), failed)
        except queue.Empty:
            return
        except BaseException as error:
            # Not of a fold: the command must end with it, not the thread alone.
            errors.append(error)

    # Daemons, so that Ctrl-C ends the command at once; the store has what is finished.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(n_groups)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=POLL_S)
    if errors:
        raise errors[0]
    return failed


def _run_share(
    plan: LadderPlan,
    number: int,
    share: list[FoldTask],
    calls: tuple[Callable[..., ShareRunner], Report, Report],
    failed: dict[str, str],
) -> None:
    make, report, show = calls
    store = FoldStore(share[0].results)
    left, attempt = share, 0
    while left := [
        task for task in left if task.experiment.name not in failed and not store.has(task.key)
    ]:
        try:
            make(name=f"share-{number:03d}-{attempt:02d}").run(left, report)
            return
        except Exception as error:
            lost = next((task for task in left if not store.has(task.key)), None)
            if lost is None:
                return
            failed[lost.experiment.name] = one_line(error)
            show(step_failed(plan, lost, one_line(error)))
        attempt += 1
