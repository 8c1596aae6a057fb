"""Pools fitted on some patients and scored on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hms_ray.config.space import Objective
from hms_ray.ensemble.methods.base import (
    FittedPool,
    Pool,
    Rows,
    least_patients,
    tier_weights,
)
from hms_ray.ensemble.simplex import blend_probabilities, check_models, simplex_weights
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import patient_groups
from hms_ray.evaluate.metric import (
    OBJECTIVES,
    Array,
    check_distributions,
    check_row_weights,
    row_sums,
)


@dataclass(frozen=True)
class Candidate:
    """A pool and the rows that it is fitted on.

    Attributes:
        pool: the method.
        rows: objective whose rows count in the fit; those that are scored where None.
    """

    pool: Pool
    rows: Objective | None = None

    @property
    def name(self) -> str:
        """The pool's name, with ``@`` and the rows where they are not those that are scored."""
        return self.pool.name if self.rows is None else f"{self.pool.name}@{self.rows}"


@dataclass(frozen=True)
class Data:
    """Checked rows for a choice.

    Attributes:
        targets: (n, 6) float64.
        models: (M, n, 6).
        patients: (n,).
        votes: (n,) float64.
    """

    targets: Array
    models: NDArray[np.floating]
    patients: NDArray[Any]
    votes: Array

    def part(self, rows: NDArray[np.intp]) -> Data:
        """Some of the rows."""
        return Data(self.targets[rows], self.models[:, rows], self.patients[rows], self.votes[rows])


def checked_data(
    targets: ArrayLike, probabilities: ArrayLike, patients: ArrayLike, total_votes: ArrayLike
) -> Data:
    """The rows, after checking them.

    Raises:
        PredictionError: where a side is no distribution or something does not fit.
    """
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    owners, votes = np.asarray(patients), np.asarray(total_votes, np.float64)
    if owners.shape != (len(checked),) or votes.shape != (len(checked),):
        raise PredictionError(
            f"there must be one patient and one number of votes for each of {len(checked)} rows",
            got=f"{owners.shape} and {votes.shape}",
        )
    return Data(checked, models, owners, votes)


def scored_rows(data: Data, objective: Objective) -> NDArray[np.bool_]:
    """The (n,) rows that an objective scores.

    Raises:
        PredictionError: where they are not of two patients at least.
    """
    scored: NDArray[np.bool_] = data.votes >= OBJECTIVES[objective]
    if len(np.unique(data.patients[scored])) < 2:
        raise PredictionError(
            f"a nested estimate for {objective} needs rows of at least two patients with at "
            f"least {OBJECTIVES[objective]} votes",
            got=f"{scored.sum()} row(s) of {len(np.unique(data.patients[scored]))} patient(s)",
            fix="What one patient's rows choose must be scored on another's: use more data or "
            "the rows of another objective.",
        )
    return scored


def checked_candidates(
    candidates: Sequence[Candidate | Pool], reference: str | None
) -> list[Candidate]:
    """Candidates of different names, of which the reference is one.

    Raises:
        PredictionError: where there are none, a name is doubled, or the reference is
            not among them.
    """
    entries = [
        candidate if isinstance(candidate, Candidate) else Candidate(candidate)
        for candidate in candidates
    ]
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise PredictionError(
            "candidates must be at least one, of different names",
            got=", ".join(names) or "none",
        )
    if reference is not None and reference not in names:
        raise PredictionError(
            f"the reference must be one of the candidates {', '.join(names)}", got=reference
        )
    return entries


def require_patients(
    candidates: Sequence[Candidate], n_patients: int, objective: Objective, n_held_out: int
) -> None:
    """Refuses fewer patients than every candidate needs after some were held out.

    Args:
        candidates: to be fitted.
        n_patients: with rows that the objective scores.
        objective: for the message.
        n_held_out: patients held out at least: one by a nested estimate, two by the
            nested estimate of a choice that is itself made by nested estimates.

    Raises:
        PredictionError: naming the most demanding candidate.
    """
    demanding = max(candidates, key=lambda entry: least_patients(entry.pool))
    needed = least_patients(demanding.pool) + n_held_out
    if n_patients >= needed:
        return
    votes = OBJECTIVES[objective]
    rows = f"rows of at least {votes} votes" if votes else "rows"
    what = f"a nested estimate of {demanding.name}"
    if n_held_out > 1:
        what = f"a nested estimate of choosing among methods, {demanding.name} one of them,"
    raise PredictionError(
        f"{what} needs {rows} of at least {needed} patients",
        got=f"{n_patients}",
        fix="Use a simpler method, more data or the rows of another objective.",
    )


def fit_candidate(data: Data, candidate: Candidate, objective: Objective) -> FittedPool:
    """Fits a candidate on the rows of an objective, or on its own.

    Raises:
        PredictionError: where none of the rows is one of the candidate's own.
    """
    weights = _counted(data, candidate, objective)
    return candidate.pool.fit(data.targets, data.models, weights, data.patients)


