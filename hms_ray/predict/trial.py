"""Which models predict: the folds of a trial, out of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hms_ray.config import Experiment, digest
from hms_ray.errors import StudyError
from hms_ray.experiment import NUMERICS_VERSION
from hms_ray.fold_store import RECORD_FILE, FoldStore, StoredFold, damaged_fold
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial


@dataclass(frozen=True)
class TrialModels:
    """The fold models of one trial.

    Attributes:
        name: what messages call them.
        experiment: what was trained, with its precision resolved.
        folds: fold -> its stored result; at least one.
    """

    name: str
    experiment: Experiment
    folds: Mapping[int, StoredFold]

    def notes(self) -> tuple[str, ...]:
        """What to say of models that another version of the code has trained."""
        found = {fold.record["made_from"].get("numerics") for fold in self.folds.values()}
        return tuple(
            f"{self.name}: trained with numerics version {number}, predicted with "
            f"{NUMERICS_VERSION}: predictions may differ from its out-of-fold ones"
            for number in sorted(found - {NUMERICS_VERSION}, key=str)
        )


def chosen_trial(folder: StudyFolder, number: int | None = None) -> StoredTrial:
    """A finished trial of a study.

    Args:
        folder: the study.
        number: of the trial; the best finished one where absent.

    Raises:
        StudyError: where there is no such trial, or it did not finish.
    """
    finished = folder.finished_trials()
    if not finished:
        raise StudyError("predicting needs a finished trial", got="none", where=folder.path)
    if number is None:
        return finished[0]
    for trial in finished:
        if trial.number == number:
            return trial
    failed = folder.trial(number)
    raise StudyError(
        "a trial must have finished to predict",
        got=f"{number}, which there is not" if failed is None else f"{number}, which failed",
        where=folder.path,
        fix=f"Finished, best first: {', '.join(str(trial.number) for trial in finished)}.",
    )


def read_models(name: str, keys: Mapping[int, str], results: str | Path) -> TrialModels:
    """The models of a trial's folds, compared with their checksums.

    Args:
        name: what messages call them.
        keys: fold -> address in the store.
        results: folder whose store holds them.

    Raises:
        StudyError: where there is no fold, one is absent or damaged, or they are not of
            one experiment.
    """
    if not keys:
        raise StudyError("predicting needs the model of a fold", got="none", where=name)
    store = FoldStore(results)
    folds = {fold: store.read(key) for fold, key in sorted(keys.items())}
    experiments = {fold: _experiment(stored) for fold, stored in folds.items()}
    described = {digest(stored.record["made_from"]["experiment"]) for stored in folds.values()}
    if len(described) > 1:
        raise StudyError(
            "folds that are averaged must be of one experiment",
            got=f"{len(described)} experiments",
            where=name,
        )
    return TrialModels(name, experiments[min(folds)], folds)


def _experiment(stored: StoredFold) -> Experiment:
    """What a fold was trained as.

    Raises:
        StudyError: where its record lacks what predicting needs.
    """
    record = stored.record
    try:
        if not isinstance(record["normalisation"], dict) or not isinstance(
            record["precision"], str
        ):
            raise TypeError
        digest(record["made_from"]["experiment"])
        return Experiment.model_validate(record["resolved"])
    except (KeyError, TypeError, ValidationError):
        reason = f"{RECORD_FILE} lacks what predicting needs"
        raise damaged_fold(stored.weights.parent, reason) from None
