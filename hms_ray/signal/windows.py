"""Computes the arrays of EEG windows by a recipe."""

from __future__ import annotations

import torch
from torch import Tensor

from hms_ray.competition.schema import EEG_WINDOW_SAMPLES, ELECTRODES
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe
from hms_ray.errors import DataError
from hms_ray.signal.filters import band_pass, high_pass
from hms_ray.signal.gaps import fill_gaps
from hms_ray.signal.mel import mel_images
from hms_ray.signal.montage import columns_of
from hms_ray.signal.pair_pictures import pair_images
from hms_ray.signal.recipes import FILTER_ORDER, layout_of, pairs_used
from hms_ray.signal.resample import resample
from hms_ray.signal.spectrogram import HIGHPASS_HZ, HIGHPASS_ORDER
from hms_ray.signal.tapers import log_density_images

_CPU_WINDOWS = 1
"""The frames of one window stay in a core's cache; two at once are slower."""
_GPU_WINDOWS = 64
_GPU_VALUES = 2**28
"""Maximum number of float32 samples in overlapping frames at once: 1 GiB."""


@torch.no_grad()
def make_windows(eeg: Tensor, recipe: SignalRecipe) -> Tensor:
    """Computes the arrays of EEG windows.

    The array of a window does not depend on the other windows of the batch.

    Args:
        eeg: floating point (B, 10000, 20) at 200 Hz, microvolts, electrodes in
            ``ELECTRODES`` order; gaps as in ``fill_gaps``.
        recipe: recipe of the arrays.

    Returns:
        float32 (B, P, F, T) on the device of ``eeg``, sizes as in ``layout_of``, finite.

    Raises:
        DataError: if ``eeg`` has another shape or is not floating point.
    """
    if eeg.ndim != 3 or eeg.shape[1:] != (EEG_WINDOW_SAMPLES, len(ELECTRODES)):
        raise DataError(
            f"EEG windows must have the shape (B, {EEG_WINDOW_SAMPLES}, {len(ELECTRODES)})",
            got=str(tuple(eeg.shape)),
        )
    if not eeg.is_floating_point():
        raise DataError("EEG windows must be floating point numbers", got=str(eeg.dtype))
    layout = layout_of(recipe)
    shape = (len(eeg), len(layout.panels), layout.n_frequencies, layout.n_times)
    made = torch.empty(shape, dtype=torch.float32, device=eeg.device)
    at_once = _CPU_WINDOWS if eeg.device.type == "cpu" else _gpu_windows(recipe)
    # A caller's autocast would round the products to bfloat16.
    with torch.autocast(eeg.device.type, enabled=False):
        for start in range(0, len(eeg), at_once):
            part = slice(start, start + at_once)
            _write_arrays(made[part], filtered_signals(eeg[part], recipe), recipe)
    return made


def _gpu_windows(recipe: SignalRecipe) -> int:
    samples = 1 if isinstance(recipe, RawRecipe) else recipe.frame_samples
    values = len(pairs_used(recipe)) * layout_of(recipe).n_times * samples
    return max(1, min(_GPU_WINDOWS, _GPU_VALUES // values))


def bipolar_signals(eeg: Tensor, recipe: SignalRecipe) -> Tensor:
    """Differences of a recipe's pairs: gaps filled, band-passed and clipped.

    Args:
        eeg: floating point (B, n, 20), microvolts.
        recipe: names pairs, gap policy, band and clip.

    Returns:
        float32 (B, pairs, n), contiguous, microvolts.
    """
    anodes, cathodes = columns_of(pairs_used(recipe))
    channels = eeg.float().transpose(1, 2).contiguous()
    signals = fill_gaps(channels[:, anodes] - channels[:, cathodes], recipe.gaps)
    if recipe.band_hz is not None:
        signals = band_pass(signals, *recipe.band_hz, FILTER_ORDER)
    if recipe.clip_uv is not None:
        signals = signals.clamp(-recipe.clip_uv, recipe.clip_uv)
    return signals


def filtered_signals(eeg: Tensor, recipe: SignalRecipe) -> Tensor:
    """``bipolar_signals`` after all filters of a recipe.

    Filters run over the whole window, so that ``centre_s`` is free of their edge effects.
    """
    signals = bipolar_signals(eeg, recipe)
    if isinstance(recipe, EegRecipe) and recipe.kind == "multitaper":
        signals = high_pass(signals, HIGHPASS_HZ, HIGHPASS_ORDER)
    return signals


def _write_arrays(made: Tensor, signals: Tensor, recipe: SignalRecipe) -> None:
    """Filtered signals (B, N, 10000) to arrays (B, P, F, T), written into ``made``."""
    first = (signals.shape[-1] - recipe.used_samples) // 2
    if isinstance(recipe, RawRecipe):
        at_rate = resample(signals, first, recipe.rate_hz, recipe.n_samples)
        torch.div(at_rate.unsqueeze(2), recipe.scale_uv, out=made)
        return
    used = signals[..., first : first + recipe.used_samples]
    if isinstance(recipe, PairsRecipe):
        pair_images(used, recipe, recipe.kept_frames, made)
    elif recipe.kind in ("mel", "mel_fixed"):
        made.copy_(mel_images(used, recipe, recipe.n_frames))
    else:
        made.copy_(log_density_images(used, recipe, recipe.n_frames))
