"""Strips: a window and its surroundings, from which shifted windows are cut.

A strip is one longer window with the same distance between frames or samples. Filters and gap
policies use the recording from the margin before the 50 s to the margin after it. So the
middle of a strip equals the window except near the window's ends, where mel frames cover the
recording instead of zeros or a mirror image and filters have no edge effect, and except for
gaps, whose mean is over a longer time. For ``stft`` without band and gaps there is no difference.

``mel`` is relative to the largest power of an image. A whole strip is relative to that of its
middle window, so the largest value of a shifted image may be below or above 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hms_ray.competition.schema import EEG_RATE_HZ, EEG_WINDOW_SAMPLES
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe
from hms_ray.signal.mel import largest_power, mel_images, mel_power
from hms_ray.signal.pair_pictures import pair_images
from hms_ray.signal.recipes import layout_of
from hms_ray.signal.resample import resample
from hms_ray.signal.tapers import log_density_images
from hms_ray.signal.windows import filtered_signals

_ROUNDING: Final = 1e-9
"""Tolerance, in positions, for rounding of integer multiples of a step."""


@dataclass(frozen=True, eq=False)
class Strip:
    """A window and its surroundings.

    Attributes:
        values: float32 (P, F, before + T + after), finite.
        before: positions before the window, at most the recipe's margin.
        after: positions after the window, at most the recipe's margin.
    """

    values: Tensor
    before: int
    after: int


@torch.no_grad()
def make_strip(eeg: Tensor, start: int, recipe: SignalRecipe) -> Strip:
    """Computes the strip of a window, within its recording.

    Args:
        eeg: floating point (n, 20), a whole recording at 200 Hz, microvolts, see
            ``make_windows``.
        start: first sample of the window, at most n - 10,000.
        recipe: recipe of the values; its ``margin`` limits the strip.

    Returns:
        The strip. It contains all shifts for which the samples that the recipe uses stay
        within the recording.
    """
    step = layout_of(recipe).step_s * EEG_RATE_HZ
    first = start + (EEG_WINDOW_SAMPLES - recipe.used_samples) // 2
    left = len(eeg) - first - recipe.used_samples
    before = min(recipe.margin, int(first / step + _ROUNDING))
    after = min(recipe.margin, int(left / step + _ROUNDING))
    reach = math.ceil(recipe.margin * step - _ROUNDING)
    seen_from = max(0, start - reach)
    signals = filtered_signals(eeg[None, seen_from : start + EEG_WINDOW_SAMPLES + reach], recipe)
    at = first - seen_from
    if isinstance(recipe, RawRecipe):
        values = _samples(signals, recipe, at, before, after)
    else:
        hop, n_frames = recipe.frame_hop, before + layout_of(recipe).n_times + after
        used = signals[..., at - before * hop : at + recipe.used_samples + after * hop]
        if isinstance(recipe, PairsRecipe):
            values = pair_images(used, recipe, n_frames)
        elif recipe.kind in ("mel", "mel_fixed"):
            largest = None
            if recipe.kind == "mel":
                largest = _largest(eeg[None, start : start + EEG_WINDOW_SAMPLES], recipe)
            values = mel_images(used, recipe, n_frames, largest)
        else:
            values = log_density_images(used, recipe, n_frames)
    return Strip(values[0], before, after)


def _samples(signals: Tensor, recipe: RawRecipe, at: int, before: int, after: int) -> Tensor:
    """(1, P, 1, before + T + after) from signals; the window starts at sample ``at``."""
    divisor = math.gcd(recipe.rate_hz, EEG_RATE_HZ)
    up, down = recipe.rate_hz // divisor, EEG_RATE_HZ // divisor
    # Starts where a result coincides with a sample; surplus results are cut off.
    earlier = math.ceil(before / up) * up
    n_out = earlier + recipe.n_samples + after
    at_rate = resample(signals, at - earlier // up * down, recipe.rate_hz, n_out)
    return (at_rate[..., earlier - before :] / recipe.scale_uv).unsqueeze(2)


def _largest(window: Tensor, recipe: EegRecipe) -> Tensor:
    """The largest power in each mel spectrogram of a window."""
    signals = filtered_signals(window, recipe)
    first = (EEG_WINDOW_SAMPLES - recipe.used_samples) // 2
    used = signals[..., first : first + recipe.used_samples]
    return largest_power(mel_power(used, recipe.frame_samples, recipe.frame_hop, recipe.n_frames))
