"""Selection of a method by nested KL, and the nested estimate of the selection itself.

Every candidate is scored by nested cross-validation, and the simplest one within one
standard error of the best is chosen. The nested KL of the chosen candidate is optimistic,
because the selection saw the scored rows; ``estimate_selection`` is free of that.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_ray.config.space import Objective
from hms_ray.ensemble.cross_validation import (
    Candidate,
    EnsembleData,
    FitCache,
    cross_validate,
    require_patients,
    scored_rows,
)
from hms_ray.ensemble.methods.base import tier_weights
from hms_ray.ensemble.selection_result import CandidateScore, Selection, SelectionEstimate
from hms_ray.evaluate.intervals import (
    Difference,
    clustered_interval,
    paired_difference,
    patient_groups,
)
from hms_ray.evaluate.metric import Array, mean_by_objective, row_sums


def simplest_within_one_se(
    scores: Array, patients: NDArray[Any]
) -> tuple[int, int, tuple[Difference, ...]]:
    """Positions of the best and of the chosen candidate, and all differences to the best.

    The one-standard-error rule (Breiman, Friedman, Olshen and Stone, "Classification and
    Regression Trees", 1984, section 3.4.3), with the standard error of the paired difference
    instead of that of one loss.

    Args:
        scores: (C, n) KL of each candidate and row, simplest candidate first.
        patients: (n,) patient of each row, at least two different ones.
    """
    best = int(np.argmin(scores.mean(axis=1)))
    differences = tuple(paired_difference(row, scores[best], patients) for row in scores)
    chosen = next(
        number
        for number, difference in enumerate(differences)
        if difference.mean <= difference.standard_error
    )
    return best, chosen, differences


def score_candidates(
    data: EnsembleData,
    candidates: Sequence[Candidate],
    nested: Array,
    objective: Objective,
    *,
    reference: str,
    alternatives: Mapping[str, Array],
    seeds: Sequence[int],
    n_splits: int,
) -> Selection:
    """Compares candidates by their nested scores and chooses by the one-standard-error rule.

    Args:
        data: checked rows.
        candidates: simplest first.
        nested: (C, S, n) KL of each candidate, seed and row; see ``cross_validate``.
        objective: whose rows are scored.
        reference: name of the candidate that all are compared with.
        alternatives: name -> (n,) KL of each row; all candidates are compared with these too.
        seeds: (S,) of the splits.
        n_splits: of each seed.
    """
    scored = scored_rows(data, objective)
    patients = data.patients[scored]
    means = nested.mean(axis=1)
    best, chosen, differences = simplest_within_one_se(means[:, scored], patients)
    against = means[[entry.name for entry in candidates].index(reference), scored]
    entries = []
    for number, candidate in enumerate(candidates):
        in_sample, seconds = _in_sample(data, candidate, objective)
        scores = means[number, scored]
        entries.append(
            CandidateScore(
                name=candidate.name,
                nested=float(scores.mean()),
                by_seed=tuple(nested[number][:, scored].mean(axis=1).tolist()),
                in_sample=float(in_sample[scored].mean()),
                by_objective=mean_by_objective(means[number], data.votes),
                minus_best=differences[number],
                minus_reference=paired_difference(scores, against, patients),
                minus_others={
                    name: paired_difference(scores, other[scored], patients)
                    for name, other in alternatives.items()
                },
                fit_seconds=seconds,
            )
        )
    return Selection(
        objective=objective,
        candidates=tuple(entries),
        best=best,
        chosen=chosen,
        reference=reference,
        n_rows=int(scored.sum()),
        n_patients=len(np.unique(patients)),
        seeds=tuple(seeds),
        n_splits=n_splits,
    )


def estimate_selection(
    data: EnsembleData,
    candidates: Sequence[Candidate],
    reference: str,
    objective: Objective,
    *,
    seed: int = 0,
    inner_seeds: Sequence[int] = (0,),
    n_splits: int = 5,
    step: Callable[[], None] = lambda: None,
) -> SelectionEstimate:
    """Nested estimate of the selection: in each outer split, other patients select and fit.

    Costs ``n_splits * len(inner_seeds)`` fits of every candidate in each of the ``n_splits``
    outer splits.

    Args:
        data: checked rows.
        candidates: simplest first.
        reference: name of the candidate to compare with.
        objective: whose rows are fitted on and scored.
        seed: of the outer splits.
        inner_seeds: of the inner splits; each selection averages over them.
        n_splits: outer and inner splits, at most as many as there are patients.
        step: called after each inner split.

    Raises:
        PredictionError: too few patients; one more is needed than by a selection alone.
    """
    scored = scored_rows(data, objective)
    patients = data.patients[scored]
    n_patients = len(np.unique(patients))
    require_patients(candidates, n_patients, objective, 2)
    n_splits = min(n_splits, n_patients)
    named = {entry.name: entry for entry in candidates}
    split = patient_groups(data.patients, n_splits, seed, tier_weights(data.votes, objective))
    blended, chosen = np.empty((2, *data.targets.shape)), []
    for number in range(n_splits):
        held_out = np.flatnonzero(split == number)
        training = data.take(np.flatnonzero(split != number))
        selected = _select(training, candidates, objective, inner_seeds, n_splits, step)
        chosen.append(selected.name)
        cache = FitCache(training, objective)
        for row, candidate in enumerate((selected, named[reference])):
            blended[row, held_out] = cache.fit(candidate).predict(data.models[:, held_out])
    rows = row_sums(data.targets, blended)
    return SelectionEstimate(
        nested=clustered_interval(rows[0, scored], patients),
        minus_reference=paired_difference(rows[0, scored], rows[1, scored], patients),
        times_chosen=dict(Counter(chosen).most_common()),
        inner_repeats=len(inner_seeds),
        probabilities=blended[0],
    )


def _select(
    data: EnsembleData,
    candidates: Sequence[Candidate],
    objective: Objective,
    seeds: Sequence[int],
    n_splits: int,
    step: Callable[[], None],
) -> Candidate:
    scored = scored_rows(data, objective)
    patients = data.patients[scored]
    n_splits = min(n_splits, len(np.unique(patients)))
    nested = cross_validate(data, candidates, objective, seeds, n_splits, step=step).scores
    _, chosen, _ = simplest_within_one_se(nested.mean(axis=1)[:, scored], patients)
    return candidates[chosen]


def _in_sample(
    data: EnsembleData, candidate: Candidate, objective: Objective
) -> tuple[Array, float]:
    """KL (n,) of each row under a fit on all patients, and the seconds of that fit."""
    started = time.perf_counter()
    fitted = FitCache(data, objective).fit(candidate)
    seconds = time.perf_counter() - started
    return row_sums(data.targets, fitted.predict(data.models)), seconds
