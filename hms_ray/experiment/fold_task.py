"""One fold to train: from its rows to its result in the store.

The result of an experiment truncated after its k-th stage has the weights that stage k hands to
the next one, in every experiment that is equal up to there: its cache key covers rows, folds,
packs, configuration, seed and placement. So a fold looks up its longest truncation in the store,
resumes after it, and stores every finished stage for others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hms_ray.config.experiment import Experiment
from hms_ray.config.space import CHECKPOINT_EVERY_S
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import ModelError
from hms_ray.evaluate.oof import OOF_COLUMNS, align_oof, make_oof, probabilities_of
from hms_ray.experiment.cache_key import require_planned
from hms_ray.experiment.fold_checkpoints import FoldCheckpoints, fold_checkpoints
from hms_ray.experiment.fold_data import fold_data
from hms_ray.storage.fold_store import RECORD_FILE, FoldStore, StoredFold
from hms_ray.storage.hashing import digest
from hms_ray.train.versions import version_record

if TYPE_CHECKING:
    from hms_ray.train.fold_state import FoldState
    from hms_ray.train.process import Process
    from hms_ray.train.result import FoldResult

logger = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]

REFIT: Final = "refit"
"""Of the key inputs of a refit: its epochs by stage."""
ALL_ROWS: Final = "all_rows"
"""Of the records of a refit, whose fold has no validation rows."""


@dataclass(frozen=True)
class FoldTask:
    """One fold to train; contains paths but no arrays, so that it is cheap to send.

    Attributes:
        experiment: with its precision resolved.
        fold: number of the validation fold.
        key: cache key of the result.
        prepared: rows and packs.
        results: folder whose store gets the result.
        key_inputs: plain data whose digest is the key, see ``cache_key_inputs``.
        share_stages: whether first stages are reused from the store and finished ones
            stored; set by the runner. Results are the same.
        checkpoint_every_s: likewise; see ``ResourcesConfig``.
        local_cache: likewise; the folder of this machine's own copies of packs.
        epochs: of a refit on all rows, when each stage ends, see ``train_fold``; None for a fold.
    """

    experiment: Experiment
    fold: int
    key: str
    prepared: Prepared
    results: Path
    key_inputs: dict[str, Any]
    share_stages: bool = True
    checkpoint_every_s: float | None = CHECKPOINT_EVERY_S
    local_cache: Path | None = None
    epochs: tuple[float, ...] | None = None

    @property
    def n_stages(self) -> int:
        """Number of stages of the experiment."""
        return len(self.experiment.training.stages)

    def truncated(self, n_stages: int) -> FoldTask:
        """The same fold of the experiment that ends after its first stages.

        Args:
            n_stages: number of stages to keep, at least 1.
        """
        if n_stages == self.n_stages:
            return self
        first = self.experiment.training.first_stages(n_stages)
        key_inputs = _first_stages(self.key_inputs, n_stages)
        return replace(
            self,
            experiment=self.experiment.model_copy(update={"training": first}),
            key=digest(key_inputs),
            key_inputs=key_inputs,
            epochs=None if self.epochs is None else self.epochs[:n_stages],
        )


def _first_stages(key_inputs: Mapping[str, Any], n_stages: int) -> dict[str, Any]:
    """The key inputs of the experiment that ends after its first stages."""
    described = key_inputs["experiment"]
    training = {**described["training"], "stages": described["training"]["stages"][:n_stages]}
    first = {**key_inputs, "experiment": {**described, "training": training}}
    if REFIT in key_inputs:
        first[REFIT] = key_inputs[REFIT][:n_stages]
    return first


def stage_keys(key_inputs: Mapping[str, Any]) -> list[str]:
    """Cache keys of the results that a fold stores after each stage but the last one."""
    n_stages = len(key_inputs["experiment"]["training"]["stages"])
    return [digest(_first_stages(key_inputs, n)) for n in range(1, n_stages)]


def report_with_task(report: Report, task: FoldTask, record: Mapping[str, Any]) -> None:
    """Reports a record together with the fold, key and experiment that it belongs to.

    Args:
        report: gets ``record`` with ``fold``, ``key``, ``experiment`` (its name) and ``event``
            (default: ``evaluation``); of a refit also ``ALL_ROWS``.
        task: the fold that the record is about.
        record: plain data.
    """
    source: dict[str, Any] = {"fold": task.fold, "key": task.key}
    source |= {"experiment": task.experiment.name}
    if task.epochs is not None:
        source[ALL_ROWS] = True
    report({"event": "evaluation", **record, **source})


def run_task(task: FoldTask, process: Process) -> None:
    """Trains one fold; rank 0 writes the result to the store.

    Called by every rank of a worker group, or by the only process. Training resumes from the
    latest checkpoint that an earlier process left (see ``fold_checkpoints``). If another
    process trains the same cache key, this one waits for its result.

    Raises:
        TrainingError: if libraries or pretrained weights are not those of the cache key.
        FoldCancelled: on all ranks, if ``process.should_stop`` returns true on rank 0; the
            checkpoint stays.
    """
    require_planned(task.experiment, task.key_inputs)
    with fold_checkpoints(task, process) as checkpoints:
        if checkpoints is None:
            logger.info("fold is in the store now (cache key %s)", task.key)
        else:
            _train_task(task, process, checkpoints)


def _train_task(task: FoldTask, process: Process, checkpoints: FoldCheckpoints) -> None:
    from hms_ray.train.loop import train_fold

    started = time.perf_counter()
    rows = task.prepared.rows()
    data = fold_data(task.experiment, task.prepared, task.fold, rows, task.local_cache)
    valid = rows.iloc[data.valid]
    start = process.call_on_rank0(partial(_find_start, task, valid, checkpoints))

    def seconds() -> float:
        return start.earlier_s + time.perf_counter() - started

    def store_result(result: FoldResult) -> None:
        if process.rank == 0:
            made_with = version_record(process.device)
            part = task.truncated(result.n_stages)
            _store(part, valid, result, made_with, start.reused, seconds())

    def notes() -> dict[str, Any]:
        return {"reused": start.reused, "seconds": seconds()}

    on_stage_end = store_result if task.share_stages else _keep_nothing
    save = partial(checkpoints.save, notes, process.leaves)
    state = start.resume_from
    hooks = on_stage_end, save
    result = train_fold(task.experiment, data, task.fold, process, state, *hooks, task.epochs)
    store_result(result)


def _keep_nothing(result: FoldResult) -> None:
    """Leaves the result of a stage to the next one."""


@dataclass(frozen=True)
class _Start:
    """Where the training of a fold starts.

    Attributes:
        resume_from: see ``train_fold``.
        reused: names of the stages that were reused from the store, and their cache key.
        earlier_s: seconds of earlier processes up to the checkpoint that they left.
    """

    resume_from: FoldResult | FoldState | None = None
    reused: dict[str, Any] | None = None
    earlier_s: float = 0.0


def _find_start(task: FoldTask, valid: pd.DataFrame, checkpoints: FoldCheckpoints) -> _Start:
    """The latest checkpoint of a fold, or its longest truncation in the store if it is longer."""
    found, n_stages = checkpoints.latest(), 0
    if found is not None:
        n_stages = found[0].next_stage
    if task.share_stages:
        result, reused = _stored_stages(task, valid, n_stages)
        if result is not None:
            return _Start(result, reused)
    if found is None:
        return _Start()
    state, notes = found
    history = _renamed(state.history, task)
    return _Start(replace(state, history=history), notes["reused"], notes["seconds"])


def _store(
    task: FoldTask,
    valid: pd.DataFrame,
    result: FoldResult,
    made_with: dict[str, Any],
    reused: dict[str, Any] | None,
    seconds: float,
) -> None:
    from hms_ray.train.checkpoint import save_weights

    oof = _oof(task, valid, result)
    record = {
        "made_from": task.key_inputs,
        "made_with": made_with,
        "resolved": task.experiment.model_dump(mode="json"),
        "history": result.history,
        "normalisation": result.normalisation,
        "timing": result.timing,
        "precision": result.precision,
        "optimistic": result.optimistic,
        "reused_stages": reused,
        "saved_s": result.saved_s,
        # The seconds of the history count from here.
        "started_s": time.time() - result.history[-1]["seconds"],
        "seconds": seconds,
    }
    FoldStore(task.results).write(
        task.key,
        oof,
        record,
        lambda path: save_weights(path, result.weights),
    )


def _oof(task: FoldTask, valid: pd.DataFrame, result: FoldResult) -> pd.DataFrame:
    if task.epochs is None:
        return make_oof(valid, task.fold, result.probabilities)
    return pd.DataFrame(columns=list(OOF_COLUMNS))


def _stored_stages(
    task: FoldTask, valid: pd.DataFrame, n_known: int
) -> tuple[FoldResult | None, dict[str, Any] | None]:
    """The longest truncation of a fold in the store, and its stages' names and cache key.

    Only truncations of more than ``n_known`` stages count. A damaged one is set aside.
    """
    store = FoldStore(task.results)
    for n_stages in range(task.n_stages - 1, n_known, -1):
        part = task.truncated(n_stages)
        # A result whose weights were freed cannot be resumed from.
        stored = store.find(part.key) if store.has_weights(part.key) else None
        if stored is None:
            continue
        try:
            result = _as_result(stored, part, valid)
        except ModelError:
            if stored.has_weights:
                raise
            continue
        except (KeyError, TypeError, IndexError):
            store.set_aside(part.key, f"{RECORD_FILE} without what training resumes from")
            continue
        names = [stage.name for stage in part.experiment.training.stages]
        return result, {"names": names, "key": part.key}
    return None, None


def _as_result(stored: StoredFold, part: FoldTask, valid: pd.DataFrame) -> FoldResult:
    """The state of training at the end of a stored fold."""
    from hms_ray.train.checkpoint import load_weights
    from hms_ray.train.result import FoldResult

    record, oof = stored.record, stored.oof
    if part.epochs is None:
        oof = align_oof(oof, valid, stored.weights.parent)
    return FoldResult(
        valid=valid.index.to_numpy(np.int64),
        probabilities=probabilities_of(oof),
        history=_renamed(record["history"], part),
        weights=load_weights(stored.weights),
        normalisation=record["normalisation"],
        timing={name: record["timing"][name] for name in ("train_s", "evaluate_s")},
        saved_s=record["saved_s"],
        precision=record["precision"],
        optimistic=record["optimistic"],
    )


def _renamed(history: Sequence[Mapping[str, Any]], task: FoldTask) -> list[dict[str, Any]]:
    """A history with the names of a task's stages.

    Names change no result, so they may be those of another experiment.
    """
    stages = task.experiment.training.stages
    return [{**line, "stage": stages[line["stage_index"]].name} for line in history]
