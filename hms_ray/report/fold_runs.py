"""The folds of a study as TensorBoard runs of their own, so that one chart compares them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hms_ray.config.space import Objective
from hms_ray.display.event_file import EventFile
from hms_ray.display.tensorboard import fold_run_tag, named_values, positions
from hms_ray.errors import ConfigError, StudyError
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder

_KEY: Final = "key"


def export_folds(
    folder: StudyFolder, results: Path, out: Path, trials: Sequence[int] | None = None
) -> int:
    """Writes the curves of stored folds as runs ``OUT/0003/fold_0``.

    Runs of an earlier call are completed; those of a cache key that changed are replaced.

    Args:
        folder: the study.
        results: folder of the fold store.
        out: folder of the runs, outside ``results``: there is one run per trial.
        trials: numbers of the trials. Default: all that have ended with stored folds.

    Returns:
        Number of folds that are there now. Folds that the store has no longer are skipped.

    Raises:
        ConfigError: if ``out`` lies in ``results``.
        StudyError: if a trial cannot be read.
    """
    if out.resolve().is_relative_to(results.resolve()):
        raise ConfigError(
            "runs of folds must be written outside the results folder",
            got=str(out),
            where=results,
            fix="Name another folder, such as one below /tmp.",
        )
    out.mkdir(parents=True, exist_ok=True)
    store, n_folds = FoldStore(results), 0
    for trial in folder.trials():
        if trials is not None and trial.number not in trials:
            continue
        for fold, key in trial.keys.items():
            try:
                record = store.record(key)
            except StudyError:
                continue
            run = EventFile(out / f"{trial.number:04d}" / f"fold_{fold}", out)
            _add(run, key, record, folder.objective)
            n_folds += 1
    return n_folds


def _add(run: EventFile, key: str, record: dict[str, Any], objective: Objective) -> None:
    if run.marked(_KEY) != key:
        run.drop(lambda tag: True)
        run.mark(_KEY, key)
    history = record["history"]
    for step, line in zip(positions(history), history, strict=True):
        named = named_values(line).items()
        scalars = {fold_run_tag(name, objective): value for name, value in named}
        run.add_scalars(record["started_s"] + float(line["seconds"]), step, scalars)
    run.flush()
