"""Optuna studies of a search by blend gain: one per reference blend, all in one journal file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from hms_ray.config.space import Space
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.search.journal import Journal, Scores, StudyTitle, open_study
from hms_ray.study.gains import StudyGains

_COMPLETE: Final = "has_all_earlier_trials"
"""Attribute of a study whose earlier trials were all added; one without it is made again."""
_REPEATS: Final = "duplicate_of"


class GainJournal(Journal):
    """Trials valued by their gain against the study's reference blends, which is maximised.

    Optuna's study ``reference-0003`` has the gains against reference 3. When a new reference
    is fitted, a new study opens with all earlier trials under the same numbers, their values
    computed anew; draws come from it. A trial that runs meanwhile is recorded in both, in each
    with the gain against its reference.

    Args:
        file: see ``Journal``.
        space: see ``Journal``; also how often a new reference is fitted.
        gains: of the study.
        title: see ``Journal``.

    Raises:
        StudyError: if the journal or a reference cannot be read.
    """

    def __init__(
        self, file: Path, space: Space, gains: StudyGains, title: StudyTitle | None = None
    ) -> None:
        self._gains, self._renew_every = gains, space.gain.renew_every
        self._studies: list[optuna.Study] = []
        super().__init__(file, space, title)

    def _open(self) -> optuna.Study:
        # A kill may have come between a reference and its study, or while that was filled.
        for number in range(max(self._gains.n_references, 1)):
            self._add_study(number)
        return self._studies[-1]

    def _add_study(self, number: int) -> None:
        """Opens the study of a reference, with the trials of the one before if it is new."""
        name = f"reference-{number:04d}"
        study = open_study(self._storage, name, "maximize")
        if number > 0 and _COMPLETE not in study.user_attrs:
            if study.get_trials(deepcopy=False):
                optuna.delete_study(study_name=name, storage=self._storage)
                study = open_study(self._storage, name, "maximize")
            for trial in self._studies[-1].get_trials(deepcopy=False):
                study.add_trial(self._valued_anew(trial, number))
            study.set_user_attr(_COMPLETE, True)
        self._describe(study, f"gain of the blend, {SCORE_NAMES[self._space.objective]}")
        self._studies.append(study)

    def _valued_anew(self, trial: FrozenTrial, reference: int) -> FrozenTrial:
        value = None
        if trial.state == TrialState.COMPLETE:
            original = trial.user_attrs.get(_REPEATS, trial.number)
            value = self._gains.value(original, reference)
        return create_trial(
            state=trial.state,
            value=value,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs,
            system_attrs=trial.system_attrs,
        )

    def renew(self, finished: Sequence[int]) -> None:
        """Fits a reference and opens its study once ``renew_every`` more trials are finished.

        Args:
            finished: numbers of finished trials with different experiments.

        Raises:
            StudyError: if predictions of a trial are missing or damaged.
        """
        if finished and self._gains.is_due(len(finished), self._renew_every):
            self._add_study(self._gains.renew(finished))
            self._study = self._studies[-1]

    def complete(self, number: int, scores: Scores, objective: str) -> None:
        """Records a trial as COMPLETE with its gains; ``objective`` names their rows."""
        if not self._gains.n_references:
            self._gains.renew([number])
        for position, study, trial in self._unfinished(number):
            for name, score in scores.items():
                self._set_in(trial, name, score)
            original = trial.user_attrs.get(_REPEATS, number)
            study.tell(number, self._gains.value(original, position))

    def complete_duplicate(
        self, number: int, original: int, scores: Scores, objective: str
    ) -> None:
        """See ``Journal``."""
        for _, _, trial in self._unfinished(number):
            self._set_in(trial, _REPEATS, original)
        self.complete(number, scores, objective)

    def fail(self, number: int, reason: str) -> None:
        """Records a trial as FAIL."""
        for _, study, trial in self._unfinished(number):
            self._set_in(trial, "reason", reason)
            study.tell(number, state=TrialState.FAIL)

    def _unfinished(self, number: int) -> Iterator[tuple[int, optuna.Study, FrozenTrial]]:
        """Studies in which a trial has no result, with their references; the present one last.

        A kill in between leaves the trial RUNNING in the present one, which is repaired.
        """
        for position, study in enumerate(self._studies):
            trials = study.get_trials(deepcopy=False)
            if number < len(trials) and not trials[number].state.is_finished():
                yield position, study, trials[number]

    def _set_in(self, trial: FrozenTrial, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(trial._trial_id, name, value)
