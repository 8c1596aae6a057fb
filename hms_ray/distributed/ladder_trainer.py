"""A ladder on Ray: as many worker groups at once as fit, each kept for many folds."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TextIO

from hms_ray.config.space import ResourcesConfig
from hms_ray.display.live import ProgressView
from hms_ray.display.progress import Progress
from hms_ray.distributed.cluster import Cluster, n_concurrent_trials, session
from hms_ray.distributed.group_resources import placement
from hms_ray.distributed.job import Train
from hms_ray.distributed.nodes import check_nodes, has_bfloat16
from hms_ray.distributed.progress import EventPump
from hms_ray.distributed.queue_actor import QueueRunner
from hms_ray.distributed.standing_groups import StandingGroups
from hms_ray.errors import FoldCancelled, StorageError, one_line
from hms_ray.experiment.fold_task import FoldTask, Report, run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import FoldRunner
from hms_ray.ladder.local import step_failed
from hms_ray.ladder.plan import LadderPlan
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.text import counted

POLL_S = 0.5


class RayTrainer:
    """Trains missing folds in worker groups; a context manager that holds the Ray.

    Groups take units of folds, the most expensive first, so that all finish at about the same
    time.

    Args:
        resources: of a group.
        scratch: folder for Ray Train's own files; on several nodes a shared one. Workers
            log beside it, in ``logs/``.
        results: folder of the store.
        address: of a running Ray cluster; default: an embedded Ray is started.
        train: trains one fold in a worker.
        stream: where progress is shown; default: standard output.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def placement(self) -> Placement:
        """Of the groups; Ray is started for it only if they use GPUs."""
        gpus = self._resources.gpus_per_worker > 0
        return placement(
            self._resources, has_bfloat16(self._connected(), self._resources) if gpus else False
        )

    def _connected(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._stack.enter_context(session(self._address))
        return self._cluster

    def train(self, plan: LadderPlan, progress: Progress) -> dict[str, str]:
        """Trains the missing folds of a plan; see ``ladder.run.Trainer``.

        Raises:
            ResourceError: if no worker group fits, or a node fails its check.
        """
        cluster = self._connected()
        n_at_once = min(n_concurrent_trials(cluster, self._resources), len(plan.missing))
        prepared = plan.missing[0][0].prepared
        packs = [pack.path for pack in prepared.packs.values()]
        check_nodes(cluster, [prepared.rows_file, *packs, self._results.resolve()])
        bfloat16 = has_bfloat16(cluster, self._resources)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        with ProgressView(progress, self._stream) as view, EventPump(view) as pump:
            pump.message(f"on {cluster}; groups of {counted(self._resources.workers, 'worker')}")
            groups = StandingGroups(
                self._resources, self._scratch, pump.message, expected=len(plan.missing)
            )
            with groups:
                make_runner = partial(
                    QueueRunner,
                    groups.queue,
                    self._resources,
                    bfloat16=bfloat16,
                    train=self._train,
                    logs=WorkerLogs.as_here(self._scratch.parent),
                )
                return run_units(plan.by_cost(), n_at_once, make_runner, pump.send)


def run_units(
    units: Sequence[list[FoldTask]],
    n_at_once: int,
    make_runner: Callable[..., FoldRunner],
    report: Report,
) -> dict[str, str]:
    """Runs units of folds from several threads.

    If a unit ends with an error, its first fold that is not in the store is the one that
    failed: folds are trained in order. All units skip its experiment from then on, and
    the unit continues with the others.

    Args:
        units: folds that are trained one after the other; units are taken in order.
        n_at_once: number of units that are submitted at once.
        make_runner: makes a runner for each try.
        report: called in the workers too, hence picklable; gets their events and those of
            steps that failed.

    Returns:
        Name of a failed experiment -> why, one line.
    """
    waiting: queue.SimpleQueue[list[FoldTask]] = queue.SimpleQueue()
    for unit in units:
        waiting.put(unit)
    failed: dict[str, str] = {}
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors:
                _run_unit(waiting.get_nowait(), make_runner, report, failed)
        except queue.Empty:
            return
        except BaseException as error:
            # No fold's error: it must end the command, not this thread alone.
            errors.append(error)

    # Daemons, so that Ctrl-C ends the command at once; finished folds are in the store.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(n_at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=POLL_S)
    if errors:
        raise errors[0]
    return failed


def _run_unit(
    unit: list[FoldTask],
    make_runner: Callable[..., FoldRunner],
    report: Report,
    failed: dict[str, str],
) -> None:
    store, left = FoldStore(unit[0].results), unit
    while left := [
        task for task in left if task.experiment.name not in failed and not store.has(task.key)
    ]:
        try:
            make_runner().run(left, report)
            return
        except (FoldCancelled, StorageError):
            raise
        except Exception as error:
            lost = next((task for task in left if not store.has(task.key)), None)
            if lost is None:
                return
            failed[lost.experiment.name] = one_line(error)
            report(step_failed(lost, error))
