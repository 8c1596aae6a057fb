"""Steps that blend other steps, with fixed weights or a fitted method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.ensemble.cross_validation import (
    Candidate,
    EnsembleData,
    FitCache,
    checked_data,
    cross_validate,
    scored_rows,
    splits_for,
)
from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import FittedMethod
from hms_ray.ensemble.methods.combined import FittedRecalibrated
from hms_ray.ensemble.methods.log_linear import FittedLogLinear
from hms_ray.ensemble.methods.registry import all_methods, named_methods
from hms_ray.ensemble.selection import estimate_selection, simplest_within_one_se
from hms_ray.ensemble.simplex import blend_probabilities
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.ladder.manifest import AUTO, Blend

N_SPLITS = 5
"""Patient groups of an optimised blend's nested predictions; fewer if there are fewer patients."""


def blend_step(
    blend: Blend, members: Sequence[pd.DataFrame], rows: pd.DataFrame, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Out-of-fold predictions of a blend and its weights.

    Args:
        blend: members, and kind of weights or method.
        members: their predictions of all rows, in the order of the names and the rows.
        rows: the ladder's rows.
        seed: of the patient groups of an optimised blend.

    Returns:
        Predictions as from ``make_oof``; of an optimised blend from fits on other patients.
        Member -> weight; of an optimised blend fitted on all patients, so not those of the
        predictions, and empty for methods without one weight per member.

    Raises:
        PredictionError: if the rows of an optimised blend are of too few patients.
    """
    stack = np.stack([probabilities_of(oof) for oof in members])
    if blend.kind == "fixed":
        weights = np.array(blend.fixed_weights)
        blended = blend_probabilities(stack, weights)
    else:
        targets, patients = rows[list(TARGET_COLUMNS)].to_numpy(), rows["patient_id"].to_numpy()
        data = checked_data(targets, stack, patients, rows["total_votes"].to_numpy())
        blended, fitted = _optimised(blend, data, seed)
        weights = _weights(fitted)
    oof = members[0].copy()
    oof[list(PROBABILITY_COLUMNS)] = blended
    return oof, dict(zip(blend.members, weights.tolist(), strict=False))


def _optimised(blend: Blend, data: EnsembleData, seed: int) -> tuple[Array, FittedMethod]:
    """Nested predictions, and the method that is fitted on all patients."""
    names = list(all_methods()) if blend.method == AUTO else [blend.method]
    candidates = [Candidate(method) for method in named_methods(names)]
    rows = blend.fit_on
    # A choice of the method is nested once more, and the splits hold out another patient.
    n_splits = splits_for(data, candidates, rows, N_SPLITS, 1 if blend.method != AUTO else 2)
    keep = None if blend.method == AUTO else blend.method
    found = cross_validate(data, candidates, rows, [seed], n_splits, keep=keep)
    if found.predictions is not None:
        return found.predictions[0], FitCache(data, rows).fit(candidates[0])
    scored = scored_rows(data, rows)
    _, chosen, _ = simplest_within_one_se(found.scores[:, 0, scored], data.patients[scored])
    reference = candidates[0].name
    estimate = estimate_selection(data, candidates, reference, rows, seed=seed, n_splits=n_splits)
    return estimate.probabilities, FitCache(data, rows).fit(candidates[chosen])


def _weights(fitted: FittedMethod) -> Array:
    """One weight per member; none for methods that have no such weights."""
    if isinstance(fitted, FittedRecalibrated):
        return _weights(fitted.member)
    if isinstance(fitted, FittedMean):
        return fitted.weights
    if isinstance(fitted, FittedLogLinear) and fitted.kind == "shared":
        (weights, *_) = fitted.weights
        return np.asarray(weights)
    return np.empty(0)
