"""KL divergence of a row, its weight by how many experts voted, and its smoothed targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.config.row_targets import TIERS, LabelSmoothing, TierWeights
from hms_ray.config.training import Loss

Weights = NDArray[np.float64]

VOTE_LIMIT: Final = 10.0
"""Votes at which ``kl_capped_votes`` and ``kl_floored_votes`` change slope (published)."""

FULL_VOTES: Final = 20.0
"""Votes of weight 1 in ``kl_votes`` (published by a leading team)."""

LOSSES: Final[dict[Loss, Callable[[Weights], Weights]]] = {
    "kl": np.ones_like,
    "kl_votes": lambda votes: votes / FULL_VOTES,
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
        (n,) float64, above 0: 1, votes / 20, ln(votes + 1), min(votes, 10) or max(votes, 10).
    """
    weights: Weights = LOSSES[loss](total_votes.astype(np.float64))
    return weights


def tier_factors(config: TierWeights, total_votes: NDArray[np.int64], progress: float) -> Weights:
    """Factors of rows in the loss by their tier.

    Args:
        config: weights of the tiers and how they decay.
        total_votes: (n,) votes of each row, at least 1.
        progress: share of the stage's epochs that are done, from 0 to below 1.

    Returns:
        (n,) float64, above 0.
    """
    decayed = np.array(config.weights) * (1 - np.array(config.decay) * progress)
    factors: Weights = np.maximum(decayed, config.floor)[np.digitize(total_votes, TIERS)]
    return factors


def smoothed(config: LabelSmoothing, targets: Weights, total_votes: NDArray[np.int64]) -> Weights:
    """Softer targets.

    Args:
        config: votes to add to each class, and the share to spread evenly.
        targets: (n, 6) shares of votes, sum 1.
        total_votes: (n,) votes of each row, at least 1.

    Returns:
        (n, 6) float64, sum 1.
    """
    n_classes = targets.shape[1]
    votes = total_votes[:, None].astype(np.float64)
    soft = (targets * votes + config.added_votes) / (votes + n_classes * config.added_votes)
    share = np.full_like(votes, config.share)
    if config.max_votes is not None:
        share[votes > config.max_votes] = 0.0
    result: Weights = (1 - share) * soft + share / n_classes
    return result


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


def weighted_binary_kl(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over classes of KL(target || sigmoid(logit)), each class yes or no, in nats.

    Binary cross-entropy minus the targets' own entropy, so it is 0 where the sigmoids equal the
    targets; its gradient is that of binary cross-entropy.

    Args:
        logits: (B, 6), float32 or float64.
        targets: (B, 6) shares, same dtype.
        weights: (B,) same dtype.

    Returns:
        (B,), at least 0 up to rounding.
    """
    crossed = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    entropy = -torch.xlogy(targets, targets) - torch.xlogy(1 - targets, 1 - targets)
    return (crossed - entropy).sum(1) * weights


DIVERGENCES: Final[dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "softmax": weighted_kl,
    "sigmoid": weighted_binary_kl,
}
"""``model.output`` -> weighted divergence of rows."""


def loss_name(loss: Loss, output: str, head: str) -> str:
    """Name of a training loss in records: losses of one name can be compared."""
    name = loss if output == "softmax" else f"binary {loss}"
    return name if head == "one" else f"{name} by tier"
