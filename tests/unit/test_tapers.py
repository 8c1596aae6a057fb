"""Recipes of tapered frames compared with the competition's recipe and SciPy."""

import numpy as np
import pytest
import torch
from scipy.signal import spectrogram

from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.signal.montage import bipolar
from hms_ray.signal.recipes import layout_of
from hms_ray.signal.spectrogram import (
    LOG_HIGH,
    LOG_LOW,
    STEP_SAMPLES,
    WINDOW_SAMPLES,
    competition_spectrogram,
)
from hms_ray.signal.windows import make_windows
from tests.eeg_windows import noise_windows, wave_window


@pytest.mark.parametrize("eeg", [noise_windows(), wave_window()], ids=["noise", "waves"])
def test_multitaper_equals_the_competition_spectrogram(eeg: torch.Tensor) -> None:
    made = make_windows(eeg, EegRecipe(kind="multitaper"))[0].exp().numpy()
    stored = competition_spectrogram(eeg[0].numpy()).reshape(24, 4, 100).transpose(1, 2, 0)
    clipped = np.clip(stored, np.exp(LOG_LOW), np.exp(LOG_HIGH))
    # A value at a rounding border may fall to either side.
    np.testing.assert_allclose(made, clipped, rtol=1e-4, atol=0.0101)
    assert np.isclose(made, clipped, rtol=1e-4).mean() > 0.999


def test_centre_equals_the_middle_of_the_whole_window() -> None:
    eeg = wave_window()
    whole = make_windows(eeg, EegRecipe(kind="multitaper"))
    # Frames are centred at multiples of 2 s in both.
    centre = make_windows(eeg, EegRecipe(kind="multitaper", centre_s=14))
    torch.testing.assert_close(centre, whole[..., 9:15], rtol=1e-4, atol=1e-4)
    # 10 s have four frames, centred at 22, 24, 26 and 28 s: between those of the whole.
    assert layout_of(EegRecipe(kind="multitaper", centre_s=10)).n_times == 4


def test_default_frames_are_those_of_the_competition() -> None:
    recipe = EegRecipe(kind="multitaper")
    assert (recipe.frame_samples, recipe.frame_hop) == (WINDOW_SAMPLES, STEP_SAMPLES)


@pytest.mark.parametrize(("window", "hop", "first"), [(400, 40, 0), (333, 100, 33), (1024, 7, 1)])
def test_stft_equals_scipy_density(window: int, hop: int, first: int) -> None:
    eeg = noise_windows() + 300  # scipy, too, takes each frame's mean away
    eeg[..., 1] += 5_000
    recipe = EegRecipe(kind="stft", window_samples=window, hop_samples=hop)
    made = make_windows(eeg, recipe)[0].numpy()
    signals = bipolar(eeg[0].double().numpy())[..., first:]
    _, _, density = spectrogram(
        signals, 200, window="hann", nperseg=window, noverlap=window - hop, nfft=1024
    )
    expected = density.mean(axis=1)[:, 3:103] / 2  # scipy doubles the one side
    assert made.shape == expected.shape
    np.testing.assert_allclose(np.exp(made), expected.clip(np.exp(-4)), rtol=1e-3)


@pytest.mark.parametrize("kind", ["stft", "multitaper"])
def test_values_are_clipped_as_in_packs(kind: str) -> None:
    recipe = EegRecipe(kind=kind)  # type: ignore[arg-type]
    assert bool((make_windows(torch.zeros(1, 10_000, 20), recipe) == -4).all())
    assert bool((make_windows(noise_windows(scale=1e5), recipe) == 8).all())
