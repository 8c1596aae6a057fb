"""One optimiser step on one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from hms_ray.config.experiment import Experiment
from hms_ray.config.training import ResolvedStage
from hms_ray.errors import DivergedError
from hms_ray.signal.on_device import on_device
from hms_ray.train.average import AveragedModel
from hms_ray.train.batches import Batch
from hms_ray.train.heads import by_tier
from hms_ray.train.losses import DIVERGENCES
from hms_ray.train.model_images import ModelImages, split_rows
from hms_ray.train.process import Process
from hms_ray.train.score import Precision, autocast, remedy_for_overflow, storage_dtype
from hms_ray.train.stages import make_optimiser, make_schedule

MIN_LOSS_SCALE: Final = 1.0
"""Below it, gradients are not finite in float16 even if the loss is not scaled up."""


class Step:
    """One optimiser step on one batch.

    In float16 the loss is scaled so that small gradients do not vanish (Micikevicius et al.,
    ICLR 2018). If a gradient is not finite, the weights stay as they are and the scale is
    halved; after 2,000 good steps it is doubled (torch's defaults).

    Args:
        network: the model to train, wrapped if there are several ranks; an attribute that
            can be replaced.
        process: this rank.
        precision: of the forward pass.
        optimiser: stepped once per batch.
        schedule: stepped after the optimiser.
        clip_norm: largest norm of the gradient; longer ones are scaled down. None: no limit.
        accumulate: parts that this rank's rows are trained in before the optimiser's step.
        average: updated after the optimiser's step. None: weights are not averaged.
        output: of the model, see ``ModelConfig``; decides the divergence.
        head: likewise; decides which of a batch's targets are trained on.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        precision: Precision,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        *,
        clip_norm: float | None = None,
        accumulate: int = 1,
        average: AveragedModel | None = None,
        output: str = "softmax",
        head: str = "one",
    ) -> None:
        self.network, self.process = network, process
        self.precision, self.optimiser, self.schedule = precision, optimiser, schedule
        self._divergence, self._per_tier = DIVERGENCES[output], head == "per_tier"
        if self._per_tier:
            self._divergence = by_tier(self._divergence)
        self._clip_norm, self._accumulate, self._average = clip_norm, accumulate, average
        self.learning_rate = float("nan")
        self._lr_scale: float = optimiser.param_groups[0]["lr_scale"]
        self._gradient_norm: Tensor | None = None
        self.dtype = storage_dtype(precision)
        # Enabled or not, it belongs to one stage: a stage must not depend on where the
        # previous one was trained.
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=precision == "float16")

    def __call__(self, batch: Batch, images: ModelImages, *, measured: bool = False) -> Tensor:
        """Trains on this rank's rows.

        Args:
            batch: this rank's part of the global batch.
            images: (b, C, H, W) of its rows.
            measured: keep the norm of the gradient, see ``gradient_norm``.

        Returns:
            This rank's share of the global batch's mean loss, a scalar on the device; the
            shares of all ranks sum to the mean loss.
        """
        device = self.process.device
        given = batch.tier_targets if self._per_tier else batch.targets
        targets = on_device(given, device, self.dtype)
        weights = on_device(batch.weights, device, self.dtype)
        self.optimiser.zero_grad(set_to_none=True)
        # The same on all ranks, each of which has at least one row per part.
        n_parts = min(self._accumulate, batch.n_global // self.process.world_size)
        share = targets.new_zeros(())
        parts = zip(
            split_rows(images, n_parts),
            targets.tensor_split(n_parts),
            weights.tensor_split(n_parts),
            strict=True,
        )
        for number, (part, goals, factors) in enumerate(parts, start=1):
            with self._summed_locally(number < n_parts):
                share += self._add_gradient(part, goals, factors, batch.n_global)
        if self._clip_norm is not None or measured:
            self._limit_gradient(measured)
        # Skips the optimiser's step if a gradient is not finite. All ranks skip it together:
        # the mean over the ranks, which DDP gave all of them, is then not finite either.
        with record_function("optimiser"):
            self.scaler.step(self.optimiser)
            self.scaler.update()
            if self._average is not None:
                self._average.update()
        self.learning_rate = float(self.schedule.get_last_lr()[0]) / self._lr_scale
        # Also after a skipped step, so that the rate of a batch and their number are fixed.
        self.schedule.step()
        self.process.on_step()
        return share

    def _add_gradient(
        self, images: ModelImages, targets: Tensor, weights: Tensor, n: int
    ) -> Tensor:
        """Adds the gradient of some of the n rows of the global batch; returns their loss."""
        with record_function("forward"), autocast(self.precision, self.process.device):
            logits = self.network(images)
        # The backward pass waits for the other ranks.
        self.process.pulse.advance()
        share = self._divergence(logits.to(self.dtype), targets, weights).sum() / n
        # DDP averages gradients over ranks, whose shards may have unequal sizes. Scaled like
        # this, the average is the gradient of the global batch's mean loss.
        with record_function("backward"):
            self.scaler.scale(share * self.process.world_size).backward()  # type: ignore[no-untyped-call]
        return share.detach()

    def _summed_locally(self, locally: bool) -> AbstractContextManager[object]:
        """Leaves the all-reduce of gradients to the last part of a batch."""
        if locally and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()

    def _limit_gradient(self, measured: bool) -> None:
        """Clips the gradient and keeps its norm from before; the same on all ranks."""
        gradients = [one.grad for one in self.network.parameters() if one.grad is not None]
        if self._clip_norm is None:
            norm = torch.nn.utils.get_total_norm(gradients)
            norm = norm / self.scaler.get_scale()
        else:
            self.scaler.unscale_(self.optimiser)
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._clip_norm)
        if measured:
            self._gradient_norm = norm

    @property
    def gradient_norm(self) -> float | None:
        """Euclidean norm of the gradient of the last measured step, the same on all ranks.

        Of the mean loss over the global batch, neither scaled nor clipped; None if it is not
        finite.
        """
        norm = float("nan") if self._gradient_norm is None else float(self._gradient_norm)
        return norm if math.isfinite(norm) else None

    def scored(self, model: nn.Module) -> nn.Module:
        """The model to evaluate: the one in training, or its average. Called on all ranks."""
        return model if self._average is None else self._average.for_scoring(self.process)

    def state(self) -> dict[str, Any]:
        """States of optimiser, schedule, scaler of the loss and, if any, average; not copied."""
        average = {} if self._average is None else {"average": self._average.state()}
        return {
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            **average,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from the result of ``state``."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load(state["average"])

    def mean_loss(self, losses: Sequence[Tensor], where: str, n_before: int) -> float:
        """Mean loss of some steps over all ranks; in float16, of those with a finite loss.

        Checked once per half epoch, so that the device never waits for the host, and after the
        all-reduce, so that all ranks stop together.

        Args:
            losses: this rank's shares, as returned by the steps.
            where: stage and epoch, for the message.
            n_before: steps that were done before.

        Raises:
            TrainingError: if a loss is not finite; in float16, where such a step is skipped,
                if all are, or if the scale of the loss has become too small.
        """
        values = self.process.all_reduce_sum(torch.stack(list(losses)).double()).cpu()
        finite = values.isfinite()
        scaled = self.scaler.is_enabled()
        fix = remedy_for_overflow(self.precision)
        if not (finite.any() if scaled else finite.all()):
            first = int((~finite).nonzero()[0])
            raise DivergedError(
                "the training loss must be finite",
                got=str(float(values[first])),
                where=f"{where}, step {n_before + first + 1}",
                fix=fix,
            )
        if scaled and (scale := self.scaler.get_scale()) < MIN_LOSS_SCALE:
            raise DivergedError(
                f"gradients must be finite in float16 at a loss scale of {MIN_LOSS_SCALE:g}",
                got=f"skipped steps down to a scale of {scale:g}",
                where=f"{where}, step {n_before + len(losses)}",
                fix=fix,
            )
        return float(values[finite].mean())


def stage_step(
    model: nn.Module,
    network: nn.Module,
    process: Process,
    precision: Precision,
    experiment: Experiment,
    stage: ResolvedStage,
    n_steps: int,
) -> Step:
    """The steps of one stage, with a new optimiser, schedule and, with ``ema``, average.

    Args:
        model: its parameters are trained.
        network: called for the logits: the model, compiled or wrapped.
        process: this rank.
        precision: of the forward pass.
        experiment: its ``training``, and the model's output.
        stage: one of its stages.
        n_steps: optimiser steps of the stage.
    """
    training = experiment.training
    optimiser = make_optimiser(model, training, stage)
    schedule = make_schedule(optimiser, training, stage, n_steps)
    return Step(
        network,
        process,
        precision,
        optimiser,
        schedule,
        clip_norm=training.clip_norm,
        accumulate=training.accumulate,
        average=None if training.ema is None else AveragedModel(model, training.ema),
        output=experiment.model.output,
        head=experiment.model.head,
    )
