"""Augmentation of training images: what is done to them, how often and how strongly.

Only training augments; evaluation and everything fitted see rows as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen, Positive

Fraction = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, lt=1)]


class CutMixConfig(Frozen):
    """CutMix among rows that share a class, published for this competition."""

    probability: Fraction = 0.4
    """Share of batches that are cut."""
    axis: Literal["time", "frequency"] = "time"
    """``time`` leaves the centre uncut; ``frequency`` is what the publication ran."""


class MosaicConfig(Frozen):
    """Mosaics of four images, published for this competition.

    Each image of a batch becomes four images of it, drawn with replacement, each with a
    quarter of its width; the target is the mean of the four, and the loss does not weigh
    it by votes. Such a batch is neither cut nor mixed.
    """

    probability: Fraction = 1.0
    """Share of batches that become mosaics (published: all)."""
    epochs: Count | None = None
    """First epochs of a stage that have mosaics, all where absent (published: 3 of 8, or
    2 of the first of two stages)."""


class MixupConfig(Frozen):
    """Mixup of a batch's images, their targets and weights (Zhang et al., ICLR 2018)."""

    probability: Fraction = 1.0
    """Share of batches that are mixed (as published: all)."""
    alpha: Positive = 0.2
    """Both parameters of the Beta distribution that a batch's share is drawn from: small
    ones mix little. Published for ImageNet: 0.1 to 0.4."""


class MaskConfig(Frozen):
    """Masks of stretches of an axis (SpecAugment, Park et al., Interspeech 2019)."""

    probability: Fraction = 0.5
    """Share of rows that are masked (SpecAugment: all)."""
    largest: Part = 0.2
    """Largest width of a mask, as a share of the axis; widths are drawn evenly up to it
    (SpecAugment: 0.34 of the frequencies)."""
    n_masks: Count = 1
    """Masks a row, which may overlap (SpecAugment: 1 or 2)."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.n_masks * self.largest >= 1:
            raise ValueError(
                "n_masks * largest must be below 1, so that no row is masked throughout, "
                f"got {self.n_masks * self.largest:g}"
            )
        return self


class AugmentConfig(Frozen):
    """Augmentation of a stage; nothing where nothing is asked for."""

    cutmix: CutMixConfig | None = None
    """Same-class CutMix; none where absent."""
    mosaic: MosaicConfig | None = None
    """Mosaics of four; none where absent."""
    mixup: MixupConfig | None = None
    """Mixup, after CutMix; none where absent."""
    time_mask: MaskConfig | None = None
    """Stretches of time that become "not recorded", the same share of each source's own
    window: a stretch in seconds that a spectrogram of ten minutes shows would hide all
    50 s of an EEG. None where absent."""
    frequency_mask: MaskConfig | None = None
    """Stretches of frequency that become "not recorded", the same share of each source's
    own range (all reach from about 0 to 20 Hz); raw signals have none. None where
    absent."""
    hemisphere_flip: Fraction = 0.0
    """Share of rows whose left and right chains are swapped in all sources; the midline
    stays (high-ranking teams: 0.5)."""
    time_flip: Fraction = 0.0
    """Share of rows whose time runs backwards in all sources (high-ranking teams: 0.5)."""
    channel_drop: Fraction = 0.0
    """Share of rows that lose one of the four chains, drawn evenly, in all sources; it
    becomes "not recorded" (used by high-ranking teams)."""
    window_shift_s: Annotated[float, Field(ge=0)] = 0.0
    """Largest shift of a training row's window, seconds, earlier or later: drawn evenly
    for each row and epoch, the same for all sources, as far as recordings go. Sources made
    from EEGs need as large a ``margin_s``."""


def with_augment(data: Any) -> Any:
    """Plain data of a stage or of training, an older ``cutmix`` beside ``augment`` moved in.

    Studies that were written before there were other augmentations stay readable so.

    Args:
        data: as it was read; ``cutmix`` is a mapping, ``off`` (of a stage) or nothing.

    Raises:
        ValueError: where CutMix is asked for in both places.
    """
    if not isinstance(data, dict) or "cutmix" not in data:
        return data
    moved = {name: value for name, value in data.items() if name != "cutmix"}
    older, augment = data["cutmix"], moved.get("augment")
    if older is None:
        return moved
    if older == "off":
        return {**moved, "augment": augment or {}}
    if isinstance(augment, AugmentConfig):
        augment = augment.model_dump(mode="json")
    if augment and augment.get("cutmix") is not None:
        raise ValueError("cutmix belongs into augment, which has one already")
    return {**moved, "augment": {**(augment or {}), "cutmix": older}}
