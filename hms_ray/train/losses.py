"""KL divergence weighted by how many experts voted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.config.training import Loss

Weights = NDArray[np.float64]

VOTE_LIMIT: Final = 10.0
"""Votes at which ``kl_capped_votes`` and ``kl_floored_votes`` change slope (published)."""

LOSSES: Final[dict[Loss, Callable[[Weights], Weights]]] = {
    "kl": np.ones_like,
    "kl_log_votes": np.log1p,
    "kl_capped_votes": lambda votes: np.minimum(votes, VOTE_LIMIT),
    "kl_floored_votes": lambda votes: np.maximum(votes, VOTE_LIMIT),
}
"""Loss -> weights of rows by their total votes.

``kl_capped_votes`` is the "xloss" of the published code; ``kl_floored_votes`` is the formula
in its README.
"""


def row_weights(loss: Loss, total_votes: NDArray[np.int64]) -> Weights:
    """Weights of rows in the loss.

    Args:
        loss: name of the loss.
        total_votes: (n,) votes of each row, at least 1.

    Returns:
        (n,) float64, above 0: 1, ln(votes + 1), min(votes, 10) or max(votes, 10).
    """
    weights: Weights = LOSSES[loss](total_votes.astype(np.float64))
    return weights


def weighted_kl(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted KL(target || softmax(logits)) of each row, in nats.

    Args:
        logits: (B, 6), float32 or float64; half precision would lose the tails.
        targets: (B, 6) shares, same dtype; terms with target 0 are 0.
        weights: (B,) same dtype.

    Returns:
        (B,) ``weights * sum_k t_k (ln t_k - ln p_k)``; the mean over the batch is the loss.
    """
    divergence = F.kl_div(F.log_softmax(logits, dim=1), targets, reduction="none").sum(1)
    return divergence * weights
