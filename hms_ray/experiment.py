"""All folds of one configuration through a fold runner, the store asked first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config import Experiment, canonical, digest
from hms_ray.config_file import replace_values
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import join_oof, make_oof, probabilities_of
from hms_ray.fold_store import FoldStore
from hms_ray.prepare import Prepared, open_prepared
from hms_ray.study_sources import ROW_COLUMNS

if TYPE_CHECKING:
    from hms_ray.train.loop import FoldResult, Process

NUMERICS_VERSION = 1
"""Raised by hand whenever a change of code changes what a fold comes out as."""

Report = Callable[[dict[str, Any]], None]


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


@dataclass(frozen=True)
class FoldTask:
    """One fold to train; holds paths, no arrays, so that it travels cheaply.

    Attributes:
        experiment: with its precision resolved.
        fold: number of the validation fold.
        key: address of the result.
        prepared: rows and packs.
        results: folder whose store takes the result.
        made_from: plain data that the key is the hash of.
    """

    experiment: Experiment
    fold: int
    key: str
    prepared: Prepared
    results: Path
    made_from: dict[str, Any]


class FoldRunner(Protocol):
    """Trains folds; afterwards their results are in the store."""

    @property
    def placement(self) -> Placement:
        """Where this runner trains."""

    def run(self, tasks: Sequence[FoldTask], report: Report) -> None:
        """Trains every task; ``report`` gets progress records (see ``train_fold``)."""


@dataclass(frozen=True)
class ExperimentResult:
    """What an experiment came to.

    Attributes:
        scores: ``kl_all``, ``kl_4``, ``kl_10`` on out-of-fold rows; None without rows.
        oof: out-of-fold predictions, one row a training row of the folds asked for.
        keys: address of every fold in the store.
        reused: folds that were in the store already.
        optimistic: whether checkpoints were chosen on the scored rows.
        fold_minutes: training time of all folds, whenever they were trained.
    """

    scores: dict[str, float | None]
    oof: pd.DataFrame
    keys: dict[int, str]
    reused: tuple[int, ...]
    optimistic: bool
    fold_minutes: float


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
    return ExperimentResult(
        scores=scores,
        oof=oof,
        keys={task.fold: task.key for task in tasks},
        reused=tuple(task.fold for task in tasks if task.fold not in set(trained)),
        optimistic=any(fold.record["optimistic"] for fold in stored),
        fold_minutes=sum(fold.record["seconds"] for fold in stored) / 60,
    )


def run_task(task: FoldTask, process: Process) -> None:
    """Trains one fold in this process; rank 0 puts the result into the store.

    Called by every rank of a worker group, or by the one process there is.
    """
    from hms_ray.train.batches import FoldData, SourceRows
    from hms_ray.train.loop import train_fold

    started, started_s = time.perf_counter(), time.time()
    rows = task.prepared.rows()
    sources = {}
    for name, ref in task.prepared.packs_of(task.experiment.input).items():
        pack = open_prepared(ref)
        windows = [rows[column].to_numpy() for column in ROW_COLUMNS[name]]
        sources[name] = SourceRows(pack, pack.locate(*windows), pack.room(*windows))
    fold = rows["fold"].to_numpy()
    data = FoldData(
        sources=sources,
        targets=rows[list(TARGET_COLUMNS)].to_numpy(),
        total_votes=rows["total_votes"].to_numpy(),
        train=np.flatnonzero(fold != task.fold),
        valid=np.flatnonzero(fold == task.fold),
    )
    result = train_fold(task.experiment, data, task.fold, process)
    if process.rank == 0:
        seconds = time.perf_counter() - started
        _store(task, rows, result, {"started_s": started_s, "seconds": seconds})


def _store(task: FoldTask, rows: pd.DataFrame, result: FoldResult, times: dict[str, float]) -> None:
    from hms_ray.train.checkpoint import save_weights

    oof = make_oof(rows.iloc[result.valid], task.fold, result.probabilities)
    record = {
        "made_from": task.made_from,
        "resolved": task.experiment.model_dump(mode="json"),
        "history": result.history,
        "normalisation": result.normalisation,
        "timing": result.timing,
        "precision": result.precision,
        "optimistic": result.optimistic,
        **times,
    }
    FoldStore(task.results).write(
        task.key, oof, record, lambda path: save_weights(path, result.weights)
    )


def _with_fold(report: Report, fold: int, record: dict[str, Any]) -> None:
    report({**record, "fold": fold})


class InProcessRunner:
    """Trains folds one after the other in this process: the local debug mode.

    Args:
        threads: torch threads, at least 1.
        device: ``cpu`` or ``cuda``; the GPU where absent, if there is one, else the CPU.

    Raises:
        ConfigError: for less than one thread.
    """

    def __init__(self, threads: int = 1, device: str | None = None) -> None:
        if threads < 1:
            raise ConfigError("threads must be at least 1", got=threads)
        import torch

        from hms_ray.train.score import has_bfloat16

        torch.set_num_threads(threads)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._bfloat16 = has_bfloat16(self.device)

    @property
    def placement(self) -> Placement:
        """One process on the device."""
        kind: Literal["cpu", "cuda"] = "cuda" if self.device.type == "cuda" else "cpu"
        return Placement(world_size=1, device_class=kind, bfloat16=self._bfloat16)

    def run(self, tasks: Sequence[FoldTask], report: Report) -> None:
        """Trains every task here, so that a breakpoint anywhere in it works."""
        from hms_ray.train.loop import Process

        for task in tasks:
            process = Process(
                rank=0,
                world_size=1,
                device=self.device,
                report=partial(_with_fold, report, task.fold),
            )
            run_task(task, process)
