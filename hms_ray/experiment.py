"""All folds of one configuration through a fold runner, the store asked first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config import Experiment, canonical, digest
from hms_ray.config_file import replace_values
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import join_oof, probabilities_of
from hms_ray.fold_store import FoldStore
from hms_ray.fold_task import FoldTask, Report, ReusedStages, labelled, run_task
from hms_ray.prepare import Prepared

__all__ = ["FoldTask", "Report", "ReusedStages", "run_task"]

NUMERICS_VERSION = 1
"""Raised by hand whenever a change of code changes what a fold comes out as."""


@dataclass(frozen=True)
class Placement:
    """Where folds are trained, as far as it changes their numbers.

    Attributes:
        world_size: workers of a group.
        device_class: ``cpu`` or ``cuda``.
        bfloat16: whether every device has bfloat16; decides what ``auto`` means.
    """

    world_size: int = 1
    device_class: Literal["cpu", "cuda"] = "cpu"
    bfloat16: bool = False

    def precision(self, experiment: Experiment) -> str:
        """The precision that an experiment is trained in here."""
        asked = experiment.training.precision
        if asked != "auto":
            return asked
        return "bfloat16" if self.device_class == "cuda" and self.bfloat16 else "float32"


class FoldRunner(Protocol):
    """Trains folds; afterwards their results are in the store."""

    @property
    def placement(self) -> Placement:
        """Where this runner trains."""

    def run(self, tasks: Sequence[FoldTask], report: Report) -> None:
        """Trains every task, whatever experiments they belong to.

        A task is left out where its result is in the store by its turn, such as that of
        an experiment which another one of these began with. ``report`` gets what
        ``train_fold`` reports, by ``labelled``.
        """


@dataclass(frozen=True)
class ExperimentResult:
    """What an experiment came to.

    Attributes:
        scores: ``kl_all``, ``kl_4``, ``kl_10`` on out-of-fold rows; None without rows.
        oof: out-of-fold predictions, one row a training row of the folds asked for.
        keys: address of every fold in the store.
        reused: folds that were in the store already.
        optimistic: whether checkpoints were chosen on the scored rows.
        fold_minutes: training time of all folds, whenever they were trained, stages
            taken from the store included: what the experiment costs by itself.
        saved_minutes: how much of that was not spent for this experiment, because first
            stages were in the store when its folds were trained. Minutes of stages that
            it trained itself, also in a run that was stopped since, count as saved too.
        reused_stages: fold -> the stages that it did not train.
    """

    scores: dict[str, float | None]
    oof: pd.DataFrame
    keys: dict[int, str]
    reused: tuple[int, ...]
    optimistic: bool
    fold_minutes: float
    saved_minutes: float = 0.0
    reused_stages: Mapping[int, ReusedStages] = field(default_factory=dict)


def experiment_key(experiment: Experiment) -> str:
    """Digest of what of an experiment changes results; equal for duplicates."""
    return digest(canonical(experiment))


def fold_ingredients(
    experiment: Experiment,
    prepared: Prepared,
    fold: int,
    placement: Placement,
    weights: str | None = None,
) -> dict[str, Any]:
    """Everything that can change the result of a fold, as plain data.

    Args:
        experiment: any experiment.
        prepared: rows, folds and packs by content.
        fold: validation fold.
        placement: where it is trained.
        weights: SHA-256 of a local file of pretrained weights, if one is given.
    """
    described = canonical(experiment)
    # Rows and folds go in by content, so how they came about does not matter.
    del described["data"]
    described["training"]["precision"] = placement.precision(experiment)
    return {
        "experiment": described,
        "rows": prepared.rows_fingerprint,
        "folds": prepared.folds_fingerprint,
        "sources": {
            name: pack.fingerprint for name, pack in prepared.packs_of(experiment.input).items()
        },
        "fold": fold,
        "world_size": placement.world_size,
        "device_class": placement.device_class,
        "weights": weights,
        "numerics": NUMERICS_VERSION,
    }


def plan_folds(
    experiment: Experiment,
    prepared: Prepared,
    results: str | Path,
    placement: Placement,
    folds: Sequence[int] | None = None,
) -> list[FoldTask]:
    """One task a fold, trained already or not.

    Raises:
        ConfigError: where a fold is asked for that does not exist.
    """
    # A fold asked for twice is trained once.
    wanted = range(prepared.n_folds) if folds is None else dict.fromkeys(folds)
    for fold in wanted:
        if not 0 <= fold < prepared.n_folds:
            raise ConfigError(f"a fold must be from 0 to {prepared.n_folds - 1}", got=fold)
    weights = None
    if experiment.model.weights_file is not None:
        from hms_ray.model import weights_fingerprint

        weights = weights_fingerprint(experiment.model)
    resolved = replace_values(
        experiment, {"training.precision": placement.precision(experiment)}, "experiment"
    )
    tasks = []
    for fold in wanted:
        made_from = fold_ingredients(experiment, prepared, fold, placement, weights)
        tasks.append(
            FoldTask(resolved, fold, digest(made_from), prepared, Path(results), made_from)
        )
    return tasks


def run_experiment(
    experiment: Experiment,
    prepared: Prepared,
    results: str | Path,
    runner: FoldRunner,
    *,
    folds: Sequence[int] | None = None,
    report: Report = lambda record: None,
) -> ExperimentResult:
    """Trains the folds that the store does not hold yet and scores all of them.

    Args:
        experiment: what to train.
        prepared: rows, folds and packs.
        results: folder of all studies and their store.
        runner: trains what is missing.
        folds: folds to run; all where absent.
        report: gets progress records.

    Raises:
        PredictionError: where stored predictions have gaps or are no distributions.
    """
    store = FoldStore(results)
    tasks = plan_folds(experiment, prepared, results, runner.placement, folds)
    missing = [task for task in tasks if not store.has(task.key)]
    if missing:
        runner.run(missing, report)
    return collect(tasks, trained=[task.fold for task in missing])


def collect(tasks: Sequence[FoldTask], trained: Sequence[int]) -> ExperimentResult:
    """Reads the folds of tasks from the store, checks and scores them together."""
    store = FoldStore(tasks[0].results)
    stored = [store.read(task.key) for task in tasks]
    rows = tasks[0].prepared.rows()
    rows = rows[rows["fold"].isin([task.fold for task in tasks])].reset_index(drop=True)
    oof = join_oof([fold.oof for fold in stored], rows)
    scores = kl_report(
        rows[list(TARGET_COLUMNS)].to_numpy(),
        probabilities_of(oof),
        rows["total_votes"].to_numpy(),
    )
    reused = {
        task.fold: ReusedStages.of(fold.record) for task, fold in zip(tasks, stored, strict=True)
    }
    return ExperimentResult(
        scores=scores,
        oof=oof,
        keys={task.fold: task.key for task in tasks},
        reused=tuple(task.fold for task in tasks if task.fold not in set(trained)),
        optimistic=any(fold.record["optimistic"] for fold in stored),
        fold_minutes=sum(fold.minutes for fold in stored),
        saved_minutes=sum(fold.saved_s for fold in stored) / 60,
        reused_stages={fold: stages for fold, stages in reused.items() if stages is not None},
    )


class InProcessRunner:
    """Trains folds one after the other in this process: the local debug mode.

    Args:
        threads: torch threads, at least 1.
        device: ``cpu`` or ``cuda``; the GPU where absent, if there is one, else the CPU.
        share_stages: see ``ResourcesConfig``.

    Raises:
        ConfigError: for less than one thread.
    """

    def __init__(
        self, threads: int = 1, device: str | None = None, *, share_stages: bool = True
    ) -> None:
        if threads < 1:
            raise ConfigError("threads must be at least 1", got=threads)
        import torch

        from hms_ray.train.score import has_bfloat16

        torch.set_num_threads(threads)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._bfloat16 = has_bfloat16(self.device)
        self._share_stages = share_stages

    @property
    def placement(self) -> Placement:
        """One process on the device."""
        kind: Literal["cpu", "cuda"] = "cuda" if self.device.type == "cuda" else "cpu"
        return Placement(world_size=1, device_class=kind, bfloat16=self._bfloat16)

    def run(self, tasks: Sequence[FoldTask], report: Report) -> None:
        """Trains the tasks here, so that a breakpoint anywhere in it works."""
        from hms_ray.train.loop import Process

        for task in tasks:
            if FoldStore(task.results).has(task.key):
                continue
            process = Process(device=self.device, report=partial(labelled, report, task))
            run_task(replace(task, share_stages=self._share_stages), process)
