"""Which pool to take: nested KL by patient, and the simplest of those that tie.

Every candidate is fitted on other patients than it is scored on, in several splits by
patient. A row's score is its mean over the splits. The best candidate has the lowest
mean; chosen is the first, in the given order of simplicity, whose paired difference to
the best one is within one patient-clustered standard error of that difference: the
one-standard-error rule (Breiman, Friedman, Olshen and Stone, "Classification and
Regression Trees", 1984, section 3.4.3) with pairs of rows instead of single losses.

The choice is made on the rows that it is scored on, so the chosen one's own nested KL
is optimistic by what choosing gains; ``nested_choice_estimate`` is free of that.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.config.space import Objective
from hms_ray.ensemble.cross_validation import (
    Candidate,
    Data,
    Fits,
    checked_candidates,
    checked_data,
    fit_candidate,
    nested_rows,
    require_patients,
    scored_rows,
)
from hms_ray.ensemble.methods.base import Pool, tier_weights
from hms_ray.ensemble.one_standard_error import simplest_within, standard_error
from hms_ray.ensemble.selection_result import Choice, ChoiceEstimate, Rated
from hms_ray.evaluate.intervals import (
    clustered_interval,
    paired_difference,
    patient_groups,
)
from hms_ray.evaluate.metric import Array, mean_by_objective, row_sums

SEEDS: Final = (0, 1, 2, 3, 4)
N_SPLITS: Final = 5


def choose_pool(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    total_votes: ArrayLike,
    candidates: Sequence[Candidate | Pool],
    objective: Objective = "kl_all",
    *,
    reference: str | None = None,
    alternatives: Mapping[str, Array] | None = None,
    seeds: Sequence[int] = SEEDS,
    n_splits: int = N_SPLITS,
) -> Choice:
    """Rates candidates by nested KL and takes the simplest of those that tie.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) predictions of M models on the same rows.
        patients: (n,) patient of each row.
        total_votes: (n,) votes of each row.
        candidates: from the simplest to the most elaborate, of different names.
        objective: whose rows are scored, and fitted on unless a candidate says else.
        reference: name of a candidate that all are compared with too.
        alternatives: name -> (n,) KL of each row under something that is no candidate,
            which all are compared with too.
        seeds: of the splits by patient, one nested estimate each.
        n_splits: splits; as many as there are patients with scored rows, if fewer.

    Raises:
        PredictionError: where inputs do not fit or are no distributions, names are
            doubled or unknown, or fewer patients have scored rows than the candidates
            need, two at least.
    """
    data = checked_data(targets, probabilities, patients, total_votes)
    entries = checked_candidates(candidates, reference)
    n_splits = splits_for(data, entries, objective, n_splits)
    nested = _nested(data, entries, objective, seeds, n_splits)
    return rate(
        data,
        entries,
        nested,
        objective,
        reference=reference,
        alternatives=alternatives or {},
        seeds=seeds,
        n_splits=n_splits,
    )


def splits_for(
    data: Data, candidates: Sequence[Candidate], objective: Objective, n_splits: int
) -> int:
    """The splits to use: as many as there are patients with scored rows, if fewer.

    Raises:
        PredictionError: where fewer than two patients have scored rows, or fewer than
            a candidate needs.
    """
    n_patients = len(np.unique(data.patients[scored_rows(data, objective)]))
    require_patients(candidates, n_patients, objective, 1)
    return min(n_splits, n_patients)


def rate(
    data: Data,
    candidates: Sequence[Candidate],
    nested: Array,
    objective: Objective,
    *,
    reference: str | None,
    alternatives: Mapping[str, Array],
    seeds: Sequence[int],
    n_splits: int,
) -> Choice:
    """Compares candidates by their nested scores and takes the simplest of those that tie.

    Args:
        data: checked rows.
        candidates: from the simplest to the most elaborate.
        nested: (C, S, n) KL of each candidate, seed and row.
        objective: whose rows are scored.
        reference: as ``choose_pool``.
        alternatives: as ``choose_pool``.
        seeds: (S,) of the splits.
        n_splits: of each seed.
    """
    scored = scored_rows(data, objective)
    owners = data.patients[scored]
    means = nested.mean(axis=1)
    best, chosen, differences = simplest_within(means[:, scored], owners)
    names = [entry.name for entry in candidates]
    against = None if reference is None else means[names.index(reference), scored]
    rated = []
    for number, entry in enumerate(candidates):
        inside, seconds = _in_sample(data, entry, objective)
        scores = means[number, scored]
        rated.append(
            Rated(
                name=entry.name,
                nested=float(scores.mean()),
                by_seed=tuple(nested[number][:, scored].mean(axis=1).tolist()),
                in_sample=float(inside[scored].mean()),
                by_objective=mean_by_objective(means[number], data.votes),
                to_best=differences[number],
                standard_error=standard_error(differences[number]),
                to_reference=None
                if against is None
                else paired_difference(scores, against, owners),
                seconds=seconds,
                to_others={
                    name: paired_difference(scores, other[scored], owners)
                    for name, other in alternatives.items()
                },
            )
        )
    return Choice(
        objective=objective,
        rated=tuple(rated),
        best=best,
        chosen=chosen,
        reference=reference,
        n_rows=int(scored.sum()),
        n_patients=len(np.unique(owners)),
        seeds=tuple(seeds),
        n_splits=n_splits,
    )


def nested_choice_estimate(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    total_votes: ArrayLike,
    candidates: Sequence[Candidate | Pool],
    reference: str,
    objective: Objective = "kl_all",
    *,
    seed: int = 0,
    inner_seeds: Sequence[int] = (0,),
    n_splits: int = N_SPLITS,
    step: Callable[[], None] = lambda: None,
) -> ChoiceEstimate:
    """The worth of choosing: for every split, other patients alone choose and fit.

    Costs ``n_splits * len(inner_seeds)`` fits of every candidate in each of the
    ``n_splits`` outer splits.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) predictions of M models on the same rows.
        patients: (n,) patient of each row.
        total_votes: (n,) votes of each row.
        candidates: as ``choose_pool``.
        reference: name of the candidate to compare with.
        objective: as ``choose_pool``.
        seed: of the outer splits.
        inner_seeds: seeds of each choice.
        n_splits: outer and inner splits; fewer where there are fewer patients.
        step: called after each inner split.

    Raises:
        PredictionError: as ``choose_pool``; one patient more with scored rows is needed.
    """
    data = checked_data(targets, probabilities, patients, total_votes)
    entries = checked_candidates(candidates, reference)
    scored = scored_rows(data, objective)
    owners = data.patients[scored]
    n_patients = len(np.unique(owners))
    require_patients(entries, n_patients, objective, 2)
    n_splits = min(n_splits, n_patients)
    named = {entry.name: entry for entry in entries}
    split = patient_groups(data.patients, n_splits, seed, tier_weights(data.votes, objective))
    blended, taken = np.empty((2, *data.targets.shape)), []
    for number in range(n_splits):
        inside = np.flatnonzero(split == number)
        training = data.part(np.flatnonzero(split != number))
        found = named[_chosen(training, entries, objective, inner_seeds, n_splits, step)]
        taken.append(found.name)
        fits = Fits(training, objective, np.ones(len(training.votes), bool))
        for row, candidate in enumerate((found, named[reference])):
            blended[row, inside] = fits.of(candidate).predict(data.models[:, inside])
    rows = row_sums(data.targets, blended)
    return ChoiceEstimate(
        nested=clustered_interval(rows[0, scored], owners),
        to_reference=paired_difference(rows[0, scored], rows[1, scored], owners),
        taken=dict(Counter(taken).most_common()),
        n_inner=len(inner_seeds),
        probabilities=blended[0],
    )


def _chosen(
    data: Data,
    entries: Sequence[Candidate],
    objective: Objective,
    seeds: Sequence[int],
    n_splits: int,
    step: Callable[[], None],
) -> str:
    scored = scored_rows(data, objective)
    owners = data.patients[scored]
    n_splits = min(n_splits, len(np.unique(owners)))
    nested = _nested(data, entries, objective, seeds, n_splits, step)
    _, chosen, _ = simplest_within(nested.mean(axis=1)[:, scored], owners)
    return entries[chosen].name


def _nested(
    data: Data,
    entries: Sequence[Candidate],
    objective: Objective,
    seeds: Sequence[int],
    n_splits: int,
    step: Callable[[], None] = lambda: None,
) -> Array:
    """KL of each candidate, seed and row: (C, S, n)."""
    return np.stack(
        [nested_rows(data, entries, objective, seed, n_splits, step) for seed in seeds], axis=1
    )


def _in_sample(data: Data, entry: Candidate, objective: Objective) -> tuple[Array, float]:
    """KL of each row (n,) of a fit on all patients, and the seconds of that fit."""
    started = time.perf_counter()
    fitted = fit_candidate(data, entry, objective)
    seconds = time.perf_counter() - started
    return row_sums(data.targets, fitted.predict(data.models)), seconds
