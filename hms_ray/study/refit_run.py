"""``hms-ray refit``: a finished trial's experiment, trained on all rows but the hold-out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import split_rows
from hms_ray.config.values import replace_values
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.display.live import bar, print_text
from hms_ray.display.progress import Progress, TrainingProgress
from hms_ray.errors import ConfigError, DataError, TrainingError
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.refit import kept_epochs, refit_epochs, refit_task
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.hashing import table_fingerprint
from hms_ray.storage.run_log import LOG_FILE, run_log
from hms_ray.study.confirmation import SEED_OFFSET
from hms_ray.study.folder import ROWS_FILE, StudyFolder
from hms_ray.study.holdout import require_held_out_rows
from hms_ray.study.refit import CLOSED_FILE, Refit, close_holdout, now, write_refit
from hms_ray.study.trial import StoredTrial


class RefitTrainer(Protocol):
    """Trains the models of a refit into the fold store."""

    @property
    def placement(self) -> Placement:
        """Where it trains."""

    def train(self, tasks: Sequence[FoldTask], progress: Progress) -> dict[str, str]:
        """Trains all tasks; returns why some failed, by the name of their experiment."""


@dataclass(frozen=True, kw_only=True)
class RefitOptions:
    """Options of ``hms-ray refit``.

    Attributes:
        data_dir: competition folder.
        results: folder of all studies and the fold store.
        trial: number of the trial; default: the best one.
        seeds: number of models, each with a training seed of its own.
        with_holdout: train on the rows of the hold-out too.
        pack_dir: folder of packs; default: ``packed`` in the competition folder.
        log_level: least level of records in the study's log.
    """

    data_dir: Path
    results: Path
    trial: int | None = None
    seeds: int = 1
    with_holdout: bool = False
    pack_dir: Path | None = None
    log_level: str = "INFO"


def run_refit(
    folder: StudyFolder, options: RefitOptions, trainer: AbstractContextManager[RefitTrainer]
) -> str:
    """Trains a trial on all rows and links the models in the trial's folder.

    What is planned is recorded before training starts, and so is that the hold-out is closed.
    The same command resumes a refit that was stopped. No score is made.

    Args:
        folder: the study.
        options: of the command.
        trainer: trains the models.

    Returns:
        Lines to print.

    Raises:
        ConfigError: if there are no seeds, or the study has no hold-out to train on.
        StudyError: if the trial did not finish, a fold is missing, or another command runs the
            study.
        DataError: if the competition folder has other rows than the study.
        TrainingError: if a model cannot be trained.
    """
    if options.seeds < 1:
        raise ConfigError("--seeds must be at least 1", got=options.seeds, fix="Use --seeds 1.")
    if options.with_holdout:
        require_held_out_rows(folder)
    trial, store = folder.finished_trial(options.trial), FoldStore(options.results)
    histories = {fold: store.record(key)["history"] for fold, key in sorted(trial.keys.items())}
    with folder.lock(), run_log(folder.path / LOG_FILE, options.log_level), trainer as training:
        prepared = _prepared(folder, trial, options)
        epochs = refit_epochs(list(histories.values()))
        tasks = _tasks(trial, prepared, options, training.placement, epochs)
        refit = Refit(
            date=now(),
            epochs=epochs,
            fold_epochs={fold: tuple(kept_epochs(one)) for fold, one in histories.items()},
            folds=trial.keys,
            keys={task.experiment.training.seed: task.key for task in tasks},
            n_rows=len(prepared.rows()),
            with_holdout=options.with_holdout,
        )
        if options.with_holdout:
            keys = list(refit.keys.values())
            close_holdout(folder, {"date": refit.date, "trial": trial.number, "keys": keys})
            print_text(f"The hold-out is closed for good: {folder.path / CLOSED_FILE}")
        write_refit(trial.path, refit)
        missing = [task for task in tasks if not store.has_weights(task.key)]
        _train(folder, missing, store, training)
    return _summary(folder, trial, refit, len(tasks) - len(missing))


def _prepared(folder: StudyFolder, trial: StoredTrial, options: RefitOptions) -> Prepared:
    """The rows to train on and their packs, after checking that they are those of the study."""
    _require_rows(folder, trial, options.data_dir)
    return prepare(
        options.data_dir,
        trial.experiment,
        options.results,
        pack_dir=options.pack_dir,
        folds=read_folds(folder.path / ROWS_FILE),
        bars=bar,
        with_held_out=options.with_holdout,
    )


def _require_rows(folder: StudyFolder, trial: StoredTrial, data_dir: Path) -> None:
    """Checks, before recordings are read, that the labels of a folder give a study's rows."""
    known = folder.identity["data"]
    try:
        rows, held_out = split_rows(read_labels(data_dir), trial.experiment.data)
    except ConfigError:  # Too few patients for the hold-out.
        rows = held_out = pd.DataFrame({"row_id": []})
    # Those without a usable signal may have been dropped.
    own = rows[rows["row_id"].isin(folder.rows()["row_id"])].reset_index(drop=True)
    found = table_fingerprint(own), table_fingerprint(held_out)
    if found[0] != known["rows"] or known.get("holdout", found[1]) != found[1]:
        raise DataError(
            "the competition folder must have the rows of the study",
            got="others",
            where=data_dir,
            fix="Name the folder that the study was made from: --data DIR",
        )


def _tasks(
    trial: StoredTrial,
    prepared: Prepared,
    options: RefitOptions,
    placement: Placement,
    epochs: Sequence[float],
) -> list[FoldTask]:
    """One task per seed: the trial's own, then those of confirming runs."""
    own = trial.experiment.training.seed
    tasks = []
    for place in range(options.seeds):
        seed = own + SEED_OFFSET + place if place else own
        experiment = replace_values(trial.experiment, {"training.seed": seed}, "experiment")
        named = experiment.model_copy(update={"name": f"trial {trial.number:04d} seed {seed}"})
        tasks.append(refit_task(named, prepared, options.results.resolve(), placement, epochs))
    return tasks


def _train(
    folder: StudyFolder, tasks: Sequence[FoldTask], store: FoldStore, trainer: RefitTrainer
) -> None:
    if not tasks:
        return
    for task in tasks:
        if store.has(task.key):
            store.remove(task.key)  # Its weights were freed.
    progress = TrainingProgress(
        tasks[0].fold, work={(task.experiment.name, task.fold): 1.0 for task in tasks}
    )
    failed = trainer.train(tasks, progress)
    if failed:
        name, reason = next(iter(failed.items()))
        raise TrainingError(
            "every model of a refit must be trained",
            got=f"{name} failed: {reason}",
            where=folder.path / LOG_FILE,
            fix="Mend the cause and run the same command again; it resumes.",
        )
    store.wait_for([task.key for task in tasks])


def _summary(folder: StudyFolder, trial: StoredTrial, refit: Refit, n_stored: int) -> str:
    return (
        f"{folder.name} {trial.number:04d}: {refit.text}\n"
        "No score: no row is left to score them on."
        + (f"\n{n_stored} reused from the fold store" if n_stored else "")
    )
