"""What a blend of given models is worth, beside what a person would use instead.

Every way of combining them is fitted on all patients (in sample) and on other patients
than it is scored on (nested), several times over. The one that is used is given by its
name, or chosen by nested KL, the simplest of those that tie (``choice``); then the
nested predictions are those of the whole procedure, choosing included. It is compared
row by row with the best single model, with equal weights and with the simplex.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.config.space import Objective
from hms_ray.ensemble.comparison import compare
from hms_ray.ensemble.cross_validation import (
    Candidate,
    Data,
    checked_candidates,
    checked_data,
    fit_candidate,
    nested_splits,
    scored_rows,
)
from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import Pool, tier_weights
from hms_ray.ensemble.methods.single import BestSingle
from hms_ray.ensemble.result import (
    BEST_IN_SAMPLE,
    BEST_SINGLE,
    EQUAL,
    SIMPLEX,
    YARDSTICKS,
    BlendReport,
    NestedEstimate,
    Scores,
)
from hms_ray.ensemble.selection import nested_choice_estimate, rate, splits_for
from hms_ray.errors import PredictionError
from hms_ray.evaluate.intervals import clustered_interval, patient_bootstrap
from hms_ray.evaluate.metric import (
    OBJECTIVES,
    Array,
    kl_by_class,
    kl_by_tier,
    mean_by_objective,
    row_sums,
)

N_SPLITS: Final = 5
N_REPEATS: Final = 5


def blend_report(
    targets: ArrayLike,
    probabilities: ArrayLike,
    names: Sequence[str],
    patients: ArrayLike,
    total_votes: ArrayLike,
    *,
    candidates: Sequence[Candidate | Pool] = YARDSTICKS,
    method: str | None = SIMPLEX,
    objective: Objective = "kl_10",
    optimistic: Sequence[bool] | None = None,
    n_splits: int = N_SPLITS,
    n_repeats: int = N_REPEATS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BlendReport:
    """Fits a blend and estimates honestly what it is worth.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) out-of-fold predictions on the same rows.
        names: (M,) different names.
        patients: (n,) patient of each row.
        total_votes: (n,) votes of each row.
        candidates: ways to combine, from the simplest to the most elaborate, the
            ``YARDSTICKS`` among them.
        method: name of the candidate to use; chosen by nested KL where None.
        objective: whose rows are fitted on and scored; the others are scored too.
        optimistic: (M,) models to be marked; none where absent.
        n_splits: splits by patient; as many as there are patients with scored rows, if
            fewer.
        n_repeats: nested estimates with the seeds ``seed``, ``seed + 1``, ..., over
            whose row scores the mean is taken.
        seed: of the first estimate's splits and of the bootstrap.
        progress: told the splits done and those in all, at the start and after each.

    Raises:
        PredictionError: where inputs do not fit or are no distributions, a yardstick or
            the method is not among the candidates, or too few patients have scored rows.
    """
    data = checked_data(targets, probabilities, patients, total_votes)
    marks = tuple(map(bool, [False] * len(data.models) if optimistic is None else optimistic))
    _check_names(names, marks, len(data.models))
    entries = checked_candidates(candidates, None)
    _check_candidates(entries, method)
    n_splits = splits_for(data, entries, objective, n_splits)
    seeds = range(seed, seed + n_repeats)
    step = _steps(progress, n_splits * (n_repeats + (n_splits if method is None else 0)))
    nested = _nested(data, entries, method, objective, seeds, n_splits, step)
    best, alone = _best_in_sample(data, objective)
    choice = rate(
        data,
        entries,
        nested.scores,
        objective,
        reference=SIMPLEX,
        alternatives={BEST_IN_SAMPLE: alone, **nested.yardsticks(n_repeats)},
        seeds=seeds,
        n_splits=n_splits,
    )
    worth, predicted = None, nested.predicted
    if method is None:
        worth = nested_choice_estimate(
            *(data.targets, data.models, data.patients, data.votes, entries, SIMPLEX, objective),
            seed=seed,
            inner_seeds=(seed,),
            n_splits=n_splits,
            step=step,
        )
        predicted = [worth.probabilities]
    # One estimate is compared with those of the same splits, a mean with means.
    others = {BEST_IN_SAMPLE: alone, **nested.yardsticks(len(predicted))}
    others.pop(method or "", None)
    used = next(entry for entry in entries if entry.name == (method or choice.name))
    fitted = fit_candidate(data, used, objective)
    in_sample = fitted.predict(data.models)
    return BlendReport(
        names=tuple(names),
        optimistic=marks,
        n_rows={tier: int((data.votes >= fewest).sum()) for tier, fewest in OBJECTIVES.items()},
        n_patients=len(np.unique(data.patients)),
        choice=choice,
        method=used.name,
        worth=worth,
        fitted=fitted,
        in_sample=in_sample,
        in_sample_scores=mean_by_objective(row_sums(data.targets, in_sample), data.votes),
        nested=_estimate(data, predicted, nested.weights, others, objective, seed),
        best=best,
    )


def _estimate(
    data: Data,
    predicted: Sequence[Array],
    weights: Array | None,
    others: Mapping[str, Array],
    objective: Objective,
    seed: int,
) -> NestedEstimate:
    """What (n, 6) nested predictions, a repeat each, tell beside the others' row scores."""
    rows = np.mean([row_sums(data.targets, one) for one in predicted], axis=0)
    scored = scored_rows(data, objective)
    owners = data.patients[scored]
    return NestedEstimate(
        probabilities=predicted[0],
        weights=weights,
        scores=mean_by_objective(rows, data.votes),
        interval=clustered_interval(rows[scored], owners),
        bootstrap=patient_bootstrap(rows[scored], owners, np.random.default_rng(seed)),
        by_tier=_mean_of([kl_by_tier(data.targets, one, data.votes) for one in predicted]),
        by_class=_mean_of([kl_by_class(data.targets, one) for one in predicted]),
        comparisons=tuple(
            compare(against, rows, other, data.patients, data.votes, objective, seed)
            for against, other in others.items()
        ),
    )


