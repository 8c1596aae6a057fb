"""How fast a fold trains on this device, measured on a few steps of the training loop's parts.

Batches are drawn, images made and steps taken as in ``train.loop``; nothing is kept. On a CPU
the first pass over a row is slower than later ones (see ``train.downsampled``), so both are
measured.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from hms_ray.config.experiment import Experiment
from hms_ray.config.training import ResolvedStage
from hms_ray.evaluate.metric import kl_report
from hms_ray.train.batches import Batch, FoldData, RowIndices, plan_epoch
from hms_ray.train.cancel import cancellable
from hms_ray.train.checkpoint import cpu_weights, save_weights
from hms_ray.train.compiled import compiled, compiling
from hms_ray.train.device_memory import device_memory
from hms_ray.train.device_meters import peak_bytes, reset_peak, settle, stopwatch
from hms_ray.train.downsampled import cache_budget
from hms_ray.train.fold_speed import EpochSpeed, FoldSpeed
from hms_ray.train.images import Images
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.score import MIN_SCORING_BATCH, predict_rows, resolve_precision, storage_dtype
from hms_ray.train.seeds import derive_seed, own_torch_generator
from hms_ray.train.stage_rows import training_rows
from hms_ray.train.step import Step, stage_step
from hms_ray.train.sync_batchnorm import with_group_statistics
from hms_ray.train.torch_settings import torch_settings
from hms_ray.train.windows import open_sources

REPETITIONS: Final = 3
WARM_UP_STEPS: Final = 2
"""Steps that are not timed: the first ones allocate memory, compile, and sort DDP's gradients."""
PASS_S: Final = 0.7
"""Seconds of training steps per pass; at least one step is taken."""
MAX_STEPS: Final = 200

Waits = Callable[[str], object]
"""Called with a name before each timed repetition: waits for others that are timed as well."""


def measure_fold(
    experiment: Experiment,
    data: FoldData,
    fold: int,
    process: Process,
    *,
    pass_s: float | None = None,
    wait: Waits = lambda name: None,
) -> FoldSpeed:
    """Measures one fold; called by every rank of a worker group.

    Pretrained weights are not loaded: the speed is the same without.

    Args:
        experiment: what would be trained.
        data: rows and packs of the fold.
        fold: number of the validation fold.
        process: this rank.
        pass_s: seconds of training steps per pass. Default: ``PASS_S``.
        wait: see ``Waits``.

    Raises:
        HmsRayError: as ``train_fold``.
    """
    experiment = experiment.model_copy(update={"model": experiment.model.without_weights()})
    compiler = compiling(experiment.training.compile, experiment.model.title)
    settings = torch_settings(deterministic=experiment.training.deterministic)
    memory = device_memory(experiment.name)
    with compiler, settings, own_torch_generator(process.device), memory:
        seconds = PASS_S if pass_s is None else pass_s
        return _Measurement(experiment, data, fold, process, seconds, wait).run()


