"""One fold, one loop: the same code in one process and on every rank of a group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hms_ray.config import Experiment, ModelConfig
from hms_ray.config_input import used_sources
from hms_ray.errors import TrainingError
from hms_ray.evaluate.metric import kl_report
from hms_ray.model import build_model
from hms_ray.train.batches import Batch, FoldData, plan_epoch
from hms_ray.train.images import Images
from hms_ray.train.pooled import kept_bytes
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult, Kept
from hms_ray.train.score import check_finite, predict_rows, resolve_precision, storage_dtype
from hms_ray.train.seeds import derive_seed, own_torch_generator
from hms_ray.train.stages import make_optimiser, make_schedule, stage_rows
from hms_ray.train.step import Step
from hms_ray.train.windows import open_sources

__all__ = ["FoldResult", "Process", "resolve_precision", "train_fold"]

Keep = Callable[[FoldResult], None]


def train_fold(
    experiment: Experiment,
    data: FoldData,
    fold: int,
    process: Process,
    known: FoldResult | None = None,
    keep: Keep = lambda result: None,
) -> FoldResult:
    """Trains one fold and predicts its validation rows.

    Each stage has a fresh AdamW and a OneCycle schedule over its steps. Every
    validation row is scored twice an epoch, after the first half of the batches
    and at the end (once where an epoch is one batch). The weights kept are the last
    ones or, with ``checkpoint: best``, those of the smallest ``kl_all`` at any of
    these evaluations, the first of equal ones.

    A record of the history holds ``stage`` (its name), ``stage_index``, ``epoch``
    (epochs done in this stage, such as 1.5), ``step`` (optimiser steps done in all
    stages), ``kl_all``, ``kl_4`` and ``kl_10`` (None without such rows),
    ``train_loss`` (mean over the steps since the record before), ``learning_rate``
    (of the last step) and ``seconds`` since the start (known stages included, as they
    were). ``process.report`` gets it on
    rank 0 with ``progress``, the share of all steps that is done.

    Where the first stages are known, training goes on after them and all but times
    comes out as if they had been trained here. They are reported first, as
    ``{"event": "stages_reused", "stages": names, "saved_s": ..., "progress": ...}``.

    torch's global generators are seeded within and given back as they were.

    Args:
        experiment: model, inputs and schedule.
        data: rows and packs.
        fold: number of the validation fold; part of every seed.
        process: this rank of the group.
        known: what this fold of the experiment cut after some stage came to.
        keep: gets on every rank what each stage but the last one ends with.

    Raises:
        TrainingError: where a stage has no rows, a batch fewer rows than there are
            ranks, or a loss or a prediction is not finite (on all ranks at once).
        ConfigError: where a pool does not divide its pack's windows, or its panels or
            the images do not allow an augmentation.
        ModelError: where the model or its weights cannot be made.
    """
    training, device = experiment.training, process.device
    precision = resolve_precision(training.precision, device)
    clock, kept = _Clock(), Kept(training.checkpoint == "best", known)
    history, done, n_known = list[dict[str, Any]](), 0, 0
    if known is not None:
        history, done, n_known = list(known.history), known.n_steps, known.n_stages
    stages = [
        (
            stage,
            data.train[stage_rows(stage, data.total_votes[data.train], data.targets[data.train])],
        )
        for stage in training.resolved_stages()
    ]
    packs = {source: data.sources[source].pack for source in used_sources(experiment.input)}
    windows = open_sources(packs, device, process.windows)
    images = Images(data, windows, experiment.input, storage_dtype(precision), kept_bytes(device))
    for stage, _ in stages:
        images.check_augment(stage.augment)
    n_total = sum(stage.epochs * -(-len(rows) // training.batch_size) for stage, rows in stages)

    def result() -> FoldResult:
        return FoldResult(
            valid=data.valid,
            probabilities=kept.table,
            history=list(history),
            weights=kept.weights,
            last_weights=kept.last_weights(model),
            normalisation=images.normalisation(),
            timing=clock.timing(),
            saved_s=known.stages_s if known else 0.0,
            precision=precision,
            optimistic=kept.best,
        )

    with own_torch_generator(device):
        torch.manual_seed(derive_seed(training.seed, fold, 0, 0, "model"))
        model = build_model(_without_weights(experiment.model, known), images.size)
        # After the model: one that cannot be made shall not cost a pass over all rows.
        images.fit(data.train, training.batch_size, process)
        # Half as fast again on a CPU as the default layout (EfficientNets, measured).
        model = model.to(device, storage_dtype(precision)).to(memory_format=torch.channels_last)
        clock.lap("prepare_s")
        if known is not None:
            model.load_state_dict(known.last_weights)
            clock.earlier = known.history[-1]["seconds"] - clock.total()
            _report_known(known, done / n_total, process)
        for index, (stage, rows) in list(enumerate(stages))[n_known:]:
            # Anew each stage: a wrapper orders its sums over the ranks by the steps it has
            # seen, and a stage must not depend on where the one before it was trained.
            network = process.wrap(model)
            n_batches = -(-len(rows) // training.batch_size)
            optimiser = make_optimiser(model, training, stage)
            schedule = make_schedule(optimiser, training, stage, stage.epochs * n_batches)
            step = Step(network, process, precision, optimiser, schedule)
            for epoch in range(stage.epochs):
                batches = plan_epoch(
                    data,
                    rows,
                    training,
                    stage,
                    (images.size, images.widths),
                    (fold, index, epoch),
                    process,
                )
                where = f"stage {stage.name}, epoch {epoch + 1}"
                dropout = derive_seed(training.seed, fold, index, epoch, "dropout", process.rank)
                torch.manual_seed(dropout)
                for half, part in _halves(batches):
                    losses = [
                        step(batch, image)
                        for batch, image in zip(part, images.of_training(part), strict=True)
                    ]
                    done += len(part)
                    train_loss = _checked_mean(losses, process, where, done - len(part))
                    clock.lap("train_s")
                    clock.images += sum(batch.n_global for batch in part)
                    table = predict_rows(
                        model, images, data.valid, training.batch_size, precision, process
                    )
                    check_finite(table, f"{where}, step {done}")
                    scores = kl_report(
                        data.targets[data.valid], table, data.total_votes[data.valid]
                    )
                    kept.offer(scores["kl_all"], table, model, epoch + half == stage.epochs)
                    clock.lap("evaluate_s")
                    record = {
                        "stage": stage.name,
                        "stage_index": index,
                        "epoch": epoch + half,
                        "step": done,
                        **scores,
                        "train_loss": train_loss,
                        "learning_rate": step.learning_rate,
                        "seconds": clock.earlier + clock.total(),
                    }
                    history.append(record)
                    if process.rank == 0:
                        process.report({**record, "progress": done / n_total})
            if index < len(stages) - 1:
                keep(result())
                clock.lap("keep_s")
        return result()


def _without_weights(config: ModelConfig, known: FoldResult | None) -> ModelConfig:
    """The model as it is to be built: pretrained weights only where they stay in it."""
    if known is None:
        return config
    return config.model_copy(update={"pretrained": False, "weights_file": None})


def _report_known(known: FoldResult, progress: float, process: Process) -> None:
    if process.rank == 0:
        names = dict.fromkeys((record["stage_index"], record["stage"]) for record in known.history)
        process.report(
            {
                "event": "stages_reused",
                "stages": [name for _, name in names],
                "saved_s": known.stages_s,
                "progress": progress,
            }
        )


def _halves(batches: list[Batch]) -> list[tuple[float, list[Batch]]]:
    """The batches up to each evaluation, with the share of the epoch done by then."""
    middle = -(-len(batches) // 2)
    if len(batches) == 1:
        return [(1.0, batches)]
    return [(0.5, batches[:middle]), (1.0, batches[middle:])]


def _checked_mean(losses: Iterable[Tensor], process: Process, where: str, before: int) -> float:
    """Mean loss of some steps over all ranks.

    Looked at once for half an epoch, so that a device never waits for the host, and
    after adding up, so that all ranks stop together.
    """
    values = process.add_up(torch.stack(list(losses)).double()).cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        first = int(bad[0])
        raise TrainingError(
            "the training loss must be finite",
            got=str(float(values[first])),
            where=f"{where}, step {before + first + 1}",
            fix="Try a smaller training.learning_rate.",
        )
    return float(values.mean())


@dataclass
class _Clock:
    """Where the time went."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    earlier: float = 0.0
    """Seconds up to the start of the first stage that is trained here, if not those here."""

    def __post_init__(self) -> None:
        self.before = self.started

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.before
        self.before = now

    def total(self) -> float:
        return time.perf_counter() - self.started

    def timing(self) -> dict[str, float]:
        rate = self.images / self.seconds["train_s"]
        return {"total_s": self.total(), **self.seconds, "images_per_s": rate}