@dataclass(frozen=True)
class _Nested:
    """Nested estimates: scores of all candidates, and what the given one did.

    ``scores`` are (C, R, n) KL of each candidate, repeat and row; ``predicted`` has the
    (n, 6) predictions of the given method, a repeat each, and ``weights`` the weights of
    its fits where it has some.
    """

    names: list[str]
    scores: Array
    predicted: list[Array]
    weights: Array | None

    def yardsticks(self, n_repeats: int) -> dict[str, Array]:
        """(n,) KL of each row under each yardstick, the mean of the first repeats."""
        return {
            name: self.scores[self.names.index(name), :n_repeats].mean(axis=0)
            for name in (BEST_SINGLE, EQUAL, SIMPLEX)
        }


def _nested(
    data: Data,
    entries: Sequence[Candidate],
    method: str | None,
    objective: Objective,
    seeds: Sequence[int],
    n_splits: int,
    step: Callable[[], None],
) -> _Nested:
    names = [entry.name for entry in entries]
    scores = np.empty((len(entries), len(seeds), len(data.targets)))
    predicted, fits = [], []
    for repeat, seed in enumerate(seeds):
        blended = np.empty(data.targets.shape)
        for inside, found in nested_splits(data, objective, seed, n_splits):
            targets, models = data.targets[inside], data.models[:, inside]
            for number, entry in enumerate(entries):
                fitted = found.of(entry)
                part = fitted.predict(models)
                scores[number, repeat, inside] = row_sums(targets, part)
                if entry.name == method:
                    blended[inside] = part
                    fits.append(fitted)
            step()
        if method is not None:
            predicted.append(blended)
    means = [fitted.weights for fitted in fits if isinstance(fitted, FittedMean)]
    weighted = bool(fits) and len(means) == len(fits)
    return _Nested(names, scores, predicted, np.stack(means) if weighted else None)


def _steps(progress: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Counts calls, and tells progress of them from 0 on."""
    progress(0, total)
    done = itertools.count(1)
    return lambda: progress(next(done), total)


def _best_in_sample(data: Data, objective: Objective) -> tuple[int, Array]:
    """The model of the lowest KL on the objective's rows, and its KL of each row."""
    weights = tier_weights(data.votes, objective)
    best = int(np.argmax(BestSingle().fit(data.targets, data.models, weights).weights))
    return best, row_sums(data.targets, data.models[best].astype(np.float64))


def _mean_of(repeats: Sequence[Mapping[str, float | None]]) -> Scores:
    """Means by name; what is None is so in every repeat, for their rows are the same."""
    means: Scores = {}
    for name in repeats[0]:
        known = [value for scores in repeats if (value := scores[name]) is not None]
        means[name] = float(np.mean(known)) if known else None
    return means


def _check_names(names: Sequence[str], marks: Sequence[bool], n_models: int) -> None:
    if len(names) != n_models or len(marks) != n_models:
        raise PredictionError(
            "there must be one name and one mark a model",
            got=f"{len(names)} names and {len(marks)} marks for {n_models} models",
        )
    if len(set(names)) != n_models:
        raise PredictionError("models must have different names", got=", ".join(names))


def _check_candidates(entries: Sequence[Candidate], method: str | None) -> None:
    known = [entry.name for entry in entries]
    needed = [EQUAL, BEST_SINGLE, SIMPLEX, *([] if method is None else [method])]
    missing = [name for name in needed if name not in known]
    if missing:
        raise PredictionError(
            f"the candidates must have {', '.join(dict.fromkeys(needed))} among them",
            got=f"no {', '.join(missing)} among {', '.join(known)}",
        )
