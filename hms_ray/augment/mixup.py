"""Mixup: each image of a batch mixed with another, and so are their targets.

Zhang, Cisse, Dauphin, Lopez-Paz: "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.places import Places, own_first, positions
from hms_ray.config.augmentation import MixupConfig


@dataclass(frozen=True)
class MixupPlan:
    """With what the images of a batch are mixed.

    Attributes:
        partners: (n,) places in the batch; in the global plan a permutation of all.
        share: of each image in its mixture, from 0 to 1; its partner has the rest.
    """

    partners: Places
    share: float

    @property
    def n_images(self) -> int:
        """How many images, from the first, are mixed or mixed in."""
        return max(len(self.partners), int(self.partners.max(initial=-1)) + 1)

    def part(self, own: Places) -> tuple[Places, MixupPlan]:
        """The plan of some of the batch's images.

        Args:
            own: places of the images to be made.

        Returns:
            The places of all images needed, ``own`` first and further partners after
            them, and the plan in terms of positions in that list.
        """
        needed = own_first(own, self.partners[own])
        return needed, replace(self, partners=positions(self.partners[own], needed))

    def mixed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, ...) mixtures of (B, ...) values, such as targets or weights."""
        own = values[: len(self.partners)]
        mixtures: NDArray[np.float64] = self.share * own + (1 - self.share) * values[self.partners]
        return mixtures


def plan_mixup(
    n_rows: int, config: MixupConfig, generator: np.random.Generator
) -> MixupPlan | None:
    """Draws mixup for a batch.

    Args:
        n_rows: of the whole global batch.
        config: probability and shape of the distribution of shares.
        generator: source of all draws.

    Returns:
        The plan, or None for a batch that stays unmixed.
    """
    if generator.random() >= config.probability:
        return None
    share = float(generator.beta(config.alpha, config.alpha))
    return MixupPlan(generator.permutation(n_rows).astype(np.int64), share)


def apply_mixup(images: Tensor, plan: MixupPlan) -> Tensor:
    """Mixes images by a plan.

    Args:
        images: (N, 1, H, W).
        plan: in terms of positions in ``images``.

    Returns:
        (n, 1, H, W), a new tensor: the first n images, each mixed with its partner.
    """
    partners = torch.from_numpy(plan.partners).to(images.device)
    mixed = images.index_select(0, partners)
    return mixed.lerp_(images[: len(partners)], plan.share)
