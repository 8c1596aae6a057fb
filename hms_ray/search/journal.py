"""Optuna's study in a journal file: what is asked of it, and what it is told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from hms_ray.errors import StudyError
from hms_ray.search.distributions import Point

STUDY_NAME = "study"
"""Name inside the journal, which holds one study."""

Scores = Mapping[str, float | None]


class Journal:
    """An Optuna study that lives in a file.

    Args:
        file: made where absent.
        distributions: of every searched path.

    Raises:
        StudyError: where the file cannot be read.
    """

    def __init__(self, file: Path, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = dict(distributions)
        self._study, self._storage = _open_study(file)
        for _ in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            # A kill between enqueueing and asking; asking makes it RUNNING.
            self._study.ask(self._distributions)

    def trials(self) -> Sequence[FrozenTrial]:
        """All trials, by number."""
        return self._study.get_trials(deepcopy=False)

    def drawn_whole(self, trial: FrozenTrial) -> bool:
        """Whether a trial has a value for every searched path."""
        return trial.params.keys() == self._distributions.keys()

    def ask_for(self, origin: str, point: Point) -> optuna.Trial:
        """A trial of a given point."""
        self._study.enqueue_trial(point)
        return self._ask(origin)

    def ask_sampler(self, sampler: BaseSampler) -> optuna.Trial:
        """A trial of a point that a sampler draws."""
        self._study.sampler = sampler
        return self._ask("sampler")

    def _ask(self, origin: str) -> optuna.Trial:
        trial = self._study.ask(self._distributions)
        trial.set_user_attr("origin", origin)
        return trial

    def tell_complete(self, number: int, scores: Scores, objective: str) -> None:
        """Tells a trial's scores; that of the objective is its value."""
        for name, score in scores.items():
            self._set(number, name, score)
        self._study.tell(number, scores[objective])

    def tell_duplicate(self, number: int, original: int, scores: Scores, objective: str) -> None:
        """Tells that a trial repeats another one, whose scores are known."""
        self._set(number, "duplicate_of", original)
        self.tell_complete(number, scores, objective)

    def tell_failed(self, number: int, reason: str) -> None:
        """Tells that a trial failed."""
        self._set(number, "reason", reason)
        self._study.tell(number, state=TrialState.FAIL)

    def tell_pruned(self, number: int, values: Mapping[int, float]) -> None:
        """Tells that a trial was stopped early, after its values by step."""
        for step, value in values.items():
            self._storage.set_trial_intermediate_value(self._id(number), step, value)
        self._study.tell(number, state=TrialState.PRUNED)

    def _set(self, number: int, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._id(number), name, value)

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(STUDY_NAME)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)


def scores_of(trial: FrozenTrial) -> Scores:
    """The scores that a finished trial was told with."""
    return {name: trial.user_attrs.get(name) for name in ("kl_all", "kl_4", "kl_10")}


def _drop_torn_line(journal: Path) -> None:
    """Cuts off a last line that was not written whole, before another is joined to it.

    A full disk or a lost machine leaves one; what it told is told again.
    """
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if 0 < whole < len(content):
        os.truncate(journal, whole)


def _open_study(journal: Path) -> tuple[optuna.Study, JournalStorage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        _drop_torn_line(journal)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(
            storage=storage, study_name=STUDY_NAME, direction="minimize", load_if_exists=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            "Optuna's journal must be readable",
            got=f"{type(error).__name__}: {error}",
            where=journal,
            fix="Move the journal away to search anew; finished folds stay in the store.",
        ) from None
    return study, storage
