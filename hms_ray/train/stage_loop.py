"""Trains one stage of a fold, with two evaluations per epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hms_ray.config.training import ResolvedStage
from hms_ray.train.batches import Batch, halves, plan_epoch
from hms_ray.train.cancel import cancellable
from hms_ray.train.checkpoint import cpu_weights
from hms_ray.train.device_meters import peak_bytes
from hms_ray.train.fold_state import Evaluated, FoldState
from hms_ray.train.fold_training import FoldTraining
from hms_ray.train.losses import loss_name
from hms_ray.train.result import FoldResult
from hms_ray.train.seeds import Purpose, derive_seed
from hms_ray.train.selection import EvaluationSelection
from hms_ray.train.step import Step, stage_step

logger = logging.getLogger(__name__)

OnEvaluation = Callable[[Callable[[], FoldState]], None]

_DROPOUT: Final[tuple[Purpose, Purpose]] = ("dropout", "second dropout")
"""Seeds before each evaluation of an epoch, so that training can resume there."""


def train_stage(
    fold: FoldTraining, model: nn.Module, index: int, on_evaluation: OnEvaluation
) -> FoldResult:
    """Trains one stage, or the rest of it, and selects one of its two evaluations per epoch."""
    training, (stage, rows, counted) = fold.experiment.training, fold.stages[index]
    n_steps = stage.epochs * fold.n_batches(rows)
    made_for = fold.network, fold.process, fold.precision
    step = stage_step(model, *made_for, fold.experiment, stage, n_steps)
    selection: EvaluationSelection[Evaluated] = EvaluationSelection(stage)
    resumed = fold.state if fold.state and fold.state.next_stage == index else None
    n_done = 0.0 if resumed is None else resumed.epoch
    if resumed is not None:
        step.load(resumed.step)
        selection = EvaluationSelection(stage, resumed.best, resumed.kept)
    else:
        logger.info("stage %s started: %d rows, %d epochs", stage.name, len(rows), stage.epochs)
    end = fold.ends[index]
    for epoch in range(int(n_done), math.ceil(end)):
        seed_path = fold.fold, index, epoch
        image = fold.images.joined
        batches = plan_epoch(fold.data, rows, training, stage, image, seed_path, fold.process)
        where = f"stage {stage.name}, epoch {epoch + 1}"
        for (half, part), purpose in zip(halves(batches), _DROPOUT, strict=False):
            if not n_done < epoch + half <= end:
                continue
            # Anew after each evaluation, since training may resume there: DDP orders its
            # all-reduces by the steps that it has seen.
            step.network = fold.process.wrap(fold.network)
            dropout = derive_seed(training.seed, *seed_path, purpose, fold.process.rank)
            torch.manual_seed(dropout)
            train_loss = _train(fold, step, part, where)
            scored = step.scored(model)
            table, scores = fold.evaluate(scored, f"{where}, step {fold.history.n_done}")
            criterion = selection.update(
                epoch,
                fold.evaluate.criterion(stage, counted, table, scores),
                partial(_evaluated, table, scored),
                ends=epoch + half == end,
            )
            fold.clock.lap("evaluate_s")
            fold.history.add(
                {
                    "stage": stage.name,
                    "stage_index": index,
                    "epoch": epoch + half,
                    "step": fold.history.n_done,
                    **scores,
                    **({"criterion": criterion} if stage.checkpoint == "best" else {}),
                    "train_loss": train_loss,
                    "learning_rate": step.learning_rate,
                    "seconds": fold.clock.offset_s + fold.clock.total(),
                    **_measures(fold, step, stage, index, epoch + half),
                }
            )
            if fold.process.rank == 0 and fold.history.n_done < fold.history.n_steps:
                on_evaluation(partial(fold.make_state, model, step, selection))
                fold.clock.lap("keep_s")
    assert selection.kept is not None
    return fold.result(*selection.kept)


def _measures(
    fold: FoldTraining, step: Step, stage: ResolvedStage, index: int, epoch: float
) -> dict[str, Any]:
    """What charts show of an evaluation beside its scores."""
    device, model = fold.process.device, fold.experiment.model
    earlier = sum(done.epochs for done, _, _ in fold.stages[:index])
    return {
        "epochs": earlier + epoch,
        "loss": loss_name(stage.loss, model.output, model.head),
        "gradient_norm": step.gradient_norm,
        "images_per_s": fold.clock.recent_rate(),
        "gpu_memory_gib": peak_bytes(device) / 2**30 if device.type == "cuda" else None,
    }


def _train(fold: FoldTraining, step: Step, batches: list[Batch], where: str) -> float:
    """Takes one step per batch and returns the mean loss."""
    made = zip(batches, fold.images.for_training(batches), strict=True)
    last = len(batches) - 1
    losses = [
        step(batch, image, measured=position == last)
        for position, (batch, image) in enumerate(cancellable(made, fold.process))
    ]
    train_loss = step.mean_loss(losses, where, fold.history.n_done)
    fold.history.n_done += len(batches)
    fold.clock.lap("train_s")
    fold.clock.images += sum(batch.n_global for batch in batches)
    return train_loss


def _evaluated(table: NDArray[np.float64], model: nn.Module) -> Evaluated:
    return table, cpu_weights(model)
