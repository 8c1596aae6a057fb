"""Ways to combine models side by side, and the one that is used.

Each way is fitted on all patients (in sample) and on other patients than it is scored
on (nested). The one that is used is given by its name, or chosen by nested KL, the
simplest of those that tie (``choice``); then the nested predictions are those of the
whole procedure, choosing included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from hms_ray.config import Objective
from hms_ray.evaluate.choice import choose_pool, nested_choice_estimate
from hms_ray.evaluate.choice_result import Choice, ChoiceEstimate, interval_json
from hms_ray.evaluate.honest import Difference, model_scores, paired_difference
from hms_ray.evaluate.metric import Array, mean_by_objective, row_sums
from hms_ray.evaluate.nested_pools import (
    Candidate,
    Data,
    checked_data,
    fit_candidate,
    nested_predictions,
    scored_rows,
)
from hms_ray.evaluate.pools.interface import FittedPool, Pool

BEST_SINGLE: Final = "best single"
EQUAL: Final = "equal"
REFERENCE: Final = "simplex"
N_REPEATS: Final = 5


@dataclass(frozen=True)
class MethodReport:
    """What every way is worth, and the one that is used.

    Attributes:
        choice: a row a way; its mark ``chosen`` is of use only where one was chosen.
        method: name of the one that is used.
        worth: what choosing is worth on other patients; None where none was chosen.
        worth_to_others: the same minus the best single model and minus equal weights.
        fitted: the method, fitted on all patients.
        in_sample: (n, 6) float64, what that predicts of the rows it was fitted on.
        nested: (n, 6) float64, fitted, and chosen where one was, on other patients.
        nested_scores: mean KL of ``nested`` by objective (None without rows); of a given
            method the mean over the repeats.
        best_single: position of the model with the lowest KL on the scored rows.
    """

    choice: Choice
    method: str
    worth: ChoiceEstimate | None
    worth_to_others: dict[str, Difference]
    fitted: FittedPool
    in_sample: Array
    nested: Array
    nested_scores: dict[str, float | None]
    best_single: int

    def to_json(self) -> dict[str, Any]:
        """Plain data of the estimates; predictions and the pool are left to the caller."""
        return {
            "rated": self.choice.to_json(),
            "chosen_by_nested_kl": self.worth is not None,
            "choosing": None
            if self.worth is None
            else {
                **self.worth.to_json(),
                "minus_others": {
                    name: interval_json(difference)
                    for name, difference in self.worth_to_others.items()
                },
            },
        }


def method_report(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    total_votes: ArrayLike,
    pools: Sequence[Pool],
    method: str | None = None,
    objective: Objective = "kl_all",
    *,
    n_splits: int = 5,
    n_repeats: int = N_REPEATS,
    seed: int = 0,
) -> MethodReport:
    """Rates ways to combine models and fits the one that is used.

    Args:
        targets: (n, 6) vote shares.
        probabilities: (M, n, 6) predictions of M models on the same rows.
        patients: (n,) patient of each row.
        total_votes: (n,) votes of each row.
        pools: from the simplest to the most elaborate, ``equal`` and ``simplex`` among
            them.
        method: name of the one to use; chosen by nested KL where None.
        objective: whose rows are fitted on and scored.
        n_splits: splits by patient; fewer where there are fewer patients.
        n_repeats: nested estimates with the seeds ``seed``, ``seed + 1``, ...
        seed: of the first one.

    Raises:
        PredictionError: as ``choose_pool`` and ``nested_choice_estimate``.
    """
    data = checked_data(targets, probabilities, patients, total_votes)
    scored = scored_rows(data, objective)
    owners = data.patients[scored]
    singles = model_scores(data.targets, data.models)
    best = int(np.argmin(singles[:, scored].mean(axis=1)))
    equal = row_sums(data.targets, _predicted(data, pools, EQUAL, objective)[1])
    others = {BEST_SINGLE: singles[best], EQUAL: equal}
    arrays = (data.targets, data.models, data.patients, data.votes, pools)
    choice = choose_pool(
        *arrays,
        objective,
        reference=REFERENCE,
        alternatives=others,
        seeds=range(seed, seed + n_repeats),
        n_splits=n_splits,
    )
    used = choice.name if method is None else method
    fitted, in_sample = _predicted(data, pools, used, objective)
    worth, to_others = None, {}
    if method is None:
        worth = nested_choice_estimate(
            *arrays, REFERENCE, objective, seed=seed, inner_seeds=(seed,), n_splits=n_splits
        )
        nested = worth.probabilities
        rows = row_sums(data.targets, nested)
        scores = mean_by_objective(rows, data.votes)
        to_others = {
            name: paired_difference(rows[scored], other[scored], owners)
            for name, other in others.items()
        }
    else:
        n_splits = min(n_splits, len(np.unique(owners)))
        candidate = Candidate(_named(pools, used))
        nested = nested_predictions(data, candidate, objective, seed, n_splits)
        scores = next(rated.by_objective for rated in choice.rated if rated.name == used)
    return MethodReport(choice, used, worth, to_others, fitted, in_sample, nested, scores, best)


def _named(pools: Sequence[Pool], name: str) -> Pool:
    return next(pool for pool in pools if pool.name == name)


def _predicted(
    data: Data, pools: Sequence[Pool], name: str, objective: Objective
) -> tuple[FittedPool, Array]:
    fitted = fit_candidate(data, Candidate(_named(pools, name)), objective)
    return fitted, fitted.predict(data.models)
