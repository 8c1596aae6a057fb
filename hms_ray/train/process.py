"""Where a fold is trained: one process, or one rank of a group."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hms_ray.errors import HmsRayError

T = TypeVar("T")


def ignore(record: dict[str, Any]) -> None:
    """Takes a report and does nothing with it."""


@dataclass(frozen=True)
class Process:
    """One process that trains.

    Where ``world_size`` is above 1, the caller has initialised torch's process
    group (NCCL for CUDA, gloo for CPUs) with these ranks.

    Attributes:
        rank: from 0.
        world_size: processes that train the fold together.
        device: of model and data.
        report: called on rank 0 after every evaluation, and where training goes on from
            stages that are known (see ``train_fold``).
        windows: ``resident`` holds the pack on the device, ``streamed`` copies each
            batch to it, ``auto`` decides by the device's free memory.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Callable[[dict[str, Any]], None] = ignore
    windows: Literal["auto", "resident", "streamed"] = "auto"

    @property
    def grouped(self) -> bool:
        """Whether there are other ranks to talk to."""
        return self.world_size > 1

    def shard_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's slice of rows; slices are disjoint, in order and cover all."""
        return np.array_split(rows, self.world_size)[self.rank]

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.grouped:
            dist.all_reduce(values)
        return values

    def broadcast_from_rank0(self, values: Tensor) -> Tensor:
        """Rank 0's values, in place."""
        if self.grouped:
            dist.broadcast(values, 0)
        return values

    def call_on_rank0(self, decide: Callable[[], T]) -> T:
        """What ``decide`` gives on rank 0, on every rank; it is called there alone.

        Ranks that looked for themselves might see a shared folder differently, and then
        wait for each other.

        Args:
            decide: returns what can be pickled.

        Raises:
            HmsRayError: on every rank, where ``decide`` raises one.
        """
        if not self.grouped:
            return decide()
        outcome: list[Any] = [None]
        if self.rank == 0:
            try:
                outcome = [decide()]
            except HmsRayError as error:
                outcome = [error]
        # NCCL carries nothing but what lies on the GPU.
        device = self.device if dist.get_backend() == "nccl" else torch.device("cpu")
        dist.broadcast_object_list(outcome, 0, device=device)
        if isinstance(outcome[0], HmsRayError):
            raise outcome[0]
        decided: T = outcome[0]
        return decided

    def broadcast_buffers_from_rank0(self, model: nn.Module) -> None:
        """Gives every rank rank 0's buffers: batch statistics drift apart in training.

        They are what rank 0 saves, so every rank must score with them.
        """
        for buffer in model.buffers():
            self.broadcast_from_rank0(buffer)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as it is to be trained: its gradients are means over the ranks."""
        if not self.grouped:
            return model
        # Buffers are broadcast before every evaluation, which is when they matter.
        known = inspect.signature(DistributedDataParallel).parameters
        syncing = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {syncing: False}
        if self.device.type == "cuda":
            options["device_ids"] = [self.device]
        return DistributedDataParallel(model, **options)
