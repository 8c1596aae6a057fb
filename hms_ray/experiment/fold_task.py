"""One fold to train: from its rows to its result in the store.

The result of an experiment cut after its k-th stage is the checkpoint after stage k of
every experiment that agrees with it so far: same rows, folds, packs, configuration up
to there, seed and placement, which is what its ordinary key holds. So a fold first asks
the store for the longest such beginning, goes on after it, and leaves every finished
stage there for others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.dataset.prepare import Prepared, open_prepared
from hms_ray.dataset.sources import ROW_COLUMNS
from hms_ray.evaluate.oof import align_oof, make_oof, probabilities_of
from hms_ray.storage.fold_store import RECORD_FILE, FoldStore, StoredFold, damaged_fold
from hms_ray.storage.hashing import digest

if TYPE_CHECKING:
    from hms_ray.pack.store import Pack
    from hms_ray.train.batches import FoldData, SourceRows
    from hms_ray.train.process import Process
    from hms_ray.train.result import FoldResult

Report = Callable[[dict[str, Any]], None]


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
        share_stages: whether first stages may come from the store and finished ones are
            kept there; set by the runner. What comes out is the same.
    """

    experiment: Experiment
    fold: int
    key: str
    prepared: Prepared
    results: Path
    made_from: dict[str, Any]
    share_stages: bool = True

    @property
    def n_stages(self) -> int:
        """Stages of the experiment."""
        return len(self.experiment.training.stages)

    def cut(self, n_stages: int) -> FoldTask:
        """The same fold of the experiment that ends after its first stages.

        Args:
            n_stages: stages to keep, from 1 to all of them.
        """
        if n_stages == self.n_stages:
            return self
        training = self.experiment.training
        first = training.model_copy(update={"stages": training.stages[:n_stages]})
        described = self.made_from["experiment"]
        stages = described["training"]["stages"][:n_stages]
        made_from = {
            **self.made_from,
            "experiment": {**described, "training": {**described["training"], "stages": stages}},
        }
        return replace(
            self,
            experiment=self.experiment.model_copy(update={"training": first}),
            key=digest(made_from),
            made_from=made_from,
        )


@dataclass(frozen=True)
class ReusedStages:
    """First stages of a fold that were taken from the store instead of trained.

    Attributes:
        names: of the stages.
        key: address of the result that they came from.
        saved_s: seconds of training and evaluation that they took there.
    """

    names: tuple[str, ...]
    key: str
    saved_s: float

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> ReusedStages | None:
        """As a fold's record has it; None where all stages were trained for it."""
        found = record.get("reused_stages")
        if found is None:
            return None
        return cls(tuple(found["names"]), found["key"], record["saved_s"])


def labelled(report: Report, task: FoldTask, record: Mapping[str, Any]) -> None:
    """Reports a record with the fold, key and experiment that it belongs to.

    Args:
        report: gets ``record`` with ``fold``, ``key``, ``experiment`` (its name) and,
            where it names no other ``event``, ``evaluation``.
        task: what the record is about.
        record: plain data.
    """
    address = {"fold": task.fold, "key": task.key, "experiment": task.experiment.name}
    report({"event": "evaluation", **record, **address})


def run_task(task: FoldTask, process: Process) -> None:
    """Trains one fold in this process; rank 0 puts the result into the store.

    Called by every rank of a worker group, or by the one process there is.

    Raises:
        StudyError: on every rank, where stages in the store are damaged.
    """
    from hms_ray.train.loop import train_fold

    started = time.perf_counter()
    rows = task.prepared.rows()
    data = _fold_data(task, rows)
    valid = rows.iloc[data.valid]
    resume_from, reused = None, None
    if task.share_stages and task.n_stages > 1:
        resume_from, reused = process.call_on_rank0(partial(_known_stages, task, valid))

    def store_result(result: FoldResult) -> None:
        if process.rank == 0:
            seconds = time.perf_counter() - started
            _store(task.cut(result.n_stages), valid, result, reused, seconds)

    if task.share_stages:
        result = train_fold(task.experiment, data, task.fold, process, resume_from, store_result)
    else:
        result = train_fold(task.experiment, data, task.fold, process)
    store_result(result)


