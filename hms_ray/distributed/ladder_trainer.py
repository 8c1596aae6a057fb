"""A ladder on Ray: as many worker groups at once as fit, each kept for many folds."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TextIO

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.cluster import Cluster, n_concurrent_trials, session
from hms_ray.distributed.nodes import check_nodes, has_bfloat16
from hms_ray.distributed.progress import EventPump
from hms_ray.distributed.worker_group import (
    Train,
    WorkerGroupRunner,
    environment,
    placement,
    train_environment,
)
from hms_ray.errors import one_line
from hms_ray.experiment.fold_task import FoldTask, Report, run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import FoldRunner
from hms_ray.ladder.local import step_failed
from hms_ray.ladder.plan import LadderPlan, shares
from hms_ray.report.live import ProgressView
from hms_ray.report.progress import Progress
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.run_log import WorkerLogs
from hms_ray.text import counted

POLL_S = 0.5


class RayTrainer:
    """Trains missing folds in worker groups; a context manager that holds the Ray.

    With ``resources.group: trial`` every group is started once and gets its share of all
    folds; with ``fold`` a new group is started for each unit of folds.

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

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

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
        n_groups = min(n_concurrent_trials(cluster, self._resources), len(plan.missing))
        prepared = plan.missing[0][0].prepared
        packs = [pack.path for pack in prepared.packs.values()]
        check_nodes(cluster, [prepared.rows_file, *packs, self._results.resolve()])
        bfloat16 = has_bfloat16(cluster, self._resources)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        if self._resources.group == "trial":
            dealt = shares(plan.missing, plan.costs, n_groups)
        else:
            dealt = plan.missing
        with ProgressView(progress, self._stream) as view, EventPump(view) as pump:
            pump.message(f"on {cluster}; {counted(n_groups, 'worker group')} at once")
            make_runner = partial(
                WorkerGroupRunner,
                self._resources,
                scratch=self._scratch,
                bfloat16=bfloat16,
                train=self._train,
                logs=WorkerLogs.as_here(self._scratch.parent),
            )
            # Once for all threads: each would restore what it found.
            with environment(train_environment(self._resources)):
                return run_shares(dealt, n_groups, make_runner, pump.send)


def run_shares(
    dealt: Sequence[list[FoldTask]],
    n_groups: int,
    make_runner: Callable[..., FoldRunner],
    report: Report,
) -> dict[str, str]:
    """Runs shares of folds from as many threads as there are groups.

    If a share ends with an error, its first fold that is not in the store is the one that
    failed: folds are trained in order. All shares skip its experiment from then on, and
    the share continues with the others.

    Args:
        dealt: shares, taken in order.
        n_groups: number of shares that run at once.
        make_runner: called with another ``name`` each time.
        report: called in the workers too, hence picklable; gets their events and those of
            steps that failed.

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
                _run_share(number, share, make_runner, report, failed)
        except queue.Empty:
            return
        except BaseException as error:
            # No fold's error: it must end the command, not this thread alone.
            errors.append(error)

    # Daemons, so that Ctrl-C ends the command at once; finished folds are in the store.
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
    number: int,
    share: list[FoldTask],
    make_runner: Callable[..., FoldRunner],
    report: Report,
    failed: dict[str, str],
) -> None:
    store = FoldStore(share[0].results)
    left, attempt = share, 0
    while left := [
        task for task in left if task.experiment.name not in failed and not store.has(task.key)
    ]:
        try:
            make_runner(name=f"share-{number:03d}-{attempt:02d}").run(left, report)
            return
        except Exception as error:
            lost = next((task for task in left if not store.has(task.key)), None)
            if lost is None:
                return
            failed[lost.experiment.name] = one_line(error)
            report(step_failed(lost, error))
        attempt += 1
