"""Augmentation of training images: kinds, probabilities, strengths.

Only training batches are augmented; evaluation and fitted statistics use the rows as they are.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen, Positive

Fraction = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, lt=1)]


class CutMixConfig(Frozen):
    """CutMix between rows of one class, as published for this competition."""

    probability: Fraction = 0.4
    """Share of batches that it is applied to."""
    axis: Literal["time", "frequency"] = "time"
    """Axis that is cut. ``time`` leaves the labelled centre uncut; the publication used
    ``frequency``."""


class MosaicConfig(Frozen):
    """Mosaics of four images, as published for this competition.

    Each image of a batch is replaced by a quarter of the width of four images of the
    batch, drawn with replacement. Its target is the mean of the four, without a weight by
    votes. CutMix and mixup skip such a batch.
    """

    probability: Fraction = 1.0
    """Share of batches that it is applied to (published: all)."""
    epochs: Count | None = None
    """Use mosaic only in this many first epochs of a stage (published: 3 of 8; with two
    stages, 2 of 6 in the first). Default: all epochs."""

    def applies_in(self, epoch: int) -> bool:
        """Whether batches of an epoch of the stage, from 0, can become mosaics."""
        return self.probability > 0 and (self.epochs is None or epoch < self.epochs)


class MixupConfig(Frozen):
    """Mixup of images, targets and weights within a batch (Zhang et al., ICLR 2018)."""

    probability: Fraction = 1.0
    """Share of batches that it is applied to (published: all)."""
    alpha: Positive = 0.2
    """Both parameters of the Beta distribution of the mixing ratio, drawn per batch; small
    values mix little (published for ImageNet: 0.1 to 0.4)."""


class MaskConfig(Frozen):
    """Masked intervals of one axis (SpecAugment, Park et al., Interspeech 2019)."""

    probability: Fraction = 0.5
    """Share of rows that it is applied to (SpecAugment: all)."""
    largest: Part = 0.2
    """Largest width of a mask, as a share of the axis; widths are uniform from 0
    (SpecAugment: 0.34 of the frequencies)."""
    n_masks: Count = 1
    """Masks per row; they may overlap (SpecAugment: 1 or 2)."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.n_masks * self.largest >= 1:
            raise ValueError(
                "n_masks * largest must be below 1, or a row could be masked completely, "
                f"got {self.n_masks * self.largest:g}"
            )
        return self


class AugmentConfig(Frozen):
    """Augmentation of a stage. Default: none."""

    cutmix: CutMixConfig | None = None
    """CutMix between rows of one class; ``{}`` for its defaults. Default: off."""
    mosaic: MosaicConfig | None = None
    """Mosaics of four images; ``{}`` for its defaults. Default: off."""
    mixup: MixupConfig | None = None
    """Mixup, applied after CutMix; ``{}`` for its defaults. Default: off."""
    time_mask: MaskConfig | None = None
    """Intervals of time that are set to "not recorded", the same share of the window in
    every source: an interval in seconds that is short in a ten-minute spectrogram would
    hide all 50 s of an EEG. Default: off."""
    frequency_mask: MaskConfig | None = None
    """Intervals of frequency that are set to "not recorded", the same share of the range
    in every source (all cover about 0 to 20 Hz); raw signals are not masked. Default:
    off."""
    hemisphere_flip: Fraction = 0.0
    """Share of rows whose left and right chains are swapped in all sources; the midline
    stays (high-ranking teams: 0.5)."""
    front_back_flip: Fraction = 0.0
    """Share of rows whose front and back are swapped in all sources: Fp1-F7 takes the values of
    T5-O1, and a raw signal changes its sign, since Fp1-F7 mirrored is O1-T5 (a high-ranking
    team: 0.5). Means over chains stay. Needs a view of pairs or raw."""
    lateral_swap: Fraction = 0.0
    """Share of rows whose lateral and parasagittal chains are swapped in all sources: LL with
    LP, RL with RP (used by a high-ranking team)."""
    chain_shuffle: Fraction = 0.0
    """Share of rows whose four chains are in a random order in all sources; pairs of no chain
    stay (a high-ranking team: 0.3 to 0.5)."""
    time_flip: Fraction = 0.0
    """Share of rows that are reversed in time in all sources (high-ranking teams: 0.5)."""
    sign_flip: Fraction = 0.0
    """Share of rows whose raw signals change sign (used by high-ranking teams); spectrograms
    have no sign and stay. Needs a view of the source raw."""
    channel_drop: Fraction = 0.0
    """Share of rows that lose one of the four chains, chosen at random, in all sources; it
    is set to "not recorded" (used by high-ranking teams)."""
    window_shift_s: Annotated[float, Field(ge=0)] = 0.0
    """Largest shift of a training window, earlier or later, in seconds. Shifts are uniform,
    drawn per row and epoch, equal in all sources and limited by the recording. Sources
    made from EEGs need a ``margin_s`` of at least this."""
