"""How the votes of a training row decide its weight and its targets."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen, Positive

TIERS: Final = (3, 10)
"""Fewest votes of the second and of the third tier; no row has 8 or 9."""
N_TIERS: Final = len(TIERS) + 1
EXPERT_VOTES: Final = TIERS[-1]
"""Fewest votes of rows of the third tier, which experts judged."""

NotNegative = Annotated[float, Field(ge=0)]


class TierWeights(Frozen):
    """Weights of rows by tier: 1-2, 3-9, and >= 10 votes."""

    weights: tuple[Positive, Positive, Positive] = (0.3, 0.5, 1.0)
    """Weight of a row of each tier in the first epoch of a stage, multiplied by that of the
    loss."""
    decay: tuple[NotNegative, NotNegative, NotNegative] = (0.0, 0.0, 0.0)
    """In epoch e of n, from 0, the weight of a tier is multiplied by ``1 - decay * e / n``
    (published: 1.2)."""
    floor: Positive = 0.02
    """Smallest weight that decay leads to."""

    @model_validator(mode="after")
    def _the_floor_is_below_the_weights(self) -> Self:
        if self.floor > min(self.weights):
            raise ValueError(
                f"floor must be at most the smallest weight, {min(self.weights):g}, got "
                f"{self.floor:g}; lower floor"
            )
        return self


class LabelSmoothing(Frozen):
    """Softer training targets, more so with fewer votes; scored rows are never smoothed."""

    added_votes: NotNegative = 0.0
    """Votes added to each class before votes are divided by their sum."""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a target that is spread evenly over the classes (published: 0.05 where
    ``max_votes`` is 3)."""
    max_votes: Count | None = None
    """Rows with more votes have no ``share``. Default: all rows have it."""

    @model_validator(mode="after")
    def _something_is_smoothed(self) -> Self:
        if not self.share and not self.added_votes:
            raise ValueError(
                "share or added_votes must be above 0, got 0 for both; set one, or remove "
                "label_smoothing"
            )
        return self
