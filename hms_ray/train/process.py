"""The process that trains a fold: alone, or one rank of a worker group."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hms_ray.errors import FoldCancelled, HmsRayError
from hms_ray.train.pulse import Pulse

if TYPE_CHECKING:
    from hms_ray.train.windows import OpenedPacks

T = TypeVar("T")


def ignore(record: dict[str, Any]) -> None:
    """Discards a report."""


def nothing() -> None:
    """Does nothing."""


def never() -> bool:
    """Never stops a fold."""
    return False


@dataclass(frozen=True)
class Process:
    """One training process.

    If ``world_size`` is above 1, the caller must have initialised torch's process group
    (NCCL for CUDA, gloo for CPUs).

    Attributes:
        rank: from 0.
        world_size: number of processes that train the fold together.
        device: of model and data.
        report: called on rank 0 after every evaluation, and once if stages are reused (see
            ``train_fold``).
        windows: ``resident`` keeps whole packs on the device, ``streamed`` copies each batch
            to it, ``auto`` decides by the device's free memory.
        should_stop: whether to end the fold with ``FoldCancelled``; called on rank 0 alone,
            about once per second, so it must return at once (see ``cancellable``).
        leaves: whether a machine of the fold is about to leave, so that it ends with
            ``FoldMoved`` once a checkpoint is written; called on rank 0 after an evaluation.
        on_step: called after every optimiser step.
        packs: keeps packs on the device for the folds to come; default: none are kept.
        pulse: shows a watch that the fold makes progress; default: one that nobody watches.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Callable[[dict[str, Any]], None] = ignore
    windows: Literal["auto", "resident", "streamed"] = "auto"
    should_stop: Callable[[], bool] = never
    leaves: Callable[[], bool] = never
    on_step: Callable[[], None] = nothing
    packs: OpenedPacks | None = None
    pulse: Pulse = field(default_factory=Pulse, compare=False)

    @property
    def grouped(self) -> bool:
        """Whether there are other ranks."""
        return self.world_size > 1

    def shard_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's slice of rows; the ranks' slices are disjoint, in order and cover all."""
        return np.array_split(rows, self.world_size)[self.rank]

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.grouped:
            self.pulse.advance()
            dist.all_reduce(values)
        return values

    def broadcast_from_rank0(self, values: Tensor) -> Tensor:
        """Rank 0's values, in place."""
        if self.grouped:
            dist.broadcast(values, 0)
        return values

    def call_on_rank0(self, function: Callable[[], T]) -> T:
        """Calls a function on rank 0 alone and returns its result on every rank.

        Used for decisions that depend on a shared folder: ranks that see it differently
        would wait for each other forever.

        Args:
            function: its result must be picklable.

        Raises:
            HmsRayError, FoldCancelled: on every rank, if ``function`` raises one.
        """
        if not self.grouped:
            return function()
        # All ranks but the first one are ahead of it until its call has ended.
        if self.rank > 0:
            self.pulse.advance()
        outcome: list[Any] = [None]
        if self.rank == 0:
            try:
                outcome = [function()]
            except (HmsRayError, FoldCancelled) as error:
                outcome = [error]
            self.pulse.advance()
        # NCCL transfers GPU memory only.
        device = self.device if dist.get_backend() == "nccl" else torch.device("cpu")
        dist.broadcast_object_list(outcome, 0, device=device)
        if isinstance(outcome[0], HmsRayError | FoldCancelled):
            raise outcome[0]
        result: T = outcome[0]
        return result

    def broadcast_numbers(self, *numbers: int) -> list[int]:
        """Rank 0's integers on every rank; the device is not waited for."""
        if not self.grouped:
            return list(numbers)
        self.pulse.advance()
        values = torch.tensor(numbers)
        dist.broadcast(values, 0, group=_cpu_group())
        return [int(value) for value in values]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copies rank 0's buffers to every rank.

        Batch statistics differ between ranks after training steps. Rank 0 saves its own, so
        every rank must score with them.
        """
        for buffer in model.buffers():
            self.broadcast_from_rank0(buffer)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model to train: with several ranks, its gradients are means over them."""
        if not self.grouped:
            return model
        # Buffers are broadcast before every evaluation, which is when they matter.
        known = inspect.signature(DistributedDataParallel).parameters
        syncing = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {syncing: False}
        if self.device.type == "cuda":
            options["device_ids"] = [self.device]
        return DistributedDataParallel(model, **options)


_made: dict[str, Any] = {}
"""The process group that ``_cpu_group`` has made, and the one that it was made for."""


def _cpu_group() -> Any:
    """A process group of all ranks that transfers main memory; made once on all ranks."""
    world = dist.group.WORLD
    if dist.get_backend() != "nccl":
        return world
    if _made.get("world") is not world:
        _made.update(world=world, group=dist.new_group(backend="gloo"))
    return _made["group"]
