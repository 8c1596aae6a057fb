"""The best single model as an ensemble method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import FitRows, Method
from hms_ray.evaluate.metric import row_sums


@dataclass(frozen=True)
class BestSingle(Method):
    """All weight on the model of the lowest KL; the first one if several are equal.

    The choice is a fit like any other: its nested estimate chooses on other patients than
    it scores, so it has no selection bias.
    """

    name: str = "best_single"

    def fit_rows(self, rows: FitRows) -> FittedMean:
        """See ``Method.fit_rows``."""
        shares = rows.weights / rows.weights.sum()
        losses = [
            row_sums(rows.targets, model.astype(np.float64)) @ shares for model in rows.models
        ]
        weights = np.zeros(len(losses))
        weights[np.argmin(losses)] = 1.0
        return FittedMean(weights, {"objective": float(min(losses))})
