"""Greedy selection with replacement, bagged.

Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models"
(ICML 2004): the model whose addition lowers the loss of the running mean most is added,
again and again (section 2.1), from a random subset of the models each time that this is
repeated, and the repetitions are averaged (section 2.3), which is what keeps the
selection from fitting its rows too well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from hms_ray.evaluate.blend import mixture_problem
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.pools.arithmetic import FittedMean
from hms_ray.evaluate.pools.interface import (
    CheckedPool,
    Rows,
)

_STEPS: Final = 30
_BAGS: Final = 10
_SHARE: Final = 0.5
"""Share of the models in a bag, as in the paper's section 2.3."""


@dataclass(frozen=True)
class Greedy(CheckedPool[FittedMean]):
    """Greedy selection; its weights are counts of additions.

    Attributes:
        steps: additions tried in a bag; the best length is kept.
        bags: random subsets of the models; 1 takes all models and draws nothing.
        seed: of the subsets.
    """

    steps: int = _STEPS
    bags: int = _BAGS
    seed: int = 0
    name: str = "greedy"

    def fit_rows(self, rows: Rows) -> FittedMean:
        """As ``CheckedPool.fit_rows``."""
        shares, columns, entropy = mixture_problem(rows.targets, rows.models, rows.weights)
        columns = columns[:-1]
        generator = np.random.default_rng(self.seed)
        n_models = len(columns)
        size = n_models if self.bags == 1 else max(1, round(_SHARE * n_models))
        weights = np.zeros(n_models)
        for _ in range(self.bags):
            bag = np.sort(generator.choice(n_models, size, replace=False))
            weights[bag] += selected(columns[bag], shares, self.steps)
        weights /= self.bags
        loss = -float(shares @ np.log(weights @ columns)) - entropy
        return FittedMean(weights, {"objective": loss})


def selected(columns: Array, shares: Array, steps: int) -> Array:
    """Weights (m,) of the best mean met within so many additions.

    Args:
        columns: (m, R) probabilities of the entries that count, above 0.
        shares: (R,) their target shares.
        steps: additions.
    """
    counts, total = np.zeros(len(columns)), np.zeros(len(shares))
    best, best_loss = counts, np.inf
    for step in range(1, steps + 1):
        losses = np.array([-(shares @ np.log(total + column)) for column in columns])
        added = int(np.argmin(losses))
        counts[added] += 1
        total = total + columns[added]
        loss = float(losses[added]) + np.log(step) * shares.sum()
        if loss < best_loss:
            best, best_loss = counts / step, loss
    return best
