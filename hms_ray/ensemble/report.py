"""Estimated out-of-sample KL of a blend, next to its baselines.

Every candidate method is fitted on all patients (in-sample) and by nested cross-validation,
repeated with several seeds. The method is given by name or selected by nested KL
(``selection``); then the nested predictions include the selection. They are compared row
by row with the best single model, equal weights and simplex weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.config.space import Objective
from hms_ray.ensemble.cross_validation import (
    Candidate,
    EnsembleData,
    FitCache,
    checked_candidates,
    checked_data,
    cross_validate,
    scored_rows,
    splits_for,
)
from hms_ray.ensemble.methods.base import Method, checked_rows, tier_weights
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.nested_choice import N_REPEATS, N_SPLITS
from hms_ray.ensemble.result import (
    BASELINES,
    BEST_IN_SAMPLE,
    SIMPLEX,
    BlendReport,
    NestedEstimate,
    compare,
)
from hms_ray.ensemble.selection import estimate_selection, score_candidates
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import clustered_interval, patient_bootstrap
from hms_ray.evaluate.metric import (
    OBJECTIVES,
    Array,
    kl_by_class,
    mean_by_objective,
    mean_by_tier,
    row_sums,
)


def blend_report(
    targets: ArrayLike,
    probabilities: ArrayLike,
    names: Sequence[str],
    patients: ArrayLike,
    total_votes: ArrayLike,
    *,
    candidates: Sequence[Candidate | Method] = BASELINES,
    method: str | None = SIMPLEX,
    objective: Objective = "kl_10",
    optimistic: Sequence[bool] | None = None,
    n_splits: int = N_SPLITS,
    n_repeats: int = N_REPEATS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BlendReport:
    """Fits a blend and estimates its out-of-sample KL.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) out-of-fold predictions on the same rows.
        names: (M,) unique names.
        patients: (n,) patient of each row.
        total_votes: (n,) votes of each row.
        candidates: methods, simplest first, the ``BASELINES`` among them.
        method: name of the candidate to use; None selects one by nested KL.
        objective: whose rows are fitted on and scored; scores of the others are reported.
        optimistic: (M,) models to mark (default: none).
        n_splits: splits by patient, at most as many as patients with scored rows.
        n_repeats: repeats of the nested cross-validation with the seeds ``seed``,
            ``seed + 1``, ...; row scores are averaged over them.
        seed: of the first repeat and of the bootstrap.
        progress: called with the splits done and the total, at the start and after each.

    Raises:
        PredictionError: inputs do not fit or are not distributions, a baseline or the
            method is not among the candidates, or too few patients have scored rows.
    """
    data = checked_data(targets, probabilities, patients, total_votes)
    marks = tuple(map(bool, [False] * len(data.models) if optimistic is None else optimistic))
    _check_names(names, marks, len(data.models))
    entries = checked_candidates(candidates)
    _check_candidates(entries, method)
    # A nested selection is cross-validated once more, after hours of fits on large inputs.
    n_splits = splits_for(data, entries, objective, n_splits, 2 if method is None else 1)
    seeds = range(seed, seed + n_repeats)
    step = _counter(progress, n_splits * (n_repeats + (n_splits if method is None else 0)))
    found = cross_validate(data, entries, objective, seeds, n_splits, keep=method, step=step)
    baselines = _baseline_rows(entries, found.scores)
    best, best_rows = _best_in_sample(data, objective)
    selection = score_candidates(
        data,
        entries,
        found.scores,
        objective,
        reference=SIMPLEX,
        alternatives={BEST_IN_SAMPLE: best_rows, **baselines},
        seeds=seeds,
        n_splits=n_splits,
    )
    estimate = None
    if found.predictions is None:
        estimate = estimate_selection(
            *(data, entries, SIMPLEX, objective),
            seed=seed,
            inner_seeds=(seed,),
            n_splits=n_splits,
            step=step,
        )
        predictions = estimate.probabilities[None]
        # The estimate has the splits of the first seed only, so baselines must have too.
        baselines = _baseline_rows(entries, found.scores[:, :1])
    else:
        predictions = found.predictions
    others = {BEST_IN_SAMPLE: best_rows, **baselines}
    others.pop(method or "", None)
    used = next(entry for entry in entries if entry.name == (method or selection.name))
    fitted = FitCache(data, objective).fit(used)
    in_sample = fitted.predict(data.models)
    return BlendReport(
        names=tuple(names),
        optimistic=marks,
        n_rows={tier: int((data.votes >= fewest).sum()) for tier, fewest in OBJECTIVES.items()},
        n_patients=len(np.unique(data.patients)),
        selection=selection,
        method=used.name,
        selection_estimate=estimate,
        fitted=fitted,
        in_sample=in_sample,
        in_sample_scores=mean_by_objective(row_sums(data.targets, in_sample), data.votes),
        nested=_estimate(data, predictions, found.weights, others, objective, seed),
        best=best,
    )


def _estimate(
    data: EnsembleData,
    predictions: Array,
    weights: Array | None,
    others: Mapping[str, Array],
    objective: Objective,
    seed: int,
) -> NestedEstimate:
    """Scores of (S, n, 6) nested predictions, compared with the (n,) row scores of others."""
    rows = np.mean([row_sums(data.targets, one) for one in predictions], axis=0)
    scored = scored_rows(data, objective)
    patients = data.patients[scored]
    (bootstrap,) = patient_bootstrap([rows[scored]], patients, np.random.default_rng(seed))
    return NestedEstimate(
        probabilities=predictions[0],
        weights=weights,
        scores=mean_by_objective(rows, data.votes),
        interval=clustered_interval(rows[scored], patients),
        bootstrap=bootstrap,
        by_tier=mean_by_tier(rows, data.votes),
        by_class=kl_by_class(data.targets, predictions),
        comparisons=tuple(
            compare(against, rows, other, data.patients, data.votes, objective, seed)
            for against, other in others.items()
        ),
    )


def _baseline_rows(candidates: Sequence[Candidate], scores: Array) -> dict[str, Array]:
    """KL (n,) of each row under each baseline, from (C, S, n) scores; best single first."""
    names = [entry.name for entry in candidates]
    equal, single, simplex = (baseline.name for baseline in BASELINES)
    return {name: scores[names.index(name)].mean(axis=0) for name in (single, equal, simplex)}


def _counter(progress: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Reports 0 now, and one more with each call."""
    progress(0, total)
    done = itertools.count(1)
    return lambda: progress(next(done), total)


def _best_in_sample(data: EnsembleData, objective: Objective) -> tuple[int, Array]:
    """The model of the lowest KL on the objective's rows, and its KL of each row."""
    rows = checked_rows(data.targets, data.models, tier_weights(data.votes, objective), None)
    best = int(np.argmax(BestSingle().fit_rows(rows).weights))
    return best, row_sums(data.targets, data.models[best].astype(np.float64))


def _check_names(names: Sequence[str], marks: Sequence[bool], n_models: int) -> None:
    if len(names) != n_models or len(marks) != n_models:
        raise PredictionError(
            "there must be one name and one mark for each model",
            got=f"{len(names)} names and {len(marks)} marks for {n_models} models",
        )
    if len(set(names)) != n_models:
        raise PredictionError("model names must be unique", got=", ".join(names))


def _check_candidates(candidates: Sequence[Candidate], method: str | None) -> None:
    known = [entry.name for entry in candidates]
    needed = [*(baseline.name for baseline in BASELINES), *([] if method is None else [method])]
    missing = [name for name in needed if name not in known]
    if missing:
        raise PredictionError(
            f"the candidates must include {', '.join(dict.fromkeys(needed))}",
            got=f"no {', '.join(missing)} among {', '.join(known)}",
        )
