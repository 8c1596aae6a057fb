"""A window with what its recording holds around it, for windows that are shifted.

A strip is one longer window: frames or samples stand at the distances that a window's
stand at, and go on before and after it. Filters and gap policies look at the recording
from the margin before the 50 s to the margin after it, frames at what they cover. So a
strip's middle is the window but for what lies near the window's ends: there mel frames
see the recording in place of zeros and filters have no edge, and a gap's mean is taken
over a longer time. ``stft`` without a band and gaps has no such difference.

``mel`` measures an image against its own largest power. All of a strip is measured
against that of the window in its middle, so a shifted image is not measured anew: its
largest value may be below 1, or above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hms_ray.competition.schema import EEG_RATE_HZ, EEG_WINDOW_SAMPLES
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.signal.mel import largest_power, mel_images, mel_power
from hms_ray.signal.recipes import layout_of
from hms_ray.signal.resample import resample
from hms_ray.signal.tapers import log_density_images
from hms_ray.signal.windows import ready_signals

_ROUNDING: Final = 1e-9
"""Positions that products of whole numbers and a step may lack."""


@dataclass(frozen=True, eq=False)
class Strip:
    """A window and its surroundings.

    Attributes:
        values: float32 (P, F, before + T + after), finite.
        before: positions before the window, at most the recipe's margin.
        after: positions after it.
    """

    values: Tensor
    before: int
    after: int


@torch.no_grad()
def make_strip(eeg: Tensor, start: int, recipe: EegRecipe | RawRecipe) -> Strip:
    """A window's strip, as far as the recording goes.

    Args:
        eeg: floating point (n, 20), a whole recording at 200 Hz, microvolts, as of
            ``make_windows``.
        start: first sample of the window; 10,000 samples from there on exist.
        recipe: what to make; its ``margin`` bounds the strip.

    Returns:
        The strip. It ends where the samples that the recipe uses would leave the
        recording if the window were moved further.
    """
    step = layout_of(recipe).step_s * EEG_RATE_HZ
    first = start + (EEG_WINDOW_SAMPLES - recipe.used_samples) // 2
    left = len(eeg) - first - recipe.used_samples
    before = min(recipe.margin, int(first / step + _ROUNDING))
    after = min(recipe.margin, int(left / step + _ROUNDING))
    reach = math.ceil(recipe.margin * step - _ROUNDING)
    seen_from = max(0, start - reach)
    signals = ready_signals(eeg[None, seen_from : start + EEG_WINDOW_SAMPLES + reach], recipe)
    at = first - seen_from
    if isinstance(recipe, RawRecipe):
        values = _samples(signals, recipe, at, before, after)
    else:
        hop, n_frames = recipe.frame_hop, before + recipe.n_frames + after
        used = signals[..., at - before * hop : at + recipe.used_samples + after * hop]
        if recipe.kind in ("mel", "mel_fixed"):
            largest = None
            if recipe.kind == "mel":
                largest = _largest(eeg[None, start : start + EEG_WINDOW_SAMPLES], recipe)
            values = mel_images(used, recipe, n_frames, largest)
        else:
            values = log_density_images(used, recipe, n_frames)
    return Strip(values[0], before, after)


def _samples(signals: Tensor, recipe: RawRecipe, at: int, before: int, after: int) -> Tensor:
    """(1, P, 1, before + T + after) of signals whose sample ``at`` is the window's first."""
    divisor = math.gcd(recipe.rate_hz, EEG_RATE_HZ)
    up, down = recipe.rate_hz // divisor, EEG_RATE_HZ // divisor
    # Begun where a result stands on a sample; what is too much is left out again.
    earlier = math.ceil(before / up) * up
    n_out = earlier + recipe.n_samples + after
    at_rate = resample(signals, at - earlier // up * down, recipe.rate_hz, n_out)
    return (at_rate[..., earlier - before :] / recipe.scale_uv).unsqueeze(2)


def _largest(window: Tensor, recipe: EegRecipe) -> Tensor:
    """The largest power of a window's own mel spectrograms."""
    signals = ready_signals(window, recipe)
    first = (EEG_WINDOW_SAMPLES - recipe.used_samples) // 2
    used = signals[..., first : first + recipe.used_samples]
    return largest_power(mel_power(used, recipe.frame_samples, recipe.frame_hop, recipe.n_frames))
