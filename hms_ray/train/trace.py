"""A trace of some training steps, recorded by torch's profiler."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final

import torch
from torch.profiler import ProfilerActivity

WARM_UP_STEPS: Final = 1
"""Steps that the profiler runs without recording them; its start distorts their times."""


class StepTrace:
    """Records some steps of training as a Chrome trace; to be used as a context manager.

    Args:
        file: written once all ``steps`` are recorded, or with fewer at the end of the block;
            compressed if its name ends in ``.gz``.
        skip: steps that are trained first, while caches fill and models compile.
        steps: number of steps to record, at least 1.

    Attributes:
        file: as given.
        n_recorded: number of steps in the file; 0: it was not written.
    """

    def __init__(self, file: Path, skip: int, steps: int) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self.n_recorded, self.file = 0, file
        self._skip, self._steps, self._n_trained = skip, steps, 0
        self._profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(
                wait=skip, warmup=WARM_UP_STEPS, active=steps, repeat=1
            ),
            on_trace_ready=self._write,
        )

    def __enter__(self) -> StepTrace:
        self._profiler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._profiler.stop()

    def step(self) -> None:
        """Must be called after each step of training."""
        self._n_trained += 1
        self._profiler.step()

    def _write(self, profiler: torch.profiler.profile) -> None:
        n_recorded = min(self._n_trained - self._skip - WARM_UP_STEPS, self._steps)
        if n_recorded > 0:
            profiler.export_chrome_trace(str(self.file))
            self.n_recorded = n_recorded
