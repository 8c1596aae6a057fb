"""The result of training a fold, after its last stage or any earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class FoldResult:
    """The result of training a fold; the same on every rank.

    Each stage has a new optimiser, schedule and seeds, so this is all that the next stage
    needs: training of the whole experiment can resume from the result of its first stages.

    Attributes:
        valid: (n,) int64 predicted rows, as in the fold's data.
        probabilities: (n, 6) float64 of these rows, by ``weights``.
        history: one record per evaluation (see ``train_fold``).
        weights: the state of the model, on the CPU, at the selected evaluation of the last
            stage; the next stage starts from it.
        normalisation: source -> ``mode`` and, if fitted, ``mean`` and ``std``; lists for
            ``per_frequency``.
        timing: ``total_s`` and its parts ``prepare_s``, ``train_s``, ``evaluate_s`` (and
            ``keep_s``, in which stages and checkpoints are stored), and ``images_per_s`` in
            training, over all ranks. Resumed stages do not count; what earlier processes
            trained up to a checkpoint does.
        saved_s: seconds of training and evaluation that the resumed stages took.
        precision: ``float32``, ``bfloat16``, ``float16`` or ``float64``.
        optimistic: whether an evaluation of any stage was selected by its score on ``valid``.
    """

    valid: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    history: list[dict[str, Any]]
    weights: dict[str, Tensor]
    normalisation: dict[str, Any]
    timing: dict[str, float]
    saved_s: float
    precision: str
    optimistic: bool

    @property
    def n_stages(self) -> int:
        """Number of trained stages."""
        return int(self.history[-1]["stage_index"]) + 1

    @property
    def next_stage(self) -> int:
        """Index of the stage that follows."""
        return self.n_stages

    @property
    def n_steps(self) -> int:
        """Optimiser steps of all trained stages."""
        return int(self.history[-1]["step"])

    @property
    def stages_s(self) -> float:
        """Seconds of training and evaluation of all stages, resumed ones included."""
        return self.timing["train_s"] + self.timing["evaluate_s"] + self.saved_s
