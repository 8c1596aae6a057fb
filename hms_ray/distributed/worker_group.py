"""The fold runner that trains in Ray Train worker groups."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayError
from ray.train import (
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer

from hms_ray.config.space import ResourcesConfig
from hms_ray.errors import HmsRayError, TrainingError, one_line
from hms_ray.experiment.fold_task import FoldTask, Report, report_with_task, run_task
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import AfterFold
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.run_log import WorkerLogs, log_fields

if TYPE_CHECKING:
    from hms_ray.train.process import Process

logger = logging.getLogger(__name__)

Train = Callable[[FoldTask, "Process"], None]


class WorkerGroupRunner:
    """Trains folds in groups of Ray Train workers, one process each.

    ``resources.group`` sets how many groups there are: one per fold, so that a lost node
    costs the work of one fold at most, or one for all tasks of a call, which saves
    starting workers again. The results are the same.

    A group that loses a worker or a node is restarted, up to ``resources.max_failures``
    times, and trains the folds that are not in the store. An ``HmsRayError`` is final at
    once, since a restart would raise it again.

    Args:
        resources: workers, and CPUs and GPUs of each.
        name: of the runs in Ray's folders, such as ``trial-0003``.
        scratch: folder for Ray Train's own files; on several nodes a shared one.
        logs: where workers log.
        bfloat16: whether every device has it; see ``Placement``.
        train: trains one fold in a worker, called by all ranks.
    """

    def __init__(
        self,
        resources: ResourcesConfig,
        *,
        name: str,
        scratch: Path,
        logs: WorkerLogs,
        bfloat16: bool = False,
        train: Train = run_task,
    ) -> None:
        self._resources, self._name, self._scratch = resources, name, scratch
        self._logs, self._bfloat16, self._train = logs, bfloat16, train

    @property
    def placement(self) -> Placement:
        """World size and device class of the groups."""
        return placement(self._resources, self._bfloat16)

    def run(
        self, tasks: Sequence[FoldTask], report: Report, after_fold: AfterFold | None = None
    ) -> None:
        """Trains every task; see ``FoldRunner``.

        Args:
            tasks: folds to train, of one experiment or of several.
            report: called in the worker of rank 0, hence picklable; gets what
                ``train_fold`` reports, and before and after each fold the events
                ``fold_started`` and ``fold_ended``, all with the task's ``fold``,
                ``key`` and ``experiment``.
            after_fold: see ``FoldRunner``.

        Raises:
            HmsRayError: the one that a worker raised.
            TrainingError: if workers failed otherwise, more often than restarts are allowed.
        """
        resources = self._resources
        tasks = [
            replace(
                task,
                share_stages=resources.share_stages,
                checkpoint_every_s=resources.checkpoint_every_s,
            )
            for task in tasks
        ]
        if self._resources.group == "trial":
            self._fit(tasks, self._name, report)
            if after_fold is not None:
                all(map(after_fold, tasks))
            return
        for task in tasks:
            # It may be there already: left by another task of this call, as its first stages.
            if not FoldStore(task.results).has(task.key):
                # The key makes the name unique: Ray would continue a run of the same name.
                self._fit([task], f"{self._name}-fold-{task.fold}-{task.key[:8]}", report)
            if after_fold is not None and not after_fold(task):
                return

    def _fit(self, tasks: Sequence[FoldTask], name: str, report: Report) -> None:
        resources = self._resources
        # NCCL, Ray's choice on GPUs, refuses to share one.
        shared = 0 < resources.gpus_per_worker < 1 and resources.workers > 1
        trainer = TorchTrainer(
            partial(_work, list(tasks), report, resources, self._train, self._logs),
            torch_config=TorchConfig(backend="gloo" if shared else None),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker=worker_resources(resources),
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(self._scratch),
                failure_config=FailureConfig(max_failures=resources.max_failures),
                callbacks=[_StopAtHmsRayError()],
            ),
        )
        with environment(train_environment(resources)):
            try:
                trainer.fit()
            except (WorkerGroupError, ControllerError, RayError) as error:
                raise self._translated(error, name) from error

    def _translated(self, error: Exception, name: str) -> HmsRayError:
        """The ``HmsRayError`` that a worker raised, or one with the first other error."""
        causes = _causes(error)
        ours = next((cause for cause in causes if isinstance(cause, HmsRayError)), None)
        if ours is not None:
            return ours
        return TrainingError(
            "a worker group must finish its folds",
            got=one_line(causes[0]),
            where=name,
            fix=f"Restarts allowed: {self._resources.max_failures} (resources.max_failures). "
            "Debug the fold without Ray: hms-ray train FILE --local --fold K",
        )


def placement(resources: ResourcesConfig, bfloat16: bool = False) -> Placement:
    """The part of a group's resources that affects its numbers."""
    return Placement(
        world_size=resources.workers,
        device_class=resources.device_class,
        bfloat16=bfloat16,
    )


def worker_resources(resources: ResourcesConfig) -> dict[str, float]:
    """One worker's resources by Ray's names."""
    needed = {"CPU": float(resources.cpus_per_worker), "GPU": float(resources.gpus_per_worker)}
    return {name: amount for name, amount in needed.items() if amount > 0}


class _StopAtHmsRayError(UserCallback):  # type: ignore[misc, unused-ignore]
    """Ends a run at the first ``HmsRayError`` instead of restarting its workers."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, HmsRayError):
                # For Ray, an error in a callback is final.
                raise error


def _causes(error: Exception) -> list[BaseException]:
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return list(error.worker_failures.values())
    if isinstance(error, ControllerError):
        return [error.controller_failure]
    return [error]


def train_environment(resources: ResourcesConfig) -> dict[str, str]:
    """Ray Train's settings in the environment of the process that starts a group."""
    return {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(resources.health_check_interval_s),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(resources.start_timeout_s),
        # Nobody reads these metrics, and a trial is not a folder to work in.
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of this process while a block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _work(
    tasks: Sequence[FoldTask],
    report: Report,
    resources: ResourcesConfig,
    train: Train,
    logs: WorkerLogs,
) -> None:
    """What every worker of a group runs."""
    import ray.train
    import ray.train.torch

    from hms_ray.train.process import Process
    from hms_ray.train.torch_settings import torch_threads

    context = ray.train.get_context()
    rank = int(context.get_world_rank())
    with logs.opened(), torch_threads(max(1, int(resources.cpus_per_worker))):
        for task in tasks:
            process = Process(
                rank=rank,
                world_size=int(context.get_world_size()),
                device=ray.train.torch.get_device(),
                report=partial(report_with_task, report, task),
                windows=resources.windows,
            )
            owner = {} if logs.fields else {"experiment": task.experiment.name}
            with log_fields(**owner, fold=task.fold, rank=rank):
                _train_task(task, process, train)


def _train_task(task: FoldTask, process: Process, train: Train) -> None:
    # A restarted group skips folds that its predecessor finished; and a fold may be in the
    # store as the first stages of another one.
    if process.call_on_rank0(partial(FoldStore(task.results).has, task.key)):
        logger.info("fold is in the store already (cache key %s)", task.key)
        return
    logger.info("fold started on %s (cache key %s)", process.device, task.key)
    if process.rank == 0:
        process.report({"event": "fold_started"})
    try:
        train(task, process)
    except Exception:
        logger.exception("fold failed")
        raise
    logger.info("fold ended")
    if process.rank == 0:
        process.report({"event": "fold_ended"})