class Fits:
    """Candidates fitted on some rows of data: what several have in common is made once."""

    def __init__(self, data: Data, objective: Objective, rows: NDArray[np.bool_]) -> None:
        self._data, self._objective, self._inside = data, objective, rows
        self._rows: dict[Objective, Rows] = {}

    def of(self, candidate: Candidate) -> FittedPool:
        """As ``fit_candidate``; nothing else is checked."""
        counted = candidate.rows or self._objective
        if counted not in self._rows:
            # Copied only when they are asked for, when the last split's are gone.
            weights = _counted(self._data, candidate, self._objective, self._inside)
            chosen = np.flatnonzero(weights)
            self._rows[counted] = Rows(
                self._data.targets[chosen],
                self._data.models[:, chosen],
                weights[chosen],
                self._data.patients[chosen],
            )
        return self._rows[counted].fitted(candidate.pool)


def nested_splits(
    data: Data, objective: Objective, seed: int, n_splits: int
) -> Iterator[tuple[NDArray[np.intp], Fits]]:
    """The rows of some patients, and fits on those of all others; once for each split."""
    split = patient_groups(data.patients, n_splits, seed, tier_weights(data.votes, objective))
    for number in range(n_splits):
        yield np.flatnonzero(split == number), Fits(data, objective, split != number)


def nested_predictions(
    data: Data, candidate: Candidate, objective: Objective, seed: int, n_splits: int
) -> Array:
    """What a candidate predicts, (n, 6), fitted on other patients; nothing is checked."""
    blended = np.empty(data.targets.shape)
    for inside, fits in nested_splits(data, objective, seed, n_splits):
        blended[inside] = fits.of(candidate).predict(data.models[:, inside])
    return blended


def nested_rows(
    data: Data,
    candidates: Sequence[Candidate],
    objective: Objective,
    seed: int,
    n_splits: int,
    step: Callable[[], None] = lambda: None,
) -> Array:
    """KL of each candidate and row, (C, n), fitted on other patients; nothing is checked.

    ``step`` is called after each split.
    """
    scores = np.empty((len(candidates), len(data.targets)))
    for inside, fits in nested_splits(data, objective, seed, n_splits):
        targets, models = data.targets[inside], data.models[:, inside]
        for number, candidate in enumerate(candidates):
            scores[number, inside] = row_sums(targets, fits.of(candidate).predict(models))
        step()
    return scores


def _counted(
    data: Data,
    candidate: Candidate,
    objective: Objective,
    inside: NDArray[np.bool_] | None = None,
) -> Array:
    """(n,) weights of the rows that a candidate is fitted on; some must count."""
    weights = tier_weights(data.votes, candidate.rows or objective)
    if inside is not None:
        weights *= inside
    if candidate.rows is not None and not weights.any():
        raise PredictionError(
            f"{candidate.name} needs rows of at least {OBJECTIVES[candidate.rows]} votes of "
            "those patients that it is fitted on",
            got="none",
            fix="Fit on the rows of another objective.",
        )
    return weights


@dataclass(frozen=True)
class NestedBlend:
    """A blend whose every row was weighted by other patients' rows.

    Attributes:
        probabilities: (n, 6) float64.
        weights: (S, M) float64, the weights used on each split's rows.
        split: (n,) int64, the split of each row, from 0.
    """

    probabilities: Array
    weights: Array
    split: NDArray[np.int64]


def nested_blend(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    n_splits: int = 5,
    seed: int = 0,
    row_weights: ArrayLike | None = None,
) -> NestedBlend:
    """Blends every patient's rows with weights fitted on other patients.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) predictions of M models on the same rows.
        patients: (n,) patient of each row.
        n_splits: splits by patient.
        seed: of the splits.
        row_weights: (n,) weights of the rows in the fits; rows of weight 0 are
            blended all the same.

    Raises:
        PredictionError: as ``simplex_weights`` and ``patient_groups``, and where
            patients are not one a row, or the rows with weight all belong to one.
    """
    checked = check_distributions(targets, "targets")
    models = check_models(probabilities, len(checked))
    weights = check_row_weights(row_weights, len(checked))
    owners = np.asarray(patients)
    if owners.shape != (len(checked),):
        raise PredictionError(
            f"there must be one patient for each of {len(checked)} rows", got=str(owners.shape)
        )
    split = patient_groups(owners, n_splits, seed, weights)
    fitted = np.empty((n_splits, len(models)))
    blended = np.empty(checked.shape)
    for number in range(n_splits):
        inside, outside = split == number, split != number
        if not weights[outside].any():
            raise PredictionError(
                "weights for a patient must be fitted on other patients' rows",
                got="rows of one patient only",
                fix="Fit on a tier that more patients have rows of.",
            )
        fit = simplex_weights(checked[outside], models[:, outside], weights[outside])
        fitted[number] = fit.weights
        blended[inside] = blend_probabilities(models[:, inside], fit.weights)
    return NestedBlend(blended, fitted, split)
