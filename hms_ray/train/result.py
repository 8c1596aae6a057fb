"""What training a fold came to, at its end or after any of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_ray.train.checkpoint import cpu_weights


@dataclass(frozen=True)
class FoldResult:
    """What training a fold came to; the same on every rank.

    Since each stage has a fresh optimiser, schedule and seeds, this is all that the
    stage after it needs: the result of an experiment's first stages is what the whole
    experiment can go on from.

    Attributes:
        valid: (n,) int64 rows predicted, as in the fold's data.
        probabilities: (n, 6) float64 of these rows, by the weights kept.
        history: one record an evaluation (see ``train_fold``).
        weights: the model's state on the CPU, as kept.
        last_weights: the state after the last step; the very same object as
            ``weights`` where that is what was kept.
        normalisation: source -> ``mode`` and, where fitted, ``mean`` and ``std``; in
            ``per_frequency`` these are lists.
        timing: seconds ``total_s``, of which ``prepare_s``, ``train_s`` and
            ``evaluate_s`` (and ``keep_s`` between stages), and ``images_per_s`` of all
            ranks in training; what was spent here, without stages trained before.
        saved_s: seconds of training and evaluation that those stages took.
        precision: what was used: ``float32``, ``bfloat16`` or ``float64``.
        optimistic: whether the weights kept were chosen by their score on ``valid``.
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
        """Stages that are trained."""
        return int(self.history[-1]["stage_index"]) + 1

    @property
    def n_steps(self) -> int:
        """Optimiser steps of these stages."""
        return int(self.history[-1]["step"])

    @property
    def stages_s(self) -> float:
        """Seconds that these stages take to train and to evaluate, whoever did it."""
        return self.timing["train_s"] + self.timing["evaluate_s"] + self.saved_s


class Kept:
    """The predictions and weights that a fold ends with.

    Args:
        best: keep those of the best evaluation instead of the last one's.
        resume_from: result of the stages trained before.
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

    def offer(
        self, score: float | None, table: NDArray[np.float64], model: nn.Module, ends: bool
    ) -> None:
        """Takes an evaluation, or not.

        Args:
            score: its ``kl_all``.
            table: (n, 6) probabilities.
            model: as it was evaluated.
            ends: whether a stage ends with it.
        """
        better = score is not None and score < self.score
        if better:
            self.score = float(score or 0.0)
        self.is_last = better if self.best else ends
        if self.is_last:
            self.table, self.weights = table, cpu_weights(model)

    def last_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights of the evaluation offered last."""
        return self.weights if self.is_last else cpu_weights(model)
