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
from numpy.typing import NDArray

from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import (
    CheckedPool,
    Rows,
)
from hms_ray.ensemble.simplex import mixture_problem
from hms_ray.evaluate.metric import Array

_STEPS: Final = 30
_BAGS: Final = 10
_SHARE: Final = 0.5
"""Share of the models in a bag, as in the paper's section 2.3."""
_TOGETHER: Final = 16
"""Entries whose product's logarithm is taken: at 1e-15 each it is still a normal number."""


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
        order, n_grouped = grouped(shares)
        shares = shares[order]
        # Model by model, so that no second copy of all is made.
        for column in columns:
            column[:] = column[order]
        generator = np.random.default_rng(self.seed)
        n_models = len(columns)
        size = n_models if self.bags == 1 else max(1, round(_SHARE * n_models))
        weights = np.zeros(n_models)
        for _ in range(self.bags):
            bag = np.sort(generator.choice(n_models, size, replace=False))
            weights[bag] += selected(columns[bag], shares, self.steps, n_grouped)
        weights /= self.bags
        loss = -float(shares @ np.log(weights @ columns)) - entropy
        return FittedMean(weights, {"objective": loss})


def grouped(shares: Array) -> tuple[NDArray[np.intp], int]:
    """An order of entries that brings equal shares together.

    A logarithm costs as much as ten products, and shares of votes take few values:
    ``s ln a + s ln b = s ln(ab)``.

    Args:
        shares: (R,).

    Returns:
        (R,) order, and how many entries come first that, as an array (16, G), have one
        share in each column.
    """
    order = np.argsort(shares, kind="stable")
    _, counts = np.unique(shares, return_counts=True)
    ends = np.cumsum(counts)
    place = np.arange(len(shares)) - np.repeat(ends - counts, counts)
    whole = place < np.repeat(counts - counts % _TOGETHER, counts)
    together = order[whole].reshape(-1, _TOGETHER).T
    return np.concatenate([together.ravel(), order[~whole]]), together.size


def selected(columns: Array, shares: Array, steps: int, n_grouped: int = 0) -> Array:
    """Weights (m,) of the best mean met within so many additions.

    Args:
        columns: (m, R) probabilities of the entries that count, above 0.
        shares: (R,) their target shares.
        steps: additions.
        n_grouped: entries that come first in the order of ``grouped``.
    """
    counts, total = np.zeros(len(columns)), np.zeros(len(shares))
    best, best_loss = counts, np.inf
    for step in range(1, steps + 1):
        losses = [_loss(total + column, shares, n_grouped) for column in columns]
        added = int(np.argmin(losses))
        counts[added] += 1
        total = total + columns[added]
        loss = losses[added] + np.log(step) * shares.sum()
        if loss < best_loss:
            best, best_loss = counts / step, loss
    return best


def _loss(mixture: Array, shares: Array, n_grouped: int) -> float:
    """``-shares @ ln(mixture)``."""
    products = mixture[:n_grouped].reshape(_TOGETHER, -1).prod(axis=0)
    together = shares[: len(products)] @ np.log(products)
    return -float(together + shares[n_grouped:] @ np.log(mixture[n_grouped:]))
