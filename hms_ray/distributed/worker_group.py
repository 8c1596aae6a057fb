"""One Ray Train worker group that takes folds from a queue."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray.exceptions import OutOfMemoryError, RayError
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
from hms_ray.distributed.group_resources import worker_resources
from hms_ray.distributed.worker_loop import work
from hms_ray.errors import one_line


def run_group(
    queue: Any, group: str, run: str, resources: ResourcesConfig, scratch: Path
) -> str | None:
    """Starts a worker group and returns when it has ended.

    Ray Train restarts lost workers without limit: the queue counts the losses of each fold.

    Args:
        queue: handle of the queue's actor.
        group: name of the group.
        run: name of its run in Ray's folders, never used before.
        resources: workers, and CPUs and GPUs of each.
        scratch: folder for Ray Train's own files; on several nodes a shared one.

    Returns:
        Why it ended, one line; None if the queue stopped it.
    """
    # NCCL, Ray's choice on GPUs, refuses to share one.
    shared = 0 < resources.gpus_per_worker < 1 and resources.workers > 1
    trainer = _Trainer(
        partial(work, queue, group, resources),
        torch_config=TorchConfig(backend="gloo" if shared else None),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=worker_resources(resources),
        ),
        run_config=RunConfig(
            name=run,
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=-1),
            callbacks=[_ReportLoss(queue, group)],
        ),
    )
    try:
        trainer.fit()
    except (WorkerGroupError, ControllerError, RayError) as error:
        return _reason(_cause(error))
    return None


class _Trainer(TorchTrainer):  # type: ignore[misc, unused-ignore]
    """Starts no processes that a worker group has no use for.

    They take seconds of each start on a small machine: an actor for data sets of Ray Data, and a
    cleaner of placement groups that frees nothing without Ray's dashboard (``StrayGroups`` does).
    """

    def _create_default_callbacks(self) -> list[Any]:
        unused = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
        made: list[Any] = super()._create_default_callbacks()
        return [callback for callback in made if type(callback).__name__ not in unused]


class _ReportLoss(UserCallback):  # type: ignore[misc, unused-ignore]
    """Reports lost workers at once; the restarted ones need seconds until they report."""

    def __init__(self, queue: Any, group: str) -> None:
        self._queue, self._group = queue, group

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Called by Ray Train's controller."""
        _, error = min(worker_exceptions.items())
        self._queue.call.remote("lost", self._group, _reason(error))


def _reason(error: BaseException) -> str:
    """A loss in one line."""
    # Ray Train's own error of a worker that does not answer has no public type.
    error = getattr(error, "health_check_failure", error)
    if isinstance(error, OutOfMemoryError):
        # Its first line has the numbers, the last one general advice.
        return f"OutOfMemoryError: {str(error).strip().splitlines()[0][:300]}"
    return one_line(error)


def _cause(error: Exception) -> BaseException:
    cause: BaseException = error
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        cause = next(iter(error.worker_failures.values()))
    elif isinstance(error, ControllerError):
        cause = error.controller_failure
    return cause


def train_environment(resources: ResourcesConfig) -> dict[str, str]:
    """Ray Train's settings in the environment of the process that starts a group."""
    return {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(resources.health_check_interval_s),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(resources.start_timeout_s),
        # Nobody reads these metrics, and a trial is not a folder to work in.
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
