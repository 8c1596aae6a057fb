"""What the workers of a group run: one job after another, until the queue stops them."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ray
from ray.exceptions import RayActorError, RayError

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed.job import FoldEnd, Job
from hms_ray.distributed.stall_watch import StallWatch
from hms_ray.errors import (
    DeviceMemoryError,
    FoldCancelled,
    FoldMoved,
    HmsRayError,
    TrainingError,
    one_line,
)
from hms_ray.experiment.fold_task import FoldTask, report_with_task
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.run_log import log_fields
from hms_ray.text import counted

if TYPE_CHECKING:
    from hms_ray.distributed.job import Train
    from hms_ray.train.process import Process
    from hms_ray.train.pulse import Pulse

logger = logging.getLogger(__name__)

RETRY_S: Final = 1.0


class GroupBrokenError(RuntimeError):
    """Raised in a worker so that Ray Train starts its group again."""


def work(queue: Any, group: str, resources: ResourcesConfig) -> None:
    """Trains jobs of the queue; called on every rank of a group.

    Ranks wait for jobs by themselves, never for each other: an idle group is in no collective.

    Args:
        queue: handle of the queue's actor.
        group: name of the group.
        resources: of the group.
    """
    import ray.train
    import ray.train.torch

    from hms_ray.train.process import Process
    from hms_ray.train.pulse import Pulse
    from hms_ray.train.windows import OpenedPacks

    context = ray.train.get_context()
    rank, world_size = int(context.get_world_rank()), int(context.get_world_size())
    alone = Process(rank=rank, world_size=world_size, device=ray.train.torch.get_device())
    seat = alone.call_on_rank0(lambda: ray.get(queue.call.remote("sit", group, world_size)))
    node = ray.get_runtime_context().get_node_id()
    cancelled = _Cancelled(queue, seat) if rank == 0 else None
    packs = OpenedPacks(alone.device)
    place = 0
    while (job := ray.get(queue.take.remote(seat, rank, place, node))) != "stop":
        if job is None:
            continue
        pulse = Pulse()
        process = Process(
            rank=rank,
            world_size=world_size,
            device=alone.device,
            report=partial(_report, job, pulse),
            windows=resources.windows,
            should_stop=partial(cancelled.holds, place) if cancelled else _never,
            leaves=partial(_leaves, queue, seat),
            packs=packs,
            pulse=pulse,
        )
        if cancelled:
            cancelled.training = place, job.key
        with _watched(queue, seat, place, job, process, resources.stall_timeout_s):
            end = _end_of(job, process, resources)
        _clean_up(process, resources)
        if ray.get(queue.done.remote(seat, rank, place, end)) == "restart":
            raise GroupBrokenError(end.reason or "the ranks of the group did not end alike")
        place += 1


def _report(job: Job, pulse: Pulse, record: dict[str, Any]) -> None:
    pulse.beat()
    report_with_task(job.report, job.task, record)


def _watched(
    queue: Any, seat: int, place: int, job: Job, process: Process, timeout_s: float | None
) -> AbstractContextManager[object]:
    """The watch that ends this process if the fold stalls."""
    if timeout_s is None:
        return nullcontext()
    return StallWatch(queue, seat, process.rank, place, process.pulse, timeout_s, job.logs.file)


def _leaves(queue: Any, seat: int) -> bool:
    """Whether a machine of a seat is about to leave, such as a spot machine."""
    try:
        return bool(ray.get(queue.leaves.remote(seat)))
    except RayError:
        # Ray restarts a lost queue; it is asked again after the next evaluation.
        return False


def _never() -> bool:
    return False


class _Cancelled:
    """Which job of a seat is cancelled, kept up to date by a thread.

    Attributes:
        training: place and cache key of the job that is being trained or was trained last.
    """

    def __init__(self, queue: Any, seat: int) -> None:
        self._queue, self._seat, self._place = queue, seat, -1
        self.training: tuple[int, str] | None = None
        threading.Thread(target=self._follow, name="cancelled", daemon=True).start()

    def holds(self, place: int) -> bool:
        """Whether the job at a place is cancelled."""
        return self._place == place

    def _follow(self) -> None:
        while True:
            try:
                place = self._queue.to_cancel.remote(self._seat, self._place, self.training)
                self._place = ray.get(place)
            except RayActorError:
                # Ray restarts a lost queue.
                time.sleep(RETRY_S)
            except Exception:
                # The run ends.
                logger.debug("cancellations are no longer followed", exc_info=True)
                return


def _end_of(job: Job, process: Process, resources: ResourcesConfig) -> FoldEnd:
    """Trains a job and returns how it ended."""
    from hms_ray.train.torch_settings import torch_threads

    task = job.task
    owner = {} if job.logs.fields else {"experiment": task.experiment.name}
    threads = torch_threads(max(1, int(resources.cpus_per_worker)))
    with job.logs.opened(), log_fields(**owner, fold=task.fold, rank=process.rank), threads:
        try:
            _train_with_room(task, process, job.train)
        except FoldCancelled:
            logger.info("fold cancelled")
            return FoldEnd("cancelled")
        except FoldMoved as moved:
            logger.info("fold moved: %s", moved)
            return FoldEnd("moved", reason=str(moved))
        except HmsRayError as error:
            logger.exception("fold failed")
            # An error that an operation raised may come on one rank alone.
            return FoldEnd("failed", error, in_step=not isinstance(error.__cause__, RuntimeError))
        except Exception as error:
            logger.exception("fold failed")
            if _of_device_or_connection(error):
                return FoldEnd("broken", reason=one_line(error))
            # A collective raises one of these if another rank was lost.
            own = not (process.grouped and isinstance(error, RuntimeError | OSError))
            failure = _unexpected(error, task, job.logs.file)
            return FoldEnd("failed", failure, in_step=False, own=own, reusable=False)
    return FoldEnd("trained")


def _of_device_or_connection(error: Exception) -> bool:
    """Whether another process, maybe on another machine, may succeed."""
    import torch
    from torch.distributed import DistError

    if isinstance(error, GroupBrokenError | DistError | torch.AcceleratorError):
        return True
    # Libraries of CUDA report a broken device by a plain one.
    text = str(error)
    return isinstance(error, RuntimeError) and ("CUDA error" in text or "cuDNN error" in text)


def _unexpected(error: Exception, task: FoldTask, log: Path) -> TrainingError:
    return TrainingError(
        "a fold must be trained without an unexpected error",
        got=one_line(error),
        where=f"fold {task.fold} of {task.experiment.name}",
        fix=f"Read the traceback in {log}, or debug the fold without Ray: hms-ray train FILE "
        f"--local --fold {task.fold}",
    )


def _train_with_room(task: FoldTask, process: Process, train: Train) -> None:
    """Trains a fold; once more without the packs of earlier folds if memory is full.

    Raises:
        GroupBrokenError: instead, with several ranks: the others wait for this one.
    """
    try:
        return _train(task, process, train)
    except DeviceMemoryError as error:
        if process.packs is None or not (n_freed := process.packs.free_unused()):
            raise
        text = f"memory was full beside {counted(n_freed, 'pack')} of earlier folds"
        if process.grouped:
            raise GroupBrokenError(text) from error
        logger.warning("%s: trying again without (%s)", text, error)
    # Not in the block above, whose error keeps the tensors of the first attempt.
    _empty_cache(process)
    return _train(task, process, train)


def _train(task: FoldTask, process: Process, train: Train) -> None:
    # A restarted group skips folds that its predecessor finished; and a fold may be in the
    # store as the first stages of another one.
    if process.call_on_rank0(partial(FoldStore(task.results).has, task.key)):
        logger.info("fold is in the store already (cache key %s)", task.key)
        return
    logger.info("fold started on %s (cache key %s)", process.device, task.key)
    if process.rank == 0:
        process.report({"event": "fold_started"})
    train(task, process)
    logger.info("fold ended")
    if process.rank == 0:
        process.report({"event": "fold_ended"})


def _clean_up(process: Process, resources: ResourcesConfig) -> None:
    """Gives memory back to the workers that share the GPU."""
    if 0 < resources.gpus_per_worker < 1:
        _empty_cache(process)


def _empty_cache(process: Process) -> None:
    if process.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