class _Measurement:
    """The state that all passes of a measurement share; for arguments see ``measure_fold``."""

    def __init__(
        self,
        experiment: Experiment,
        data: FoldData,
        fold: int,
        process: Process,
        pass_s: float,
        wait: Waits,
    ) -> None:
        self.experiment, self.training = experiment, experiment.training
        self.data, self.fold, self.process = data, fold, process
        self.pass_s, self.wait = pass_s, wait
        self.precision = resolve_precision(self.training.precision, process.device)
        self.packs = {name: data.sources[name].pack for name in experiment.sources}
        reset_peak(process.device)
        began = time.perf_counter()
        self.windows = open_sources(self.packs, process.device, process.windows)
        self.images = self._fresh_images()
        torch.manual_seed(derive_seed(self.training.seed, fold, 0, 0, "model"))
        model = build_model(experiment.model, self.images.size, self.images.n_channels)
        model = model.to(process.device, storage_dtype(self.precision))
        self.model: nn.Module = model.to(memory_format=torch.channels_last)
        training = self.training
        if training.sync_batchnorm:
            self.model = with_group_statistics(self.model, process)
        self.network = compiled(self.model, training.compile, deterministic=training.deterministic)
        settle(process.device)
        self.prepare_s = time.perf_counter() - began
        self.restarts_s: list[float] = []
        self._train_some: Callable[[], object]

    def _fresh_images(self) -> Images:
        """Images with an empty cache."""
        return Images(
            self.data,
            self.windows,
            self.experiment.joint_input,
            storage_dtype(self.precision),
            cache_budget(self.process.device),
            self.experiment.branch_inputs,
        )

    def run(self) -> FoldSpeed:
        fits: list[float] = []
        epochs: dict[tuple[int, bool], EpochSpeed] = {}
        known: dict[Any, EpochSpeed] = {}
        for index, stage in enumerate(self.training.resolved_stages()):
            for mosaic, epoch in _kinds_of_epochs(stage):
                used = {} if mosaic else {"mosaic": None}
                kind = (
                    stage.augment.model_copy(update=used).model_dump_json(),
                    stage.label_rows,
                )
                if kind not in known:
                    known[kind] = self._epoch(index, stage, epoch, fits)
                epochs[index, mosaic] = known[kind]
        first, later = self._scoring()
        return FoldSpeed(
            epochs=epochs,
            prepare_s=self.prepare_s,
            fit_s=tuple(fits),
            restart_s=tuple(self.restarts_s),
            save_s=self._save(),
            scoring_first_s=first,
            scoring_later_s=later,
            n_cached=self.images.n_cacheable,
            memory_bytes=peak_bytes(self.process.device),
            pack_bytes=sum(pack.values.nbytes for pack in self.packs.values()),
            image_sizes=self.images.sizes,
            precision=self.precision,
        )

    def _epoch(self, index: int, stage: ResolvedStage, epoch: int, fits: list[float]) -> EpochSpeed:
        """Speed of the batches of one epoch."""
        rows = self.data.train[
            training_rows(
                stage,
                self.data.total_votes[self.data.train],
                self.data.targets[self.data.train],
                self.fold,
            )
        ]
        began = time.perf_counter()
        batches = plan_epoch(
            self.data,
            rows,
            self.training,
            stage,
            self.images.joined,
            (self.fold, index, epoch),
            self.process,
        )
        draw_s = (time.perf_counter() - began) / len(rows)
        network = self.process.wrap(self.network)
        made_for = network, self.process, self.precision
        # A schedule ends after its steps; these are far fewer.
        step = stage_step(self.model, *made_for, self.experiment, stage, 10**6)
        batches = self._warm_up(step, batches, fits)
        first, later, shares = [], [], []
        for number in range(REPETITIONS):
            self.images = self._fresh_images()
            fits.append(self._fit(batches))
            self.wait(f"{self.experiment.name} stage {index} {epoch} {number}")
            first.append(self._pass(step, batches)[0])
            seconds, share = self._pass(step, batches)
            later.append(seconds)
            shares.append(share)
            self.restarts_s.append(self._restart(step, batches, seconds))
        self._train_some = partial(self._pass, step, batches[:WARM_UP_STEPS])
        return EpochSpeed(draw_s, tuple(first), tuple(later), tuple(shares))

    def _restart(self, step: Step, batches: Sequence[Batch], image_s: float) -> float:
        """Seconds that the first steps after an evaluation take longer than ``image_s`` per image.

        DDP is wrapped anew then, see ``train.stage_loop``, and orders its all-reduces in the first
        two steps.
        """
        if not self.process.grouped:
            return 0.0
        few = batches[:WARM_UP_STEPS]
        began = time.perf_counter()
        step.network = self.process.wrap(self.network)
        self._pass(step, few)
        seconds = time.perf_counter() - began
        return max(0.0, seconds - image_s * sum(batch.n_global for batch in few))

    def _save(self) -> float:
        """Seconds to write the weights."""
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            save_weights(Path(folder) / "weights.pt", cpu_weights(self.model))
            return time.perf_counter() - began

    def _warm_up(self, step: Step, batches: list[Batch], fits: list[float]) -> list[Batch]:
        """Takes the first steps and returns the batches of a pass; the same on all ranks."""
        self._fit(batches[: WARM_UP_STEPS + 1])
        few = [batches[number % len(batches)] for number in range(WARM_UP_STEPS)]
        self._pass(step, few)
        seconds, _ = self._pass(step, few[:1])
        n_steps = round(self.pass_s / (seconds * few[0].n_global))
        agreed = self.process.call_on_rank0(lambda: max(1, min(n_steps, MAX_STEPS)))
        return batches[:agreed]

    def _fit(self, batches: Sequence[Batch]) -> float:
        """Fits normalisations on the rows of batches; seconds per row."""
        rows: RowIndices = np.unique(np.concatenate([batch.needed for batch in batches]))
        began = time.perf_counter()
        self.images.fit(rows, self.training.batch_size, self.process)
        settle(self.process.device)
        return (time.perf_counter() - began) / len(rows)

    def _pass(self, step: Step, batches: Sequence[Batch]) -> tuple[float, float]:
        """Trains batches; seconds per image, and the share of them in which images were made."""
        stamp, seconds_between = stopwatch(self.process.device)
        made = zip(batches, self.images.for_training(batches), strict=True)
        stamps, losses = [stamp()], []
        for batch, image in cancellable(made, self.process):
            stamps.append(stamp())
            losses.append(step(batch, image))
            stamps.append(stamp())
        torch.stack(losses).cpu()  # As after each half epoch.
        total = seconds_between(stamps[0], stamps[-1])
        inputs = sum(map(seconds_between, stamps[:-1:2], stamps[1::2]))
        return total / sum(batch.n_global for batch in batches), inputs / total

    def _scoring(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Seconds per row of the first evaluation and of later ones."""
        size = max(self.training.batch_size, MIN_SCORING_BATCH)
        # Each rank scores its shard in batches of this size.
        size *= self.process.world_size
        valid = self.data.valid
        seconds = self._score(valid[:size])
        seconds = self._score(valid[:size])
        # All rows if there are few: the last batch of a rank has fewer images, and the same fixed
        # costs as the others.
        n_batches = math.ceil(self.pass_s / max(seconds * min(size, len(valid)), 1e-9))
        agreed = self.process.call_on_rank0(lambda: n_batches)
        rows = valid[: agreed * size]
        first, later = [], []
        for number in range(REPETITIONS):
            fitted, self.images = self.images, self._fresh_images()
            self.images.constants = fitted.constants
            self.wait(f"{self.experiment.name} scoring {number}")
            # As in training, where steps come between evaluations.
            self._train_some()
            first.append(self._score(rows))
            self._train_some()
            later.append(self._score(rows))
        return tuple(first), tuple(later)

    def _score(self, rows: RowIndices) -> float:
        """Evaluates rows as after half an epoch; seconds per row, in all of its variants."""
        data, made_with = self.data, (self.training.batch_size, self.precision, self.process)
        variants = self.experiment.prediction.variants
        began = time.perf_counter()
        table = predict_rows(self.model, self.images, rows, *made_with, variants)
        kl_report(data.targets[rows], table, data.total_votes[rows])
        return (time.perf_counter() - began) / len(rows)


def _kinds_of_epochs(stage: ResolvedStage) -> Iterator[tuple[bool, int]]:
    """Whether mosaic applies, and the first such epoch, for each kind that a stage has."""
    applies = [stage.has_mosaic(epoch) for epoch in range(stage.epochs)]
    for kind in dict.fromkeys(applies):
        yield kind, applies.index(kind)
