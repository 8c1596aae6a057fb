"""Trains one fold: the same code in one process and on every rank of a worker group."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_ray.config.experiment import Experiment, ModelConfig
from hms_ray.config.inputs import used_sources
from hms_ray.config.training import ResolvedStage
from hms_ray.train.batches import Batch, FoldData, RowIndices, halves, plan_epoch
from hms_ray.train.cancel import cancellable
from hms_ray.train.checkpoint import cpu_weights
from hms_ray.train.clock import Clock
from hms_ray.train.compiled import compile_now, compiled, compiling
from hms_ray.train.device_memory import device_memory
from hms_ray.train.device_meters import peak_bytes, reset_peak
from hms_ray.train.downsampled import cache_budget
from hms_ray.train.evaluation import Evaluation
from hms_ray.train.fold_state import Evaluated, FoldState
from hms_ray.train.history import History
from hms_ray.train.images import Images
from hms_ray.train.losses import loss_name
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from hms_ray.train.score import resolve_precision, storage_dtype
from hms_ray.train.seeds import Purpose, derive_seed, own_torch_generator
from hms_ray.train.selection import EvaluationSelection
from hms_ray.train.stage_rows import criterion_rows, training_rows
from hms_ray.train.step import Step, stage_step
from hms_ray.train.sync_batchnorm import with_group_statistics
from hms_ray.train.torch_settings import torch_settings
from hms_ray.train.windows import open_sources

logger = logging.getLogger(__name__)

OnStageEnd = Callable[[FoldResult], None]
OnEvaluation = Callable[[Callable[[], FoldState]], None]

_DROPOUT: Final[tuple[Purpose, Purpose]] = ("dropout", "second dropout")
"""Seeds before each evaluation of an epoch, so that training can resume there."""


def train_fold(
    experiment: Experiment,
    data: FoldData,
    fold: int,
    process: Process,
    resume_from: FoldResult | FoldState | None = None,
    on_stage_end: OnStageEnd = lambda result: None,
    on_evaluation: OnEvaluation = lambda make_state: None,
) -> FoldResult:
    """Trains one fold and predicts its validation rows.

    Each stage has a new optimiser and a schedule over its steps. All validation rows
    are scored twice per epoch: after the first half of its batches and at its end (only at
    its end if the epoch is one batch). A stage ends with the weights of its last or of its
    best evaluation (see ``TrainingConfig.checkpoint_criterion``): the next stage starts from
    them, and those of the last stage are returned with their predictions of all validation
    rows.

    With ``ema`` the weights that are scored, kept and handed on are the moving average of those
    in training, which starts anew in each stage.

    Each evaluation adds a record to the history (see ``History``), which ``process.report``
    receives on rank 0 with ``progress``, the share of all steps that is done.

    With ``resume_from`` training starts after the stages of a result, or after the evaluation
    of a state. Everything except times is then equal to training all of it here. It is
    reported first: ``{"event": "stages_reused", "stages": names, "saved_s": ..., "progress":
    ...}`` for a result, ``{"event": "fold_resumed", "stage": name, "epoch": ..., "progress":
    ...}`` for a state, both with the ``history`` so far.

    torch's global generators and settings (see ``torch_settings``) are set during the call and
    restored afterwards.

    Args:
        experiment: model, inputs and schedule.
        data: rows and packs.
        fold: number of the validation fold; part of every seed.
        process: this rank of the worker group.
        resume_from: result of the same fold after some of its first stages, or its state after
            an evaluation; the same on every rank.
        on_stage_end: called on every rank with the result after each stage but the last.
        on_evaluation: called on rank 0 after each evaluation but the very last, with a function
            that makes the state. The state is not copied: it is valid until the call returns.

    Raises:
        TrainingError: if a batch has fewer rows than there are ranks, a loss or prediction is
            not finite (raised on all ranks together), an operation has no deterministic form,
            the model does not compile, or the device's memory is full.
        ConfigError: if a stage lacks rows (see ``stage_rows``), ``downsample`` does not divide
            a source's windows, or the panels or the image size do not allow an augmentation.
        ModelError: if the model or its weights cannot be created.
        FoldCancelled: on all ranks before the same step, if ``process.should_stop`` returns
            true on rank 0.
    """
    settings = torch_settings(deterministic=experiment.training.deterministic)
    compiler = compiling(experiment.training.compile, experiment.model.name)
    memory = device_memory(f"fold {fold}")
    # Errors of the compiler are last: some have a full device as their cause.
    with compiler, settings, own_torch_generator(process.device), memory:
        training = _FoldTraining(experiment, data, fold, process, resume_from)
        return training.run(on_stage_end, on_evaluation)


class _FoldTraining:
    """The state that the stages of a fold share; for arguments see ``train_fold``."""

    def __init__(
        self,
        experiment: Experiment,
        data: FoldData,
        fold: int,
        process: Process,
        resume_from: FoldResult | FoldState | None,
    ) -> None:
        training = experiment.training
        self.experiment, self.data, self.fold = experiment, data, fold
        self.process, self.resume_from = process, resume_from
        self.precision = resolve_precision(training.precision, process.device)
        self.clock = Clock()
        if process.device.type == "cuda":
            reset_peak(process.device)
        self.history = History(process, resume_from)
        self.state = resume_from if isinstance(resume_from, FoldState) else None
        stages_s = resume_from.stages_s if isinstance(resume_from, FoldResult) else 0.0
        self.saved_s = stages_s if self.state is None else self.state.saved_s
        votes, targets = data.total_votes, data.targets
        self.stages = [
            (
                stage,
                data.train[training_rows(stage, votes[data.train], targets[data.train], fold)],
                criterion_rows(stage, votes[data.valid], targets[data.valid], fold),
            )
            for stage in training.resolved_stages()
        ]
        self.history.n_steps = sum(
            stage.epochs * self._n_batches(rows) for stage, rows, _ in self.stages
        )
        packs = {source: data.sources[source].pack for source in used_sources(experiment.input)}
        self.images = Images(
            data,
            open_sources(packs, process.device, process.windows, process.packs),
            experiment.input,
            storage_dtype(self.precision),
            cache_budget(process.device),
        )
        batch_size = training.batch_size
        self.evaluate = Evaluation(data, self.images, batch_size, self.precision, process)
        for stage, _, _ in self.stages:
            self.images.check_augment(stage.augment)

    def run(self, on_stage_end: OnStageEnd, on_evaluation: OnEvaluation) -> FoldResult:
        """Trains what ``resume_from`` does not have."""
        model = self._make_model()
        self.process.pulse.begin()
        first = 0 if self.resume_from is None else self.resume_from.next_stage
        last = len(self.stages) - 1
        for index in range(first, last):
            result = self._stage(model, index, on_evaluation)
            # Those of the best evaluation, or the bits that the model has.
            model.load_state_dict(result.weights)
            on_stage_end(result)
            self.clock.lap("keep_s")
        return self._stage(model, last, on_evaluation)

    def _stage(self, model: nn.Module, index: int, on_evaluation: OnEvaluation) -> FoldResult:
        with device_memory(f"fold {self.fold}, stage {self.stages[index][0].name}"):
            return self._train_stage(model, index, on_evaluation)

    def _n_batches(self, rows: RowIndices) -> int:
        return -(-len(rows) // self.experiment.training.batch_size)

    def _make_model(self) -> nn.Module:
        """The model on its device, in its state before the first stage that is trained here."""
        training, device = self.experiment.training, self.process.device
        torch.manual_seed(derive_seed(training.seed, self.fold, 0, 0, "model"))
        config = _without_weights(self.experiment.model, self.resume_from)
        model = build_model(config, self.images.size, self.images.n_channels)
        if self.state is not None:
            self.images.load_normalisation(self.state.normalisation)
        else:
            # After the model, so that one that cannot be created fails before this pass.
            self.images.fit(self.data.train, training.batch_size, self.process)
        # On a CPU 1.5 times as fast as the default layout (EfficientNets, measured).
        model = model.to(device, storage_dtype(self.precision))
        model = model.to(memory_format=torch.channels_last)
        if training.sync_batchnorm:
            model = with_group_statistics(model, self.process)
        self.network = compiled(model, training.compile, deterministic=training.deterministic)
        if training.compile != "off":
            n_parts = self.process.world_size * training.accumulate
            shape = -(-training.batch_size // n_parts), self.images.n_channels, *self.images.size
            compile_now(self.network, model, shape, self.process, self.precision)
        self.clock.lap("prepare_s")
        if self.resume_from is not None:
            model.load_state_dict(self.resume_from.weights)
            self.clock.offset_s = self.resume_from.history[-1]["seconds"] - self.clock.total()
            if self.state is not None:
                self.clock.resume(self.state.clock)
            self.history.report_resumed()
        return model

    def _train_stage(self, model: nn.Module, index: int, on_evaluation: OnEvaluation) -> FoldResult:
        """Trains one stage, or the rest of it, and selects one of its two evaluations per epoch."""
        training, (stage, rows, counted) = self.experiment.training, self.stages[index]
        n_steps = stage.epochs * self._n_batches(rows)
        made_for = self.network, self.process, self.precision
        step = stage_step(model, *made_for, self.experiment, stage, n_steps)
        selection: EvaluationSelection[Evaluated] = EvaluationSelection(stage)
        resumed = self.state if self.state and self.state.next_stage == index else None
        n_done = 0.0 if resumed is None else resumed.epoch
        if resumed is not None:
            step.load(resumed.step)
            selection = EvaluationSelection(stage, resumed.best, resumed.kept)
        else:
            logger.info("stage %s started: %d rows, %d epochs", stage.name, len(rows), stage.epochs)
        for epoch in range(int(n_done), stage.epochs):
            seed_path = self.fold, index, epoch
            image = self.images.size, self.images.widths
            batches = plan_epoch(self.data, rows, training, stage, image, seed_path, self.process)
            where = f"stage {stage.name}, epoch {epoch + 1}"
            for (half, part), purpose in zip(halves(batches), _DROPOUT, strict=False):
                if epoch + half <= n_done:
                    continue
                # Anew after each evaluation, since training may resume there: DDP orders its
                # all-reduces by the steps that it has seen.
                step.network = self.process.wrap(self.network)
                dropout = derive_seed(training.seed, *seed_path, purpose, self.process.rank)
                torch.manual_seed(dropout)
                train_loss = self._train(step, part, where)
                scored = step.scored(model)
                table, scores = self.evaluate(scored, f"{where}, step {self.history.n_done}")
                criterion = selection.update(
                    epoch,
                    self.evaluate.criterion(stage, counted, table, scores),
                    partial(_evaluated, table, scored),
                    ends=epoch + half == stage.epochs,
                )
                self.clock.lap("evaluate_s")
                self.history.add(
                    {
                        "stage": stage.name,
                        "stage_index": index,
                        "epoch": epoch + half,
                        "step": self.history.n_done,
                        **scores,
                        **({"criterion": criterion} if stage.checkpoint == "best" else {}),
                        "train_loss": train_loss,
                        "learning_rate": step.learning_rate,
                        "seconds": self.clock.offset_s + self.clock.total(),
                        **self._measures(step, stage, index, epoch + half),
                    }
                )
                if self.process.rank == 0 and self.history.n_done < self.history.n_steps:
                    on_evaluation(partial(self._state, model, step, selection))
                    self.clock.lap("keep_s")
        assert selection.kept is not None
        return self._result(*selection.kept)

    def _measures(
        self, step: Step, stage: ResolvedStage, index: int, epoch: float
    ) -> dict[str, Any]:
        """What charts show of an evaluation beside its scores."""
        device = self.process.device
        earlier = sum(done.epochs for done, _, _ in self.stages[:index])
        return {
            "epochs": earlier + epoch,
            "loss": loss_name(stage.loss, self.experiment.model.output),
            "gradient_norm": step.gradient_norm,
            "images_per_s": self.clock.recent_rate(),
            "gpu_memory_gib": peak_bytes(device) / 2**30 if device.type == "cuda" else None,
        }

    def _state(
        self, model: nn.Module, step: Step, selection: EvaluationSelection[Evaluated]
    ) -> FoldState:
        """The state after the evaluation that was recorded last, not copied."""
        return FoldState(
            weights=model.state_dict(),
            step=step.state(),
            best=selection.best,
            kept=selection.kept,
            history=self.history.records,
            normalisation=self.images.normalisation(),
            clock=self.clock.state(),
            saved_s=self.saved_s,
        )

    def _train(self, step: Step, batches: list[Batch], where: str) -> float:
        """Takes one step per batch and returns the mean loss."""
        made = zip(batches, self.images.for_training(batches), strict=True)
        last = len(batches) - 1
        losses = [
            step(batch, image, measured=position == last)
            for position, (batch, image) in enumerate(cancellable(made, self.process))
        ]
        train_loss = step.mean_loss(losses, where, self.history.n_done)
        self.history.n_done += len(batches)
        self.clock.lap("train_s")
        self.clock.images += sum(batch.n_global for batch in batches)
        return train_loss

    def _result(self, table: NDArray[np.float64], weights: dict[str, Tensor]) -> FoldResult:
        """The result of the stages that are trained so far."""
        trained = self.stages[: self.history.records[-1]["stage_index"] + 1]
        return FoldResult(
            valid=self.data.valid,
            probabilities=table,
            history=list(self.history.records),
            weights=weights,
            normalisation=self.images.normalisation(),
            timing=self.clock.timing(),
            saved_s=self.saved_s,
            precision=self.precision,
            optimistic=any(stage.checkpoint == "best" for stage, _, _ in trained),
        )


def _evaluated(table: NDArray[np.float64], model: nn.Module) -> Evaluated:
    return table, cpu_weights(model)


def _without_weights(config: ModelConfig, resume_from: object) -> ModelConfig:
    """The model's configuration; without pretrained weights if they would be replaced."""
    if resume_from is None:
        return config
    return config.model_copy(update={"pretrained": False, "weights_file": None})
