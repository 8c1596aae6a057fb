"""Augmentation of training images: what is done to them, how often and how strongly."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hms_ray.config_recipes import Frozen

Fraction = Annotated[float, Field(ge=0, le=1)]


class CutMixConfig(Frozen):
    """CutMix among rows that share a class, published for this competition."""

    probability: Fraction = 0.4
    """Share of batches that are cut."""
    axis: Literal["time", "frequency"] = "time"
    """``time`` leaves the centre uncut; ``frequency`` is what the publication ran."""


class AugmentConfig(Frozen):
    """Augmentation of a stage; nothing where nothing is asked for."""

    cutmix: CutMixConfig | None = None
    """Same-class CutMix; none where absent."""
    window_shift_s: Annotated[float, Field(ge=0)] = 0.0
    """Largest shift of a training row's window, seconds, earlier or later: drawn evenly
    for each row and epoch, the same for all sources, as far as recordings go. Sources made
    from EEGs need as large a ``margin_s``."""
