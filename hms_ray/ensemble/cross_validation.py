"""Nested cross-validation by patient: candidates fitted on some patients, scored on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.config.space import Objective
from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import FitRows, FittedMethod, Method, tier_weights
from hms_ray.ensemble.simplex import check_models
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import OBJECTIVES, Array, check_distributions, row_sums


@dataclass(frozen=True)
class Candidate:
    """A method and the rows that it is fitted on.

    Attributes:
        method: the method.
        fit_on: objective whose rows the fit uses; None for the rows that are scored.
    """

    method: Method
    fit_on: Objective | None = None

    @property
    def name(self) -> str:
        """The method's name, followed by ``@`` and ``fit_on`` if that is set."""
        return self.method.name if self.fit_on is None else f"{self.method.name}@{self.fit_on}"


@dataclass(frozen=True)
class EnsembleData:
    """Checked rows.

    Attributes:
        targets: (n, 6) float64.
        models: (M, n, 6).
        patients: (n,).
        votes: (n,) float64.
    """

    targets: Array
    models: NDArray[np.floating]
    patients: NDArray[np.generic]
    votes: Array

    def take(self, rows: NDArray[np.intp]) -> EnsembleData:
        """A subset of the rows."""
        return EnsembleData(
            self.targets[rows], self.models[:, rows], self.patients[rows], self.votes[rows]
        )


def checked_data(
    targets: ArrayLike, probabilities: ArrayLike, patients: ArrayLike, total_votes: ArrayLike
) -> EnsembleData:
    """The rows, after checking them.

    Raises:
        PredictionError: targets or predictions are not distributions, or shapes differ.
    """
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    owners, votes = np.asarray(patients), np.asarray(total_votes, np.float64)
    if owners.shape != (len(checked),) or votes.shape != (len(checked),):
        raise PredictionError(
            f"there must be one patient and one number of votes for each of {len(checked)} rows",
            got=f"{owners.shape} and {votes.shape}",
        )
    return EnsembleData(checked, models, owners, votes)


def scored_rows(data: EnsembleData, objective: Objective) -> NDArray[np.bool_]:
    """Mask (n,) of the rows that an objective scores.

    Raises:
        PredictionError: they belong to fewer than two patients.
    """
    scored: NDArray[np.bool_] = data.votes >= OBJECTIVES[objective]
    n_patients = len(np.unique(data.patients[scored]))
    if n_patients < 2:
        raise PredictionError(
            f"nested cross-validation for {objective} needs rows of at least two patients with "
            f"at least {OBJECTIVES[objective]} votes",
            got=f"{scored.sum()} row(s) of {n_patients} patient(s)",
            fix="Use more data or the rows of another objective.",
        )
    return scored


def checked_candidates(candidates: Sequence[Candidate | Method]) -> list[Candidate]:
    """Candidates with unique names.

    Raises:
        PredictionError: no candidates, or a repeated name.
    """
    entries = [
        candidate if isinstance(candidate, Candidate) else Candidate(candidate)
        for candidate in candidates
    ]
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise PredictionError(
            "there must be at least one candidate, and names must be unique",
            got=", ".join(names) or "none",
        )
    return entries


def require_patients(
    candidates: Sequence[Candidate], n_patients: int, objective: Objective, n_held_out: int
) -> None:
    """Checks that every candidate has enough patients after some were held out.

    Args:
        candidates: to be fitted.
        n_patients: patients with rows that the objective scores.
        objective: for the message.
        n_held_out: patients held out at least: 1 in nested cross-validation, 2 if a nested
            selection is cross-validated once more.

    Raises:
        PredictionError: too few patients; names the most demanding candidate.
    """
    demanding = max(candidates, key=lambda entry: entry.method.min_patients)
    needed = demanding.method.min_patients + n_held_out
    if n_patients >= needed:
        return
    votes = OBJECTIVES[objective]
    rows = f"rows of at least {votes} votes" if votes else "rows"
    what = "nested cross-validation" if n_held_out == 1 else "nested selection among methods"
    raise PredictionError(
        f"{what} with {demanding.name} needs {rows} of at least {needed} patients",
        got=f"{n_patients}",
        fix="Use a simpler method, more data or the rows of another objective.",
    )


