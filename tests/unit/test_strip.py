"""Strips: longer windows of a recording, point by point against NumPy and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfiltfilt

from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe
from hms_ray.signal.mel import mel_weights
from hms_ray.signal.recipes import layout_of, pairs_used, recipe_description
from hms_ray.signal.strip import make_strip
from hms_ray.signal.windows import make_windows
from tests.eeg_windows import noise_windows

START = 1_300
RECORDING = torch.cat([noise_windows(1, seed=3), noise_windows(1, seed=4)[:, :3_000]], 1)[0]
"""13,000 samples without gaps: 1,300 before the window at START, 1,700 after it."""

PLAIN: list[SignalRecipe] = [
    EegRecipe(kind="mel_fixed", margin_s=4),
    EegRecipe(kind="mel_fixed", margin_s=4, centre_s=10),
    EegRecipe(kind="stft", margin_s=4),
    EegRecipe(kind="stft", margin_s=4, clip_uv=40, window_samples=300),
    PairsRecipe(margin_s=4, divide=10, centre_s=10),
    PairsRecipe(kind="stft", margin_s=4),
    PairsRecipe(kind="stft", margin_s=4, centre_s=30, n_frames=200, order="interleaved"),
    RawRecipe(margin_s=4, band_hz=None, rate_hz=200),
]
"""Recipes without a filter: values of a strip do not depend on their surroundings."""
FILTERED: list[SignalRecipe] = [
    EegRecipe(kind="multitaper", margin_s=4),
    EegRecipe(kind="stft", margin_s=4, band_hz=(1, 15)),
    EegRecipe(kind="mel_fixed", margin_s=4, band_hz=(0.5, 20), centre_s=20),
    PairsRecipe(kind="stft", margin_s=4, band_hz=(1, 15)),
    RawRecipe(margin_s=4),
    RawRecipe(margin_s=4, rate_hz=64, centre_s=10, midline=False),
]


def signals() -> NDArray[np.float64]:
    """(N, 13000) bipolar signals of the recording, in the order of LL, LP, RL, RP."""
    channels = RECORDING.double().numpy()
    pairs = pairs_used(EegRecipe())
    return np.stack([channels[:, _at(a)] - channels[:, _at(c)] for a, c in pairs])


def _at(electrode: str) -> int:
    return ELECTRODES.index(electrode)


def mel_power(used: NDArray[np.float64], centres: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N, 128, T): Hann frames of 128 samples around centres, zeros beyond the ends."""
    padded = np.pad(used, ((0, 0), (64, 64)))
    frames = np.stack([padded[:, c : c + 128] for c in centres], 1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(128) / 128)
    power = np.abs(np.fft.rfft(frames * hann, 1024)) ** 2
    return np.moveaxis(power @ mel_weights().T, 1, 2)


@pytest.mark.parametrize("recipe", PLAIN, ids=str)
def test_shifted_window_equals_the_window_at_that_place(recipe: SignalRecipe) -> None:
    strip, layout = make_strip(RECORDING, START, recipe), layout_of(recipe)
    assert strip.before == strip.after == recipe.margin > 3
    assert strip.values.shape[-1] == layout.n_times + 2 * recipe.margin
    step = round(layout.step_s * 200)
    # Mel frames within half a frame of the ends of a window cover zeros beyond them.
    edge = 2 if getattr(recipe, "kind", "raw") == "mel_fixed" and step == 39 else 0
    edge = 10 if getattr(recipe, "centre_s", 50) == 10 else edge
    for by in (-recipe.margin, -1, 0, 2, recipe.margin):
        cut = RECORDING[None, START + by * step : START + by * step + 10_000]
        (alone,) = make_windows(cut, recipe)
        moved = strip.values[..., strip.before + by :][..., : layout.n_times]
        inner = slice(edge, layout.n_times - edge)
        torch.testing.assert_close(moved[..., inner], alone[..., inner], rtol=0, atol=2e-5)


def test_mel_strip_equals_numpy_with_zeros_only_at_its_ends() -> None:
    recipe = EegRecipe(kind="mel_fixed", margin_s=4)
    strip = make_strip(RECORDING, START, recipe)
    first, n_frames = START - recipe.margin * 39, 256 + 2 * recipe.margin
    used = signals()[:, first : START + 10_000 + recipe.margin * 39]
    power = mel_power(used, np.arange(n_frames) * 39)
    unit = 128 * 3 / 8 * 1024
    expected = (np.log10(np.maximum(power, unit * 1e-6)) - np.log10(unit)).reshape(
        4, 4, 128, n_frames
    )
    np.testing.assert_allclose(strip.values, expected.mean(1), rtol=0, atol=2e-4)


def test_mel_strip_is_relative_to_the_unshifted_window() -> None:
    eeg = RECORDING.clone()
    eeg[START + 10_200 : START + 10_400] *= 20  # loud, and only a shifted window shows it
    recipe = EegRecipe(margin_s=4)
    strip = make_strip(eeg, START, recipe)
    (window,) = make_windows(eeg[None, START : START + 10_000], recipe)
    middle = strip.values[..., recipe.margin : recipe.margin + 256]
    torch.testing.assert_close(middle[..., 2:-2], window[..., 2:-2], rtol=0, atol=2e-5)
    assert float(strip.values[..., recipe.margin + 256 :].max()) > 1.2 > float(window.max())
    # Relative to its own largest power, the shifted window would be lower throughout.
    cut = eeg[None, START + 15 * 39 : START + 15 * 39 + 10_000]
    (anew,) = make_windows(cut, recipe)
    lower = strip.values[..., recipe.margin + 15 :][..., 2:200] - anew[..., 2:200]
    assert float(lower.min()) >= -1e-5
    assert float(lower.max()) > 0.3


