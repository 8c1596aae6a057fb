"""The fold runner without Ray: one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from hms_ray.config.space import CHECKPOINT_EVERY_S, ResourcesConfig
from hms_ray.errors import ConfigError
from hms_ray.experiment.fold_task import FoldTask, Report, report_with_task, run_task
from hms_ray.experiment.placement import DeviceClass, Placement
from hms_ray.experiment.run import AfterFold
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.run_log import log_fields


def local_device_class() -> DeviceClass:
    """The device that training in this process uses unless another one is named."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def n_gpus() -> int:
    """GPUs of this machine that torch can use."""
    import torch

    return torch.cuda.device_count()


def cpus_and_gpus(resources: ResourcesConfig) -> tuple[int, int]:
    """Logical CPUs and GPUs of this machine that worker groups can use."""
    return os.cpu_count() or 1, n_gpus() if resources.device_class == "cuda" else 0


class InProcessRunner:
    """Trains folds one after the other in this process, where breakpoints work.

    Args:
        threads: torch threads while folds are trained, at least 1.
        device: ``cpu`` or ``cuda``. Default: cuda if available.
        share_stages: see ``ResourcesConfig``.
        windows: likewise.
        on_step: called after every optimiser step.
        checkpoint_every_s: see ``ResourcesConfig``.
        local_cache: likewise.

    Raises:
        ConfigError: if there is less than one thread.
    """

    def __init__(
        self,
        threads: int = 1,
        device: str | None = None,
        *,
        share_stages: bool = True,
        windows: Literal["auto", "resident", "streamed"] = "auto",
        on_step: Callable[[], None] | None = None,
        checkpoint_every_s: float | None = CHECKPOINT_EVERY_S,
        local_cache: Path | None = None,
    ) -> None:
        if threads < 1:
            raise ConfigError("threads must be at least 1", got=threads)
        import torch

        from hms_ray.train.score import has_bfloat16

        self.device = torch.device(device or local_device_class())
        self._bfloat16 = has_bfloat16(self.device)
        self._threads, self._windows = threads, windows
        self._share_stages, self._checkpoint_every_s = share_stages, checkpoint_every_s
        self._on_step, self._local_cache = on_step, local_cache

    @property
    def placement(self) -> Placement:
        """One process on the device."""
        kind: DeviceClass = "cuda" if self.device.type == "cuda" else "cpu"
        return Placement(world_size=1, device_class=kind, bfloat16=self._bfloat16)

    def run(
        self, tasks: Sequence[FoldTask], report: Report, after_fold: AfterFold | None = None
    ) -> None:
        """Trains the tasks that are not in the store; see ``FoldRunner``."""
        for task in tasks:
            if not FoldStore(task.results).has(task.key):
                self._train(task, report)
            if after_fold is not None and not after_fold(task):
                return

    def _train(self, task: FoldTask, report: Report) -> None:
        from hms_ray.train.process import Process, nothing
        from hms_ray.train.torch_settings import torch_threads

        report_fold = partial(report_with_task, report, task)
        report_fold({"event": "fold_started"})
        process = Process(
            device=self.device,
            report=report_fold,
            windows=self._windows,
            on_step=self._on_step or nothing,
        )
        with log_fields(fold=task.fold, rank=0), torch_threads(self._threads):
            task = replace(
                task,
                share_stages=self._share_stages,
                checkpoint_every_s=self._checkpoint_every_s,
                local_cache=self._local_cache,
            )
            run_task(task, process)
        report_fold({"event": "fold_ended"})