def splits_for(
    data: EnsembleData,
    candidates: Sequence[Candidate],
    objective: Objective,
    n_splits: int,
    n_held_out: int = 1,
) -> int:
    """The number of splits: at most the number of patients with scored rows.

    See ``require_patients`` for ``n_held_out``.

    Raises:
        PredictionError: fewer than two patients have scored rows, or fewer than a
            candidate needs.
    """
    n_patients = len(np.unique(data.patients[scored_rows(data, objective)]))
    require_patients(candidates, n_patients, objective, n_held_out)
    return min(n_splits, n_patients)


class FitCache:
    """Candidates fitted on some rows of the data; fits that candidates share are made once."""

    def __init__(
        self, data: EnsembleData, objective: Objective, rows: NDArray[np.bool_] | None = None
    ) -> None:
        """``rows``: (n,) mask of the rows to fit on (default: all)."""
        self._data, self._objective, self._inside = data, objective, rows
        self._rows: dict[Objective, FitRows] = {}

    def fit(self, candidate: Candidate) -> FittedMethod:
        """Fits a candidate on the objective's rows, or on those of its own ``fit_on``.

        Raises:
            PredictionError: there are no such rows.
        """
        objective = candidate.fit_on or self._objective
        if objective not in self._rows:
            # Rows are copied on first use, after the previous split's copy was freed.
            self._rows[objective] = self._select(candidate, objective)
        return self._rows[objective].fit(candidate.method)

    def _select(self, candidate: Candidate, objective: Objective) -> FitRows:
        data, weights = self._data, tier_weights(self._data.votes, objective)
        if self._inside is not None:
            weights *= self._inside
        if not weights.any():
            raise PredictionError(
                f"{candidate.name} needs rows of at least {OBJECTIVES[objective]} votes of the "
                "patients that it is fitted on",
                got="none",
                fix="Fit on the rows of another objective.",
            )
        rows = np.flatnonzero(weights)
        return FitRows(data.targets[rows], data.models[:, rows], weights[rows], data.patients[rows])


@dataclass(frozen=True)
class CrossValidation:
    """Nested scores of all candidates, and predictions of one of them.

    Attributes:
        scores: (C, S, n) KL of each candidate, seed and row, fitted on other patients.
        predictions: (S, n, 6) nested predictions of the kept candidate; None without one.
        weights: (S * splits, M) weights of its fits if it is a weighted mean; else None.
    """

    scores: Array
    predictions: Array | None
    weights: Array | None


def cross_validate(
    data: EnsembleData,
    candidates: Sequence[Candidate],
    objective: Objective,
    seeds: Sequence[int],
    n_splits: int,
    *,
    keep: str | None = None,
    step: Callable[[], None] = lambda: None,
) -> CrossValidation:
    """Fits every candidate on all patients but those of each split; inputs are not checked.

    Args:
        data: checked rows; all are predicted, those of the objective are fitted on.
        candidates: C candidates.
        objective: whose rows the fits use.
        seeds: S seeds; each gives one partition of the patients into splits.
        n_splits: splits by patient.
        keep: name of the candidate whose predictions are returned.
        step: called after each split.
    """
    scores = np.empty((len(candidates), len(seeds), len(data.targets)))
    kept = None if keep is None else np.empty((len(seeds), *data.targets.shape))
    fits: list[FittedMethod] = []
    for repeat, seed in enumerate(seeds):
        split = patient_groups(data.patients, n_splits, seed, tier_weights(data.votes, objective))
        for number in range(n_splits):
            held_out = np.flatnonzero(split == number)
            targets, models = data.targets[held_out], data.models[:, held_out]
            cache = FitCache(data, objective, split != number)
            for position, candidate in enumerate(candidates):
                fitted = cache.fit(candidate)
                predicted = fitted.predict(models)
                scores[position, repeat, held_out] = row_sums(targets, predicted)
                if kept is not None and candidate.name == keep:
                    kept[repeat, held_out] = predicted
                    fits.append(fitted)
            step()
    means = [fitted.weights for fitted in fits if isinstance(fitted, FittedMean)]
    weighted = bool(fits) and len(means) == len(fits)
    return CrossValidation(scores, kept, np.stack(means) if weighted else None)
