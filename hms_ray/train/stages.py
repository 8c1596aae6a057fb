"""Rows, optimiser and learning rate schedule of a stage."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from hms_ray.config.training import ResolvedStage, TrainingConfig
from hms_ray.errors import TrainingError

_UNSTEPPED_BETA1: Final = 0.85


def stage_rows(
    stage: ResolvedStage, total_votes: NDArray[np.int64], targets: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Positions of the rows that a stage trains on, ascending.

    A row is *good* if it has at least ``threshold`` votes or, with ``unanimous_from``, at
    least that many and all for one class.

    Args:
        stage: trains on ``all`` rows, the good ones (``at_least_threshold``) or the others
            (``below_threshold``).
        total_votes: (n,) votes of the fold's training rows.
        targets: (n, 6) shares of votes, sum 1.

    Raises:
        TrainingError: if no row is left.
    """
    if stage.rows == "all":
        chosen = np.ones(len(total_votes), dtype=bool)
    else:
        good = total_votes >= (stage.threshold or 0)
        if stage.unanimous_from is not None:
            good |= (total_votes >= stage.unanimous_from) & (targets.max(axis=1) == 1)
        chosen = good if stage.rows == "at_least_threshold" else ~good
    rows = np.flatnonzero(chosen).astype(np.int64)
    if len(rows) == 0:
        raise _no_rows(stage, total_votes)
    return rows


def _no_rows(stage: ResolvedStage, total_votes: NDArray[np.int64]) -> TrainingError:
    rule, knobs = f"{stage.rows} {stage.threshold or ''}".rstrip(), "training.stage_threshold"
    if stage.unanimous_from is not None:
        rule += f", unanimous ones from {stage.unanimous_from}"
        knobs += ", training.unanimous_from"
    span = f"{total_votes.min()}-{total_votes.max()} votes" if len(total_votes) else "no rows"
    return TrainingError(
        f"a stage needs training rows ({rule})",
        got=f"none among {len(total_votes)} rows of {span}" if len(total_votes) else span,
        where=f"stage {stage.name}",
        fix=f"Change {knobs} or the stage's rows.",
    )


def make_optimiser(
    model: nn.Module, training: TrainingConfig, stage: ResolvedStage
) -> torch.optim.AdamW:
    """A new AdamW for one stage, with weight decay on all parameters (published)."""
    # Fused: a step on a CPU is three to four times as fast as by default (measured).
    return torch.optim.AdamW(
        model.parameters(), lr=stage.learning_rate, weight_decay=training.weight_decay, fused=True
    )


def make_schedule(
    optimiser: torch.optim.Optimizer,
    training: TrainingConfig,
    stage: ResolvedStage,
    n_steps: int,
) -> LRScheduler:
    """OneCycle over a stage, or a constant rate; to be stepped after every optimiser step.

    OneCycle: the rate rises from ``learning_rate / div_factor`` over the share ``warmup`` of
    the steps, then falls on a cosine to ``learning_rate / div_factor / final_div_factor`` at
    the last step. Without warmup, step k of n (from 0) has the rate at (k + 1) / n of the
    cosine. AdamW's beta1 runs opposite to the rate, 0.95 -> 0.85 -> 0.95 (PyTorch's default,
    used by the published code). ``constant``: the rate and a beta1 of 0.85, the value at
    which the published code left it.
    """
    if training.schedule == "constant":
        for group in optimiser.param_groups:
            group["betas"] = (_UNSTEPPED_BETA1, group["betas"][1])
        return LambdaLR(optimiser, lambda step: 1.0)
    warmup = float(training.warmup)
    while warmup * n_steps == 1.0:
        # PyTorch divides by zero if the rise takes exactly one step.
        warmup = float(np.nextafter(warmup, 1.0))
    return OneCycleLR(
        optimiser,
        max_lr=stage.learning_rate,
        total_steps=n_steps,
        pct_start=warmup,
        div_factor=training.div_factor,
        final_div_factor=training.final_div_factor,
    )