@pytest.mark.parametrize("recipe", FILTERED, ids=str)
def test_filtered_strip_equals_the_window_except_near_its_ends(
    recipe: SignalRecipe,
) -> None:
    strip, n_times = make_strip(RECORDING, START, recipe), layout_of(recipe).n_times
    (window,) = make_windows(RECORDING[None, START : START + 10_000], recipe)
    middle = strip.values[..., strip.before : strip.before + n_times]
    seconds = 5 if recipe.centre_s == 50 else 0.4
    edge = int(np.ceil(seconds / layout_of(recipe).step_s))
    inner = slice(edge, n_times - edge)
    torch.testing.assert_close(middle[..., inner], window[..., inner], rtol=0, atol=0.02)
    if recipe.centre_s == 50:
        assert float((middle - window).abs().max()) > 0.02


@pytest.mark.parametrize("recipe", [*PLAIN, *FILTERED, EegRecipe(margin_s=4)], ids=str)
def test_strip_uses_the_recording_up_to_the_margin_only(
    recipe: SignalRecipe,
) -> None:
    strip = make_strip(RECORDING, START, recipe)
    reach = int(np.ceil(recipe.margin * layout_of(recipe).step_s * 200 - 1e-9))
    outside = RECORDING.clone()
    outside[: START - reach] = 0
    outside[START + 10_000 + reach :] = 0
    assert torch.equal(make_strip(outside, START, recipe).values, strip.values)
    if recipe.band_hz is not None and recipe.centre_s == 50:
        outside[START - reach : START - reach + 100] = 0
        assert not torch.equal(make_strip(outside, START, recipe).values, strip.values)


@pytest.mark.parametrize(("rate", "by"), [(100, -8), (100, 8), (64, -3), (64, 5), (200, 1)])
def test_raw_strips_are_filtered_once_and_resampled_on_the_windows_grid(rate: int, by: int) -> None:
    recipe = RawRecipe(margin_s=4, rate_hz=rate, scale_uv=10, midline=False)
    strip, n_times = make_strip(RECORDING, START, recipe), recipe.n_samples
    a, c = pairs_used(recipe)[5]
    channels = RECORDING.double().numpy()
    seen = (channels[:, _at(a)] - channels[:, _at(c)])[START - 800 : START + 10_800]
    clean = sosfiltfilt(butter(4, (0.5, 20), "bandpass", fs=200, output="sos"), seen) / 10
    # On a grid with every result of the lower rate and every sample.
    fine = resample_poly(clean, 8, 1)
    at = (800 * 8 + (by + np.arange(n_times)) * 1600 / rate).round().astype(int)
    moved = strip.values[5, 0, strip.before + by :][:n_times]
    # Two anti-aliasing filters differ a little above 20 Hz, where little is left.
    np.testing.assert_allclose(moved, fine[at], rtol=0, atol=0.08)
    assert float(moved.std()) > 1


@pytest.mark.parametrize("recipe", [*PLAIN, *FILTERED, EegRecipe(margin_s=4)], ids=str)
def test_strip_ends_with_the_recording(recipe: SignalRecipe) -> None:
    layout, step = layout_of(recipe), layout_of(recipe).step_s * 200
    spare = (10_000 - recipe.used_samples) // 2
    for start, n in ((0, 10_000), (0, 10_500), (300, 10_300), (333, 10_777)):
        strip = make_strip(RECORDING[:n], start, recipe)
        assert strip.before == min(recipe.margin, (start + spare) // step)
        left = n - start - spare - recipe.used_samples
        assert strip.after == min(recipe.margin, left // step)
        assert strip.values.shape[-1] == layout.n_times + strip.before + strip.after
        assert bool(strip.values.isfinite().all())
    # In a recording of one window the strip equals the window.
    alone = make_strip(RECORDING[:10_000], 0, recipe)
    (window,) = make_windows(RECORDING[None, :10_000], recipe)
    middle = alone.values[..., alone.before : alone.before + layout.n_times]
    if recipe.used_samples == 10_000:
        assert torch.equal(middle, window)


def test_gaps_around_a_window_are_filled_by_the_recipe_policy() -> None:
    eeg = RECORDING.clone()
    eeg[START - 200 : START + 50, 3] = float("nan")
    filled = eeg.clone()
    filled[START - 200 : START + 50, 3] = 0
    recipe = EegRecipe(kind="stft", margin_s=4, gaps="zero")
    strip = make_strip(eeg, START, recipe)
    assert bool(strip.values.isfinite().all())
    # Only the pairs C3-P3 and P3-O1 of LP have the electrode P3.
    other = make_strip(RECORDING, START, recipe)
    assert torch.equal(strip.values[[0, 1, 3]], other.values[[0, 1, 3]])
    assert not torch.equal(strip.values[2], other.values[2])


@pytest.mark.parametrize(
    ("recipe", "margin"),
    [
        (EegRecipe(margin_s=5), 26),
        (EegRecipe(margin_s=5, centre_s=10), 143),
        (EegRecipe(kind="stft", margin_s=5), 25),
        (EegRecipe(kind="multitaper", margin_s=5), 2),
        (EegRecipe(kind="multitaper", margin_s=0.9), 0),
        (RawRecipe(margin_s=5), 500),
    ],
    ids=str,
)
def test_margins_are_whole_positions_and_part_of_the_description(
    recipe: SignalRecipe, margin: int
) -> None:
    assert recipe.margin == margin
    found = recipe_description(recipe)
    assert found.pop("margin", 0) == margin
    without: Any = recipe.model_copy(update={"margin_s": 0.0})
    assert found == recipe_description(without)
