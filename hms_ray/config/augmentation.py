"""Augmentation of training images: kinds, probabilities, strengths.

Only training batches are augmented; evaluation and fitted statistics use the rows as they are.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen, Positive

Fraction = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, lt=1)]


def _rising(edges: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= edges[0] <= edges[1] <= 100:
        raise ValueError("a range of edges must rise and lie between 0 and 100 Hz")
    return edges


Rising = Annotated[tuple[float, float], AfterValidator(_rising)]


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


class PairDropConfig(Frozen):
    """Electrode pairs that a row loses, as a leading team drops them."""

    probability: Fraction = 0.5
    """Share of rows that it is applied to (published: 0.5)."""
    largest: Annotated[int, Field(ge=1, le=15)] = 8
    """Largest number of pairs; numbers are uniform from 1 (published: 8 of 16)."""


class BlockDropConfig(Frozen):
    """Blocks of an image that are set to zero (coarse dropout)."""

    probability: Fraction = 0.5
    """Share of rows that it is applied to (a leading team's: 0.5)."""
    n_blocks: Count = 8
    """Blocks per row; they may overlap (a leading team's: 8)."""
    largest: Part = 1 / 16
    """Largest height and width, as shares of those of the image; uniform from 0 (a leading
    team's: 1/16)."""


class TimeZoomConfig(Frozen):
    """Time stretched or compressed around the middle of the window."""

    probability: Fraction = 0.5
    """Share of rows that it is applied to (a leading team's: 0.5)."""
    largest: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """The seconds that are shown change by at most this share, more or fewer, uniform (a leading
    team's: 0.25). What lies outside of the window is "not recorded"."""


class CentreShiftConfig(Frozen):
    """Shift of magnified centres: of all recipes but the longest ones of the views."""

    probability: Fraction = 0.5
    """Share of rows that it is applied to (a leading team's: 0.5 to 0.7)."""
    largest_s: Positive = 5.0
    """Largest shift, earlier or later, in seconds, uniform (a leading team's: 5). The recipes need
    a ``margin_s`` of at least this, plus ``window_shift_s``."""


class SignalMixupConfig(Frozen):
    """Mixup of raw signals and of the targets and weights of their rows."""

    probability: Fraction = 0.5
    """Share of rows that it is applied to (a leading team's: 0.5)."""
    alpha: Positive = 0.2
    """Both parameters of the Beta distribution of the mixing ratio, drawn per row (a leading
    team's: 0.2)."""


class NarrowBandConfig(Frozen):
    """A narrower band on some electrode pairs, as a leading team's."""

    probability: Fraction = 0.2
    """Share of rows that it is applied to (published: 0.2)."""
    largest: Annotated[int, Field(ge=1, le=18)] = 8
    """Largest number of pairs; numbers are uniform from 1 (published: 8)."""
    low_hz: Rising = (0.0, 2.0)
    """Range of the lower edge, Hz, uniform (published: 0 to 2)."""
    high_hz: Rising = (10.0, 20.0)
    """Range of the upper edge, Hz, uniform (published: 10 to 20)."""

    @model_validator(mode="after")
    def _a_band_is_left(self) -> Self:
        if self.low_hz[1] >= self.high_hz[0]:
            raise ValueError(
                f"low_hz must end below the start of high_hz, got {self.low_hz[1]:g} and "
                f"{self.high_hz[0]:g} Hz"
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
    pair_drop: PairDropConfig | None = None
    """Electrode pairs that are set to "not recorded" in the views of pairs and raw, the same in
    all recipes with the same pairs; other views stay. ``{}`` for its defaults. Default: off."""
    narrow_band: NarrowBandConfig | None = None
    """A narrower band on some pairs in the views of pairs and raw: signals are filtered, the
    frequencies of spectrograms outside of it get the value of power 0. Default: off."""
    time_zoom: TimeZoomConfig | None = None
    """More or fewer seconds in the same width, the same in all sources. Raw signals change their
    frequencies with it, spectrograms do not. Default: off."""
    signal_mixup: SignalMixupConfig | None = None
    """Mixup of raw signals, before everything else. Needs views of raw alone: the spectrogram of
    a sum is not a sum of spectrograms. Default: off."""
    block_drop: BlockDropConfig | None = None
    """Blocks of the image that are set to zero, in all its channels. Default: off."""
    centre_shift: CentreShiftConfig | None = None
    """Shifts of the magnified centre alone. Default: off."""
    window_shift_s: Annotated[float, Field(ge=0)] = 0.0
    """Largest shift of a training window, earlier or later, in seconds. Shifts are uniform,
    drawn per row and epoch, equal in all sources and limited by the recording. Sources
    made from EEGs need a ``margin_s`` of at least this."""
