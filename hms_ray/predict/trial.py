"""Which models predict: the folds of a trial, out of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from pydantic import ValidationError

from hms_ray.config.experiment import Experiment
from hms_ray.errors import StudyError
from hms_ray.experiment.cache_key import NUMERICS_VERSION
from hms_ray.storage.fold_store import RECORD_FILE, FoldStore, StoredFold, damaged_fold
from hms_ray.storage.hashing import digest
from hms_ray.study.folder import StudyFolder
from hms_ray.study.identity import differences
from hms_ray.study.new import ROWS_FILE
from hms_ray.study.trial import StoredTrial

_SHOWN: Final = 3
"""Differences of two experiments that an error names."""


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


def rows_of_study(folder: StudyFolder) -> pd.DataFrame:
    """The study's rows.

    Raises:
        StudyError: where their file is missing or damaged.
    """
    try:
        return folder.rows()
    except (OSError, ValueError) as error:
        reason = "none" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise StudyError(
            f"a study's {ROWS_FILE} must be there and readable",
            got=reason,
            where=folder.path,
            fix="Start the study again under another name: its folds stay in the store.",
        ) from None


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
    return TrialModels(name, one_experiment(list(folds.values()), name), folds)


def one_experiment(folds: Sequence[StoredFold], name: str, fix: str | None = None) -> Experiment:
    """What the folds of one model were trained as: the first one's, of the same experiment.

    Args:
        folds: at least one.
        name: what messages call them.
        fix: what the user can do about folds of several.

    Raises:
        StudyError: where they are not of one experiment, or a record is damaged.
    """
    experiments = [_experiment(stored) for stored in folds]
    described = [stored.record["made_from"]["experiment"] for stored in folds]
    for stored, other in zip(folds, described, strict=True):
        if digest(other) != digest(described[0]):
            changed = differences(described[0], other)
            more = len(changed) - _SHOWN
            raise StudyError(
                "folds of one model must be of one experiment",
                got=f"another in fold {stored.key[:12]} than in {folds[0].key[:12]}: "
                f"{'; '.join(changed[:_SHOWN])}{f'; and {more} more' if more > 0 else ''}",
                where=name,
                fix=fix,
            )
    return experiments[0]


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
