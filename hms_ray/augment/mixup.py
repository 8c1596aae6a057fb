"""Mixup: images, or raw signals, are mixed with those of other rows, and so are their targets.

Zhang, Cisse, Dauphin, Lopez-Paz: "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hms_ray.augment.positions import Positions, own_first, positions_in
from hms_ray.config.augmentation import MixupConfig, SignalMixupConfig
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


@dataclass(frozen=True)
class SignalMixupPlan:
    """Mixup of raw signals of n rows.

    Attributes:
        partners: (n,) positions in the batch; a row's own where it is not mixed.
        shares: (n,) weight of each row in its mixture, 0 to 1; 1 where it is not mixed.
    """

    partners: Positions
    shares: NDArray[np.float64]

    def part(self, made: Positions) -> tuple[Positions, SignalMixupPlan]:
        """The plan for the rows at some positions; see ``MixupPlan.part``."""
        partners = self.partners[made]
        needed = own_first(made, partners)
        return needed, SignalMixupPlan(positions_in(partners, needed), self.shares[made])

    def mixed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, ...) mixtures of (N, ...) values, such as targets or weights."""
        shares = self.shares.reshape(-1, *(1,) * (values.ndim - 1))
        mixtures: NDArray[np.float64] = (
            shares * values[: len(shares)] + (1 - shares) * values[self.partners]
        )
        return mixtures


def plan_signal_mixup(
    n_rows: int, config: SignalMixupConfig, generator: np.random.Generator
) -> SignalMixupPlan:
    """Draws mixup of raw signals.

    Args:
        n_rows: of the global batch.
        config: share of the rows, and alpha of the Beta(alpha, alpha) distribution.
        generator: source of all draws.
    """
    rows = generator.random(n_rows) < config.probability
    shares = generator.beta(config.alpha, config.alpha, n_rows)
    partners = generator.permutation(n_rows).astype(np.int64)
    return SignalMixupPlan(np.where(rows, partners, np.arange(n_rows)), np.where(rows, shares, 1.0))


def mix_signals(windows: Tensor, plan: SignalMixupPlan) -> Tensor:
    """Applies mixup to signals.

    Args:
        windows: (N, P, 1, T); what is missing (NaN) in a row or its partner is missing.
        plan: of n rows, in terms of positions in ``windows``.

    Returns:
        (n, P, 1, T), a new tensor: the first n rows, mixed with their partners.
    """
    n = len(plan.shares)
    mixed = windows.index_select(0, on_device(plan.partners, windows.device))
    shares = on_device(plan.shares, windows.device, windows.dtype)
    # A row mixed with itself keeps its bits.
    return mixed.lerp_(windows[:n], shares[:, None, None, None])
