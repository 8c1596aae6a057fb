"""Gains of a study's trials against its reference blends, and new references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hms_ray.competition.schema import N_CLASSES, TARGET_COLUMNS
from hms_ray.ensemble.blend_gain import Gain, GainRows
from hms_ray.ensemble.reference_blend import ReferenceFit, fit_reference, predict_without
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.metric import CLIP, OBJECTIVES, Array
from hms_ray.storage.visibility import wait_until
from hms_ray.study.folder import StudyFolder
from hms_ray.study.references import Reference, n_references, read_reference, write_reference
from hms_ray.study.row_scores import Predictions
from hms_ray.study.trial import StoredTrial, has_finished


class StudyGains:
    """Gains of trials (see ``ensemble.blend_gain``) against the references of one study.

    The gain of a trial that is a member of the reference is measured against the reference
    without it (see ``ensemble.reference_blend``).

    Args:
        folder: of a study whose metric is ``blend_gain``.
        on_reference: called with each new reference after it is stored.

    Raises:
        StudyError: if the study's rows cannot be read, or those that count are of one fold.
    """

    def __init__(
        self,
        folder: StudyFolder,
        on_reference: Callable[[Reference], None] = lambda reference: None,
    ) -> None:
        self._on_reference = on_reference
        self._folder, self._rows = folder, folder.rows()
        votes = self._rows["total_votes"].to_numpy()
        folds = self._rows["fold"].to_numpy()
        scored = votes >= OBJECTIVES[folder.objective]
        try:
            self.scored = GainRows.of(
                self._rows[list(TARGET_COLUMNS)].to_numpy(np.float64), folds, scored
            )
        except PredictionError as error:
            raise StudyError(error.rule, got=error.got, where=folder.path, fix=error.fix) from None
        self._folds = [int(fold) for fold in np.unique(folds[scored])]
        self._predictions = Predictions(self._rows)
        self._reference = lru_cache(maxsize=2)(self._read)
        self._values: dict[tuple[int, int], float] = {}

    @property
    def n_references(self) -> int:
        """Number of references so far; 0 until a trial has finished, without ``reference``."""
        return n_references(self._folder)

    def reference(self, number: int) -> Reference:
        """A stored reference."""
        return self._reference(number)[0]

    def _read(self, number: int) -> tuple[Reference, Array]:
        reference = read_reference(self._folder, number, self._rows)
        return reference, self.scored.probabilities(reference.probabilities)

    def gain(self, trial: int, reference: int) -> Gain:
        """The gain of a finished trial against a reference.

        Raises:
            StudyError: if one of them is missing or damaged.
        """
        return self._gain(trial, self._model(trial), reference)

    def _gain(self, trial: int, model: Array, reference: int) -> Gain:
        found, frozen = self._reference(reference)
        weights = found.weights_of(trial, self._folds)
        if weights is not None:
            frozen = predict_without(self.scored, frozen, model, weights)
        return self.scored.gain(frozen, model)

    def _model(self, trial: int) -> Array:
        path = self._folder.trial_path(trial)
        # Written by another machine, perhaps: a result arrives before its files are visible.
        wait_until(lambda: has_finished(path))
        return self.scored.probabilities(self._predictions.of(path))

    def value(self, trial: int, reference: int) -> float:
        """The mean gain of a finished trial, in nats; see ``gain``."""
        if (trial, reference) not in self._values:
            self._values[trial, reference] = self.gain(trial, reference).mean
        return self._values[trial, reference]

    def is_due(self, n_finished: int, renew_every: int) -> bool:
        """Whether a new reference is due: there is none, or enough trials finished since."""
        last = self.n_references - 1
        return last < 0 or n_finished - len(self.reference(last).finished) >= renew_every

    def renew(self, finished: Sequence[int]) -> int:
        """Fits and stores the next reference; the caller holds the study's lock.

        The first one is the only trial. Later ones are fitted from all finished trials and,
        if the study began with a reference from outside, that one.

        Args:
            finished: numbers of finished trials with different experiments.

        Returns:
            The number of the reference.
        """
        number = self.n_references
        trials = [self._stored(trial) for trial in sorted(finished)]
        if number == 0:
            alone = _member(trials[0], 1.0, dict.fromkeys(self._folds, 1.0))
            first = self._predictions.of(trials[0].path)
            # None counts as finished: the first renewal follows ``renew_every`` trials.
            self._write(Reference(0, "single", [alone], [], first, trials[0].optimistic))
            return 0
        outside = self.reference(0) if self.reference(0).source else None
        models = [self._model(trial.number) for trial in trials]
        if outside is not None:
            models.append(self._reference(0)[1])
        patients = self._rows["patient_id"].to_numpy()
        with threadpool_limits(1):
            fit = fit_reference(self.scored, np.stack(models), patients)
            self._write(self._from_fit(number, fit, trials, outside))
            # The ranking needs them next, and would read the predictions again.
            for trial, model in zip(trials, models, strict=False):
                self._values[trial.number, number] = self._gain(trial.number, model, number).mean
        return number

    def _stored(self, number: int) -> StoredTrial:
        trial = self._folder.trial(number)
        if trial is None or not trial.finished:
            raise StudyError(
                "a reference needs the results of all finished trials",
                got=f"none of trial {number:04d}",
                where=self._folder.path,
                fix="Restore the folder of the trial, or run the study under another name.",
            )
        return trial

    def _from_fit(
        self,
        number: int,
        fit: ReferenceFit,
        trials: Sequence[StoredTrial],
        outside: Reference | None,
    ) -> Reference:
        members, optimistic = [], False
        row_folds = self._rows["fold"].to_numpy()
        blended = np.zeros((len(self._rows), N_CLASSES))
        for position in fit.members:
            weight = float(fit.weights[position])
            by_fold = dict(zip(self._folds, fit.by_fold[:, position].tolist(), strict=True))
            if position < len(trials):
                trial = trials[position]
                members.append(_member(trial, weight, by_fold))
                predicted = self._predictions.of(trial.path)
                optimistic |= trial.optimistic
            else:
                assert outside is not None
                from_outside = {"name": "reference 0000", "source": outside.source}
                members.append({**from_outside, **_weights(weight, by_fold)})
                predicted = outside.probabilities
                optimistic |= outside.optimistic
            # A fold without a scored row has the weights of all rows.
            of_rows = np.array([by_fold.get(fold, weight) for fold in range(row_folds.max() + 1)])
            blended += of_rows[row_folds, None] * np.clip(predicted, CLIP, 1 - CLIP)
        finished = [trial.number for trial in trials]
        return Reference(number, fit.method, members, finished, blended, optimistic)

    def _write(self, reference: Reference) -> None:
        write_reference(self._folder, self._rows, reference)
        self._on_reference(self.reference(reference.number))


def _member(trial: StoredTrial, weight: float, by_fold: dict[int, float]) -> dict[str, Any]:
    keys = {str(fold): key for fold, key in sorted(trial.keys.items())}
    described = {"name": f"{trial.number:04d}", "trial": trial.number, "keys": keys}
    return {**described, **_weights(weight, by_fold)}


def _weights(weight: float, by_fold: dict[int, float]) -> dict[str, Any]:
    return {
        "weight": weight,
        "weights_by_fold": {str(fold): value for fold, value in by_fold.items()},
    }
