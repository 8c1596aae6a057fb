"""Optuna's study in a journal file: new trials and their results."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from hms_ray.config.space import Space
from hms_ray.errors import LockedError, StudyError
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.search.distributions import Point, distributions, draw, is_whole
from hms_ray.search.pruner import FoldReport
from hms_ray.search.warm_start import ORIGIN, KnownTrial
from hms_ray.storage.faults import storage_errors

STUDY_NAME = "study"
"""Name within a journal whose study has no other, as in those of earlier versions."""

OWNER: Final = "owner"
"""Key of a record: number of the command that wrote it, see ``_Backend``."""
# Optuna counts records, so that none may be missing: the deletion of no study changes nothing.
_NOTHING: Final = {"op_code": 1, "worker_id": "", "study_id": -1}

Scores = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class StudyTitle:
    """What Optuna's own tools, such as Optuna Dashboard, show of a study.

    Attributes:
        name: of a new study; a study that exists keeps its name.
        attributes: of the study, such as its data and command.
    """

    name: str = STUDY_NAME
    attributes: Mapping[str, str | bool] = field(default_factory=dict)


class Journal:
    """An Optuna study that lives in a file.

    Args:
        file: made if missing.
        space: what is searched.
        title: names the study and its metric; the search does not depend on it.

    Raises:
        StudyError: if the file cannot be read.
    """

    def __init__(self, file: Path, space: Space, title: StudyTitle | None = None) -> None:
        self._space, self._title = space, title or StudyTitle()
        self._storage = open_storage(file)
        self._study = self._open()
        for _ in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            # Left by a kill between enqueueing and asking, which makes a trial RUNNING.
            draw(self._study.ask(), space)

    def _open(self) -> optuna.Study:
        """The study to draw trials from."""
        known = [study.study_name for study in self._storage.get_all_studies()]
        # A folder that was renamed still holds the same study.
        study = open_study(self._storage, known[0] if known else self._title.name, "minimize")
        self._describe(study, SCORE_NAMES[self._space.objective])
        return study

    def _describe(self, study: optuna.Study, metric: str) -> None:
        """Gives a study the name of its metric and its attributes, where they differ."""
        if study.metric_names != [metric]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names([metric])
        known = study.user_attrs
        for name, value in {"objective": metric, **self._title.attributes}.items():
            if known.get(name) != value:
                study.set_user_attr(name, value)

    def renew(self, finished: Sequence[int]) -> None:
        """Opens a study with new values if one is due; ``finished``: numbers of trials."""

    def trials(self) -> Sequence[FrozenTrial]:
        """All trials of this study, by number; none of a warm start."""
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if not str(trial.user_attrs.get("origin", "")).startswith(ORIGIN)
        ]

    def add_known(self, known: Sequence[KnownTrial], objective: str) -> None:
        """Adds trials that another study has trained, each once, as COMPLETE."""
        origins = {
            trial.user_attrs.get("origin") for trial in self._study.get_trials(deepcopy=False)
        }
        all_distributions = distributions(self._space)
        for one in known:
            if one.origin not in origins:
                trial = optuna.trial.create_trial(
                    params=one.point,
                    distributions={path: all_distributions[path] for path in one.point},
                    value=one.scores[objective],
                    user_attrs={"origin": one.origin, **one.scores},
                )
                self._study.add_trial(trial)

    def has_point(self, trial: FrozenTrial) -> bool:
        """Whether a trial has a value for every active path."""
        return is_whole(self._space, trial.params)

    def add_point(self, origin: str, point: Point) -> optuna.Trial:
        """A new trial of a given point.

        Args:
            origin: of the point, such as ``start``; kept as an attribute.
            point: value or label of every searched path.
        """
        self._study.enqueue_trial(point)
        return self._ask(origin)

    def add_sampled(self, sampler: BaseSampler) -> optuna.Trial:
        """A new trial of a point that a sampler draws."""
        self._study.sampler = sampler
        return self._ask("sampler")

    def _ask(self, origin: str) -> optuna.Trial:
        trial = self._study.ask()
        draw(trial, self._space)
        trial.set_user_attr("origin", origin)
        return trial

    def complete(self, number: int, scores: Scores, objective: str) -> None:
        """Records a trial as COMPLETE; its value is the score of the objective."""
        for name, score in scores.items():
            self._set(number, name, score)
        self._study.tell(number, scores[objective])

    def complete_duplicate(
        self, number: int, original: int, scores: Scores, objective: str
    ) -> None:
        """Records a trial as COMPLETE with the scores of the trial that it repeats."""
        self._set(number, "duplicate_of", original)
        self.complete(number, scores, objective)

    def fail(self, number: int, reason: str) -> None:
        """Records a trial as FAIL."""
        self._set(number, "reason", reason)
        self._study.tell(number, state=TrialState.FAIL)

    def report(self, number: int, reports: Sequence[FoldReport]) -> None:
        """Sets what is known after each fold.

        The estimate becomes the intermediate value of its number of folds, the fold's own
        score an attribute such as ``fold_0``.
        """
        for one in reports:
            if math.isfinite(one.estimate):
                self._storage.set_trial_intermediate_value(
                    self._id(number), one.n_folds, one.estimate
                )
                self._set(number, f"fold_{one.fold}", one.score)

    def repeat_reports(self, number: int, original: FrozenTrial) -> None:
        """Gives a trial the intermediate values of the one that it repeats."""
        for step, value in original.intermediate_values.items():
            self._storage.set_trial_intermediate_value(self._id(number), step, value)

    def prune(self, number: int, reason: str, original: int | None = None) -> None:
        """Records a trial as PRUNED, after its reports; it ranks last without any.

        Args:
            number: of the trial.
            reason: in one line, kept as an attribute.
            original: number of the trial that it repeats, kept as ``duplicate_of``.
        """
        if original is not None:
            self._set(number, "duplicate_of", original)
        self._set(number, "reason", reason)
        self._study.tell(number, state=TrialState.PRUNED)

    def _set(self, number: int, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._id(number), name, value)

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self._study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)


def scores_of(trial: FrozenTrial) -> Scores:
    """The scores of a finished trial."""
    return {name: trial.user_attrs.get(name) for name in SCORE_NAMES}


class _Backend(JournalFileBackend):
    """Optuna's journal in a file of a study's folder, written by the study's owner.

    Every record carries the number of its owner, one more than that of the owner before. Records
    of an earlier owner after those of a later one are skipped: it was suspended when it lost the
    study, and did not know it yet. Records without a number, as of Optuna's own tools, count.
    """

    _latest = 0
    """Highest owner of the records that were read."""
    _owner: int | None = None
    """Number of this owner; None until it writes."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends records.

        Raises:
            StorageError: if the file cannot be written; a part of a record that was written is
                cut off when the file is opened again.
        """
        if self._owner is None:
            self._owner = self._latest + 1
        with storage_errors(Path(self._file_path).parent):
            super().append_logs([{**log, OWNER: self._owner} for log in logs])

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from a number on, as Optuna counts them; it reads each once, in order.

        Raises:
            LockedError: if a later owner has written some.
        """
        for log in super().read_logs(log_number_from):
            owner = int(log.get(OWNER, self._latest))
            if self._owner is not None and owner > self._owner:
                raise LockedError(
                    "a study must be run by one command at a time",
                    got="another one, which has taken it over",
                    where=self._file_path,
                    fix="Let the other one continue: nothing that was trained is lost.",
                )
            skipped = owner < self._latest
            self._latest = max(self._latest, owner)
            yield _NOTHING if skipped else log


def _drop_torn_line(journal: Path) -> None:
    """Cuts off an incomplete last line, before another is appended to it.

    A full disk or a lost machine leaves one; its record is written again.
    """
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if 0 < whole < len(content):
        os.truncate(journal, whole)


def open_storage(journal: Path) -> JournalStorage:
    """Optuna's storage in a file, which is made if missing; the caller must hold the study's lock.

    Raises:
        StudyError: if the file cannot be read.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Left by a killed owner, it would hold up every record for half a minute.
        journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
        _drop_torn_line(journal)
        return JournalStorage(_Backend(str(journal)))
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            "Optuna's journal must be readable",
            got=f"{type(error).__name__}: {error}",
            where=journal,
            fix="Move the journal away to start the search again; finished folds are reused.",
        ) from None


def open_study(
    storage: JournalStorage, name: str, direction: Literal["minimize", "maximize"]
) -> optuna.Study:
    """A study of a journal, made if missing."""
    verbosity = optuna.logging.get_verbosity()
    # Otherwise it prints a line about each study that it opens.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=storage, study_name=name, direction=direction, load_if_exists=True
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
