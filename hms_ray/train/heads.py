"""A head per tier of votes: each row trains that of its tier, and the experts' one predicts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_ray.competition.schema import N_CLASSES
from hms_ray.config.experiment import ModelConfig
from hms_ray.config.row_targets import N_TIERS, TIERS

Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]


def n_outputs(config: ModelConfig) -> int:
    """Outputs of the last layer: six, or six per tier, those of the experts last."""
    return N_CLASSES if config.head == "one" else N_TIERS * N_CLASSES


def score_by_experts(model: nn.Module) -> None:
    """Makes a model with a head per tier return the experts' six logits in evaluation mode.

    In training mode it returns (B, 18) logits.
    """
    # Not a layer around the model, so that its weights keep their names.
    model.register_forward_hook(_expert_logits)


def _expert_logits(model: nn.Module, images: object, logits: Tensor) -> Tensor | None:
    return None if model.training else logits[:, -N_CLASSES:]


def tier_targets(
    targets: NDArray[np.float64], total_votes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Targets of the head of each tier.

    Args:
        targets: (n, 6) shares of votes.
        total_votes: (n,) votes of each row.

    Returns:
        (n, 18) float64: a row's targets for the head of its tier, 0 for the others.
    """
    own = np.eye(N_TIERS)[np.digitize(total_votes, TIERS)]
    return (own[:, :, None] * targets[:, None, :]).reshape(len(targets), -1)


def by_tier(divergence: Divergence) -> Divergence:
    """A divergence of a head per tier from that of one head.

    Its logits and targets are (B, 18). The targets of a mixed image are the mixture of those of
    its parts: the share of a tier is the sum of its six, and its head is trained towards them
    divided by that share, with this share of the image's weight. So the votes of each part train
    the head of its own tier.
    """

    def of_own_heads(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        heads, goals = (x.reshape(-1, N_CLASSES) for x in (logits, targets))
        shares = goals.sum(1)
        # A head without a share has targets of 0 and the weight 0.
        goals = goals / torch.where(shares > 0, shares, 1.0)[:, None]
        rows = divergence(heads, goals, shares * weights.repeat_interleave(N_TIERS))
        return rows.reshape(-1, N_TIERS).sum(1)

    return of_own_heads
