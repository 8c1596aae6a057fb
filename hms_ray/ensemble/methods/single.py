"""The best single model, as a pool: what a person would pick from a leaderboard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import CheckedPool, Rows
from hms_ray.evaluate.intervals import model_scores


@dataclass(frozen=True)
class BestSingle(CheckedPool[FittedMean]):
    """All weight on the model of the lowest KL, the first one of equally good ones.

    Choosing it is a fit like any other, so that its nested estimate, chosen on other
    patients than it is scored on, is free of the luck of the pick.
    """

    name: str = "best_single"

    def fit_rows(self, rows: Rows) -> FittedMean:
        """As ``CheckedPool.fit_rows``."""
        shares = rows.weights / rows.weights.sum()
        losses = model_scores(rows.targets, rows.models) @ shares
        weights = np.zeros(len(losses))
        weights[np.argmin(losses)] = 1.0
        return FittedMean(weights, {"objective": float(losses.min())})
