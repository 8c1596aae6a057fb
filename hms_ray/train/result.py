"""The result of training a fold, after its last stage or any earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_ray.train.checkpoint import cpu_weights


@dataclass(frozen=True)
class FoldResult:
    """The result of training a fold; the same on every rank.

    Each stage has a new optimiser, schedule and seeds, so this is all that the next stage
    needs: training of the whole experiment can resume from the result of its first stages.

    Attributes:
        valid: (n,) int64 predicted rows, as in the fold's data.
        probabilities: (n, 6) float64 of these rows, by ``weights``.
        history: one record per evaluation (see ``train_fold``).
        weights: the selected state of the model, on the CPU.
        last_weights: the state after the last step; the same object as ``weights`` if that
            state was selected.
        normalisation: source -> ``mode`` and, if fitted, ``mean`` and ``std``; lists for
            ``per_frequency``.
        timing: ``total_s`` and its parts ``prepare_s``, ``train_s``, ``evaluate_s`` (and
            ``keep_s`` between stages), and ``images_per_s`` in training, over all ranks.
            Resumed stages do not count.
        saved_s: seconds of training and evaluation that the resumed stages took.
        precision: ``float32``, ``bfloat16`` or ``float64``.
        optimistic: whether ``weights`` were selected by their score on ``valid``.
    """

    valid: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    history: list[dict[str, Any]]
    weights: dict[str, Tensor]
    last_weights: dict[str, Tensor]
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
    def n_steps(self) -> int:
        """Optimiser steps of all trained stages."""
        return int(self.history[-1]["step"])

    @property
    def stages_s(self) -> float:
        """Seconds of training and evaluation of all stages, resumed ones included."""
        return self.timing["train_s"] + self.timing["evaluate_s"] + self.saved_s


class CheckpointSelection:
    """Selects the predictions and weights of one evaluation.

    Args:
        best: select the evaluation with the smallest score, not the last one.
        resume_from: result of earlier stages.
    """

    def __init__(self, best: bool, resume_from: FoldResult | None = None) -> None:
        self.best = best
        self.score = float("inf")
        self.table: NDArray[np.float64]
        self.weights: dict[str, Tensor]
        self.is_last = False
        if resume_from is not None:
            self.table, self.weights = resume_from.probabilities, resume_from.weights
            scores = [record["kl_all"] for record in resume_from.history]
            self.score = min((s for s in scores if s is not None), default=self.score)

    def update(
        self, score: float | None, table: NDArray[np.float64], model: nn.Module, ends: bool
    ) -> None:
        """Selects an evaluation if it is the best so far or, without ``best``, the last.

        Args:
            score: its ``kl_all``.
            table: (n, 6) probabilities.
            model: the evaluated model.
            ends: whether it is the last evaluation of a stage.
        """
        better = score is not None and score < self.score
        if better:
            self.score = float(score or 0.0)
        self.is_last = better if self.best else ends
        if self.is_last:
            self.table, self.weights = table, cpu_weights(model)

    def last_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights of the last evaluation."""
        return self.weights if self.is_last else cpu_weights(model)
