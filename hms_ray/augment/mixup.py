"""Mixup: each image of a batch is mixed with another one, and so are their targets.

Zhang, Cisse, Dauphin, Lopez-Paz: "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.positions import Positions, own_first, positions_in
from hms_ray.config.augmentation import MixupConfig
from hms_ray.signal.on_device import on_device


@dataclass(frozen=True)
class MixupPlan:
    """Mixup of one batch.

    Attributes:
        partners: (n,) positions in the batch; in the global plan a permutation of all.
        share: weight of each image in its mixture, 0 to 1; its partner has the rest.
    """

    partners: Positions
    share: float

    @property
    def n_images(self) -> int:
        """Number of images, the first ones, that are mixed or are partners."""
        return max(len(self.partners), int(self.partners.max(initial=-1)) + 1)

    def part(self, own: Positions) -> tuple[Positions, MixupPlan]:
        """The plan for some of the batch's images.

        Args:
            own: positions of the images to make.

        Returns:
            Positions of all images needed, ``own`` first and further partners after them;
            and the plan in terms of positions in that list.
        """
        needed = own_first(own, self.partners[own])
        return needed, replace(self, partners=positions_in(self.partners[own], needed))

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
        n_rows: of the global batch.
        config: probability, and alpha of the Beta(alpha, alpha) distribution of the share.
        generator: source of all draws.

    Returns:
        The plan, or None if the batch is not mixed.
    """
    if generator.random() >= config.probability:
        return None
    share = float(generator.beta(config.alpha, config.alpha))
    return MixupPlan(generator.permutation(n_rows).astype(np.int64), share)


def apply_mixup(images: Tensor, plan: MixupPlan) -> Tensor:
    """Applies mixup to images.

    Args:
        images: (N, C, H, W).
        plan: in terms of positions in ``images``.

    Returns:
        (n, C, H, W), a new tensor: the first n images, each mixed with its partner.
    """
    partners = on_device(plan.partners, images.device)
    mixed = images.index_select(0, partners)
    return mixed.lerp_(images[: len(partners)], plan.share)
