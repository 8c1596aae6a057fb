"""Greedy selection with replacement, bagged.

Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models"
(ICML 2004): at each step the model is added that lowers the loss of the running mean most
(section 2.1). This is repeated on random subsets of the models and the results are averaged
(section 2.3), which reduces overfitting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import FitRows, Method
from hms_ray.ensemble.simplex import mixture_problem
from hms_ray.evaluate.metric import Array

_STEPS: Final = 30
_BAGS: Final = 10
_BAG_FRACTION: Final = 0.5
"""Fraction of the models in a bag (section 2.3 of the paper)."""
_GROUP: Final = 16
"""Entries multiplied before one logarithm is taken: at 1e-15 each the product is normal."""


@dataclass(frozen=True)
class Greedy(Method):
    """Greedy selection; a model's weight is how often it was added.

    Attributes:
        steps: additions per bag; the best number of additions is kept.
        bags: random subsets of the models; 1 uses all models, without randomness.
        seed: of the subsets.
    """

    steps: int = _STEPS
    bags: int = _BAGS
    seed: int = 0
    name: str = "greedy"

    def fit_rows(self, rows: FitRows) -> FittedMean:
        """See ``Method.fit_rows``."""
        shares, columns, entropy = mixture_problem(rows.targets, rows.models, rows.weights)
        columns = columns[:-1]
        order, n_grouped = group_equal_shares(shares)
        shares = shares[order]
        # Column by column, to avoid a second copy of the array.
        for column in columns:
            column[:] = column[order]
        generator = np.random.default_rng(self.seed)
        n_models = len(columns)
        size = n_models if self.bags == 1 else max(1, round(_BAG_FRACTION * n_models))
        weights = np.zeros(n_models)
        for _ in range(self.bags):
            bag = np.sort(generator.choice(n_models, size, replace=False))
            weights[bag] += add_greedily(columns[bag], shares, self.steps, n_grouped)
        weights /= self.bags
        loss = -float(shares @ np.log(weights @ columns)) - entropy
        return FittedMean(weights, {"objective": loss})


def group_equal_shares(shares: Array) -> tuple[NDArray[np.intp], int]:
    """An order of the entries that puts equal shares together.

    A logarithm costs as much as ten products, and vote shares take few values:
    ``s ln a + s ln b = s ln(ab)``.

    Args:
        shares: (R,).

    Returns:
        (R,) order, and the number of its first entries that, reshaped to (16, G), have one
        share per column.
    """
    order = np.argsort(shares, kind="stable")
    _, counts = np.unique(shares, return_counts=True)
    ends = np.cumsum(counts)
    place = np.arange(len(shares)) - np.repeat(ends - counts, counts)
    whole = place < np.repeat(counts - counts % _GROUP, counts)
    together = order[whole].reshape(-1, _GROUP).T
    return np.concatenate([together.ravel(), order[~whole]]), together.size


def add_greedily(columns: Array, shares: Array, steps: int, n_grouped: int = 0) -> Array:
    """Weights (m,) of the best running mean within a number of additions.

    Args:
        columns: (m, R) probabilities of the entries, above 0.
        shares: (R,) their target shares.
        steps: additions.
        n_grouped: number of grouped entries; see ``group_equal_shares``.
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
    products = mixture[:n_grouped].reshape(_GROUP, -1).prod(axis=0)
    together = shares[: len(products)] @ np.log(products)
    return -float(together + shares[n_grouped:] @ np.log(mixture[n_grouped:]))
