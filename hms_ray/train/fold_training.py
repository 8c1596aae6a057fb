"""What the stages of a fold share: its rows, images, network, clock and history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_ray.config.experiment import Experiment
from hms_ray.config.training import ResolvedStage, TrainingConfig
from hms_ray.train.batches import FoldData, RowIndices
from hms_ray.train.clock import Clock
from hms_ray.train.compiled import compile_now, compiled
from hms_ray.train.device_meters import reset_peak
from hms_ray.train.downsampled import cache_budget
from hms_ray.train.evaluation import Evaluation
from hms_ray.train.fold_state import Evaluated, FoldState
from hms_ray.train.history import History
from hms_ray.train.images import Images
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from hms_ray.train.score import resolve_precision, storage_dtype
from hms_ray.train.seeds import derive_seed
from hms_ray.train.selection import EvaluationSelection
from hms_ray.train.stage_rows import criterion_rows, training_rows
from hms_ray.train.step import Step
from hms_ray.train.sync_batchnorm import with_group_statistics
from hms_ray.train.windows import open_sources


class FoldTraining:
    """The state that the stages of a fold share; for arguments see ``loop.train_fold``.

    Attributes:
        stages: each with its training rows and the validation rows of its criterion.
        ends: epochs after which each ends, such as 2.5.
        network: the model, compiled if the training is; made by ``make_model``.
        state: the evaluation that training resumes after, if it does.
    """

    network: nn.Module

    def __init__(
        self,
        experiment: Experiment,
        data: FoldData,
        fold: int,
        process: Process,
        resume_from: FoldResult | FoldState | None,
        epochs: Sequence[float] | None = None,
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
            for stage in _stages(training, epochs)
        ]
        self.ends = [
            float(stage.epochs) if epochs is None else self._end(epochs[index], rows)
            for index, (stage, rows, _) in enumerate(self.stages)
        ]
        self.history.n_steps = sum(
            self._n_steps(end, rows)
            for end, (_, rows, _) in zip(self.ends, self.stages, strict=True)
        )
        packs = {source: data.sources[source].pack for source in experiment.sources}
        self.images = Images(
            data,
            open_sources(packs, process.device, process.windows, process.packs),
            experiment.joint_input,
            storage_dtype(self.precision),
            cache_budget(process.device),
            experiment.branch_inputs,
        )
        batch_size = training.batch_size
        variants = experiment.prediction.variants
        self.evaluate = Evaluation(data, self.images, batch_size, self.precision, process, variants)
        for stage, _, _ in self.stages:
            self.images.check_augment(stage.augment)
        self.images.check_prediction(experiment.prediction)

    def n_batches(self, rows: RowIndices) -> int:
        """Batches of an epoch over some rows."""
        return -(-len(rows) // self.experiment.training.batch_size)

    def _end(self, epochs: float, rows: RowIndices) -> float:
        """When a stage ends: an epoch of one batch has no middle."""
        return math.ceil(epochs) if self.n_batches(rows) == 1 else epochs

    def _n_steps(self, epochs: float, rows: RowIndices) -> int:
        """Steps of some epochs; the first half of one has the larger half of its batches."""
        n_batches = self.n_batches(rows)
        return int(epochs) * n_batches + (-(-n_batches // 2) if epochs % 1 else 0)

    def make_model(self) -> nn.Module:
        """The model on its device, in its state before the first stage that is trained here."""
        training, device = self.experiment.training, self.process.device
        torch.manual_seed(derive_seed(training.seed, self.fold, 0, 0, "model"))
        config = self.experiment.model
        if self.resume_from is not None:
            # They would be replaced.
            config = config.without_weights()
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
            of_all = -(-training.batch_size // n_parts), self.images.n_channels
            shapes = [(*of_all, *size) for size in self.images.sizes]
            compile_now(self.network, model, shapes, self.process, self.precision)
        self.clock.lap("prepare_s")
        if self.resume_from is not None:
            model.load_state_dict(self.resume_from.weights)
            self.clock.offset_s = self.resume_from.history[-1]["seconds"] - self.clock.total()
            if self.state is not None:
                self.clock.resume(self.state.clock)
            self.history.report_resumed()
        return model

    def make_state(
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

    def result(self, table: NDArray[np.float64], weights: dict[str, Tensor]) -> FoldResult:
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


def _stages(training: TrainingConfig, epochs: Sequence[float] | None) -> list[ResolvedStage]:
    """The stages; with given epochs, nothing is left to be chosen."""
    stages = list(training.resolved_stages())
    if epochs is None:
        return stages
    given: dict[str, Any] = {"checkpoint": "last", "criterion": None}
    return [stage.model_copy(update=given) for stage in stages]