def located(packs: Mapping[str, Pack], rows: pd.DataFrame) -> dict[str, SourceRows]:
    """Where the windows of rows are in packs.

    Args:
        packs: source -> its pack.
        rows: ids and starts of each row's windows (``ROW_COLUMNS``).

    Raises:
        PackError: where a window is not in its pack.
    """
    from hms_ray.train.batches import SourceRows

    sources = {}
    for name, pack in packs.items():
        windows = [rows[column].to_numpy() for column in ROW_COLUMNS[name]]
        sources[name] = SourceRows(pack, pack.locate(*windows), pack.room(*windows))
    return sources


def _fold_data(task: FoldTask, rows: pd.DataFrame) -> FoldData:
    from hms_ray.train.batches import FoldData

    packs = task.prepared.packs_of(task.experiment.input)
    fold = rows["fold"].to_numpy()
    return FoldData(
        sources=located({name: open_prepared(ref) for name, ref in packs.items()}, rows),
        targets=rows[list(TARGET_COLUMNS)].to_numpy(),
        total_votes=rows["total_votes"].to_numpy(),
        train=np.flatnonzero(fold != task.fold),
        valid=np.flatnonzero(fold == task.fold),
    )


def _store(
    task: FoldTask,
    valid: pd.DataFrame,
    result: FoldResult,
    reused: ReusedStages | None,
    seconds: float,
) -> None:
    from hms_ray.train.checkpoint import save_weights

    oof = make_oof(valid, task.fold, result.probabilities)
    record = {
        "made_from": task.made_from,
        "resolved": task.experiment.model_dump(mode="json"),
        "history": result.history,
        "normalisation": result.normalisation,
        "timing": result.timing,
        "precision": result.precision,
        "optimistic": result.optimistic,
        "reused_stages": reused and {"names": list(reused.names), "key": reused.key},
        "saved_s": result.saved_s,
        # So that a record of the history was made at this time and its own seconds.
        "started_s": time.time() - result.history[-1]["seconds"],
        "seconds": seconds,
    }
    other_last = result.last_weights is not result.weights
    FoldStore(task.results).write(
        task.key,
        oof,
        record,
        lambda path: save_weights(path, result.weights),
        (lambda path: save_weights(path, result.last_weights)) if other_last else None,
    )


def _known_stages(
    task: FoldTask, valid: pd.DataFrame
) -> tuple[FoldResult | None, ReusedStages | None]:
    """The longest beginning of a fold that the store can give; (None, None) without one.

    Raises:
        StudyError: where it is damaged.
    """
    store = FoldStore(task.results)
    for n_stages in range(task.n_stages - 1, 0, -1):
        part = task.cut(n_stages)
        if not store.has(part.key):
            continue
        stored = store.read(part.key)
        try:
            result = _as_result(stored, part, valid)
            saved_s = 0.0 if result is None else result.stages_s
        except (KeyError, TypeError, IndexError):
            reason = f"{RECORD_FILE} lacks what training goes on from"
            raise damaged_fold(store.path(part.key), reason) from None
        if result is not None:
            names = tuple(stage.name for stage in part.experiment.training.stages)
            return result, ReusedStages(names, part.key, saved_s)
    return None, None


def _as_result(stored: StoredFold, part: FoldTask, valid: pd.DataFrame) -> FoldResult | None:
    """A stored fold as training left it; None where its last weights were not stored."""
    from hms_ray.train.checkpoint import load_weights
    from hms_ray.train.result import FoldResult

    record, stages = stored.record, part.experiment.training.stages
    # Names change no result, so another experiment may have called the stages otherwise.
    history = [{**line, "stage": stages[line["stage_index"]].name} for line in record["history"]]
    weights = last = load_weights(stored.weights)
    if stored.last is not None:
        last = load_weights(stored.last)
    elif record["optimistic"] and not _ends_with_best(history):
        # Folds stored before stages were shared hold the best weights alone.
        return None
    return FoldResult(
        valid=valid.index.to_numpy(np.int64),
        probabilities=probabilities_of(align_oof(stored.oof, valid, stored.weights.parent)),
        history=history,
        weights=weights,
        last_weights=last,
        normalisation=record["normalisation"],
        timing=record["timing"],
        saved_s=record.get("saved_s", 0.0),
        precision=record["precision"],
        optimistic=record["optimistic"],
    )


def _ends_with_best(history: list[dict[str, Any]]) -> bool:
    scores = [line["kl_all"] for line in history]
    return bool(scores.index(min(scores)) == len(scores) - 1)
