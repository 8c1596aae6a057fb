"""Steps that blend other steps, with fixed or optimised weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.ensemble.methods.arithmetic import Simplex
from hms_ray.ensemble.methods.base import checked_rows, nested_predictions
from hms_ray.ensemble.simplex import blend_probabilities
from hms_ray.errors import PredictionError
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.ladder.manifest import Blend

N_SPLITS = 5
"""Patient groups of an optimised blend's nested predictions; fewer if there are fewer patients."""


def blend_step(
    blend: Blend, members: Sequence[pd.DataFrame], rows: pd.DataFrame, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Out-of-fold predictions of a blend and its weights.

    Args:
        blend: members and kind of weights.
        members: their predictions of all rows, in the order of the names and the rows.
        rows: the ladder's rows.
        seed: of the patient groups of an optimised blend.

    Returns:
        Predictions as from ``make_oof``; of an optimised blend with weights fitted on
        other patients. Member -> weight; of an optimised blend fitted on all rows, so not
        those of the predictions.

    Raises:
        PredictionError: if the rows of an optimised blend are of one patient.
    """
    stack = np.stack([probabilities_of(oof) for oof in members])
    if blend.kind == "fixed":
        weights: NDArray[np.float64] = np.array(blend.fixed_weights)
        blended = blend_probabilities(stack, weights)
    else:
        targets, patients = rows[list(TARGET_COLUMNS)].to_numpy(), rows["patient_id"].to_numpy()
        n_patients = len(np.unique(patients))
        if n_patients < 2:
            raise PredictionError(
                "optimised weights need rows of at least two patients", got=n_patients
            )
        checked = checked_rows(targets, stack, None, patients)
        (blended,) = nested_predictions([Simplex()], checked, N_SPLITS, seed, "a blend")
        weights = Simplex().fit_rows(checked).weights
    oof = members[0].copy()
    oof[list(PROBABILITY_COLUMNS)] = blended
    return oof, dict(zip(blend.members, weights.tolist(), strict=True))
