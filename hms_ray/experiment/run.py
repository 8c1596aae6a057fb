"""Trains the folds of an experiment that the fold store does not have, and scores all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.values import replace_values
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import join_oof, probabilities_of
from hms_ray.experiment.cache_key import cache_key_inputs
from hms_ray.experiment.fold_task import FoldTask, Report
from hms_ray.experiment.older_folds import not_reused
from hms_ray.experiment.placement import Placement
from hms_ray.storage.fold_store import FoldStore, StoredFold
from hms_ray.storage.hashing import digest

MAX_ROUNDS: Final = 2
"""How often missing folds are trained, if their results are damaged or removed meanwhile."""


Continues = Callable[[int, pd.DataFrame], bool]
"""Called with a fold and its out-of-fold predictions; False stops the experiment there."""
AfterFold = Callable[[FoldTask], bool]
"""Called after a fold; False if the folds after it are not needed."""


class FoldRunner(Protocol):
    """Trains folds and writes their results to the store."""

    @property
    def placement(self) -> Placement:
        """Where this runner trains."""

    def run(
        self, tasks: Sequence[FoldTask], report: Report, after_fold: AfterFold | None = None
    ) -> None:
        """Trains the tasks, which may be of several experiments.

        A task whose result is in the store by its turn is skipped, such as an experiment
        that equals the first stages of another one. ``report`` gets the records of
        ``train_fold``, see ``report_with_task``.

        ``after_fold`` is called in this process, in the order of ``tasks``, once the results
        of a task and of all tasks before it are in the store. If it returns False, no further
        task starts, those in training are cancelled, and ``run`` returns.
        """


@dataclass(frozen=True)
class ExperimentResult:
    """Scores and out-of-fold predictions of an experiment.

    Attributes:
        scores: ``kl_all``, ``kl_4``, ``kl_10`` on out-of-fold rows; None without rows.
        oof: out-of-fold predictions, one row per training row of the trained folds.
        keys: fold -> cache key.
        reused: folds that were in the store already.
        optimistic: whether checkpoints were chosen on the scored rows.
        fold_minutes: cost of the experiment: training minutes of all folds, including
            those of reused folds and stages.
        saved_minutes: the part of ``fold_minutes`` that was saved because first stages were
            in the store, also those of an earlier, stopped run of this experiment.
        stopped: whether ``continues`` ended it before its last fold; scores and predictions are
            then those of the folds before.
    """

    scores: dict[str, float | None]
    oof: pd.DataFrame
    keys: dict[int, str]
    reused: tuple[int, ...]
    optimistic: bool
    fold_minutes: float
    saved_minutes: float = 0.0
    stopped: bool = False


def plan_folds(
    experiment: Experiment,
    prepared: Prepared,
    results: str | Path,
    placement: Placement,
    folds: Sequence[int] | None = None,
) -> list[FoldTask]:
    """One task per fold, whether its result is in the store or not.

    Args:
        experiment: what to train.
        prepared: rows, folds and packs.
        results: folder of all studies and their store; made if missing. Once it is removed,
            no fold makes it again.
        placement: where the folds are trained.
        folds: folds to train; repeated ones count once. Default: all.

    Raises:
        ConfigError: if a fold does not exist.
        ModelError: if pretrained weights cannot be found, downloaded or read.
    """
    wanted = range(prepared.n_folds) if folds is None else dict.fromkeys(folds)
    for fold in wanted:
        if not 0 <= fold < prepared.n_folds:
            raise ConfigError(f"a fold must be from 0 to {prepared.n_folds - 1}", got=fold)
    resolved = replace_values(
        experiment, {"training.precision": placement.precision(experiment)}, "experiment"
    )
    Path(results).mkdir(parents=True, exist_ok=True)
    tasks = []
    for fold in wanted:
        key_inputs = cache_key_inputs(experiment, prepared, fold, placement)
        tasks.append(
            FoldTask(resolved, fold, digest(key_inputs), prepared, Path(results), key_inputs)
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
    needs_weights: bool = False,
    continues: Continues | None = None,
) -> ExperimentResult:
    """Trains the folds that the store does not have and scores all of them.

    Args:
        experiment: what to train.
        prepared: rows, folds and packs.
        results: folder of all studies and their store.
        runner: trains the missing folds.
        folds: folds to train. Default: all.
        report: gets progress records.
        needs_weights: train folds again whose weights were freed.
        continues: called after each fold, in the order of the folds, also for those that the
            store has already; the experiment ends early if it returns False.

    Raises:
        ConfigError: if a fold does not exist.
        PredictionError: if stored predictions have gaps or are not distributions.
    """
    store = FoldStore(results)
    tasks = plan_folds(experiment, prepared, results, runner.placement, folds)
    if needs_weights:
        _remove_without_weights(store, tasks, report)
    stored = _stored(store, tasks)
    missing = [task for task in tasks if task.key not in stored]
    trained = [task.fold for task in missing]
    reused = {task.fold: task.key for task in tasks if task not in missing}
    if reused:
        report({"event": "folds_reused", "experiment": experiment.name, "keys": reused})
    if text := not_reused(missing):
        report({"event": "folds_not_reused", "experiment": experiment.name, "text": text})
    looks = _Looks(store, tasks, continues)
    for _ in range(MAX_ROUNDS):
        if not looks.advance():
            break
        if not missing:
            break
        runner.run(missing, report, None if continues is None else looks.after)
        if looks.stopped:
            break
        store.wait_for([task.key for task in missing])
        # A result that was damaged or removed meanwhile is made again.
        stored |= _stored(store, missing)
        missing = [task for task in missing if task.key not in stored]
    if looks.stopped:
        tasks = looks.seen
        stored = {task.key: store.read(task.key) for task in tasks}
        return replace(_scored(tasks, [stored[task.key] for task in tasks], trained), stopped=True)
    stored |= {task.key: store.read(task.key) for task in missing}
    return _scored(tasks, [stored[task.key] for task in tasks], trained)


class _Looks:
    """Decides after each fold, in order, whether the next ones are needed."""

    def __init__(
        self, store: FoldStore, tasks: Sequence[FoldTask], continues: Continues | None
    ) -> None:
        self._store, self._continues = store, continues
        self._waiting = deque([] if continues is None else tasks)
        self.seen: list[FoldTask] = []
        self.stopped = False

    def after(self, task: FoldTask) -> bool:
        """As ``AfterFold``."""
        self._store.wait_for([task.key])
        return self.advance()

    def advance(self) -> bool:
        """Decides after all folds that are in the store, up to the first that is not."""
        while self._waiting and self._continues is not None and not self.stopped:
            task = self._waiting[0]
            stored = self._store.find(task.key)
            if stored is None:
                break
            self.seen.append(self._waiting.popleft())
            # Nothing is left to be stopped after the last one.
            self.stopped = not self._continues(task.fold, stored.oof) and bool(self._waiting)
        return not self.stopped


def _remove_without_weights(store: FoldStore, tasks: Sequence[FoldTask], report: Report) -> None:
    """Removes the results of tasks whose weights were freed, so that they are trained again."""
    found = [task for task in tasks if store.has(task.key) and not store.has_weights(task.key)]
    if not found:
        return
    folds = ", ".join(str(task.fold) for task in found)
    report(
        {
            "event": "folds_not_reused",
            "experiment": found[0].experiment.name,
            "text": f"fold {folds}: trained again, since the weights were freed",
        }
    )
    for task in found:
        store.remove(task.key)


def _stored(store: FoldStore, tasks: Sequence[FoldTask]) -> dict[str, StoredFold]:
    """Cache key -> result, for the tasks that have an undamaged one."""
    found = {task.key: store.find(task.key) for task in tasks}
    return {key: fold for key, fold in found.items() if fold is not None}


def collect(tasks: Sequence[FoldTask], trained: Sequence[int]) -> ExperimentResult:
    """Reads the results of tasks from the store, checks them and scores all rows together.

    Raises:
        StoredFoldError: if one is missing or damaged.
    """
    store = FoldStore(tasks[0].results)
    return _scored(tasks, [store.read(task.key) for task in tasks], trained)


def _scored(
    tasks: Sequence[FoldTask], stored: Sequence[StoredFold], trained: Sequence[int]
) -> ExperimentResult:
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
        fold_minutes=sum(fold.minutes for fold in stored),
        saved_minutes=sum(fold.saved_s for fold in stored) / 60,
    )
