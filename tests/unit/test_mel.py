"""Mel recipes compared with librosa and with known signals."""

import math

import librosa
import numpy as np
import pytest
import torch

from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.signal.mel import mel_power
from hms_ray.signal.windows import make_windows
from tests.eeg_windows import noise_windows, wave_window
from tests.librosa_recipe import librosa_image

MEL, FIXED = EegRecipe(), EegRecipe(kind="mel_fixed")


@pytest.mark.parametrize("made", [noise_windows(), wave_window()], ids=["noise", "waves"])
@pytest.mark.parametrize("centre_s", [50, 10, 12.345])
def test_mel_equals_librosa(made: torch.Tensor, centre_s: float) -> None:
    image = make_windows(made, EegRecipe(centre_s=centre_s))[0].numpy()
    n = round(200 * centre_s)
    first = (10_000 - n) // 2
    expected = librosa_image(made[0, first : first + n].numpy())
    np.testing.assert_allclose(image, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("window", "hop"), [(129, 50), (400, 39), (1024, 200), (16, 7)])
def test_power_of_other_frames_equals_librosa(window: int, hop: int) -> None:
    signal = wave_window()[0, :, 3].contiguous()
    made = mel_power(signal[None, None], window, hop, 1 + 10_000 // hop)[0, 0]
    expected = librosa.feature.melspectrogram(
        y=signal.numpy(), sr=200, n_fft=1024, hop_length=hop, win_length=window, n_mels=128, fmax=20
    )
    np.testing.assert_allclose(made.numpy(), expected, rtol=1e-3, atol=1e-6 * expected.max())


def test_only_mel_fixed_keeps_amplitude() -> None:
    eeg = noise_windows()
    torch.testing.assert_close(make_windows(5 * eeg, MEL), make_windows(eeg, MEL))
    louder = make_windows(5 * eeg, FIXED) - make_windows(eeg, FIXED)
    expected = torch.full_like(louder, 20 * math.log10(5) / 10)
    torch.testing.assert_close(louder, expected, atol=1e-5, rtol=0)


def test_noise_of_one_microvolt_squared_per_hertz_is_zero_db() -> None:
    # Noise of variance 100 at two electrodes has 2 x 100 / 200 = 1 uV^2 per hertz of rate.
    for window in (128, 400):
        recipe = EegRecipe(kind="mel_fixed", window_samples=window)
        made = make_windows(noise_windows(scale=10.0), recipe)[:, :, 8:, 4:-4]
        # The logarithm of one estimate lies 2.5 dB (Euler's constant) below its mean.
        assert 10 * made.mean().item() == pytest.approx(-2.5, abs=0.3)


@pytest.mark.parametrize(("recipe", "value"), [(MEL, 1.0), (FIXED, -6.0)], ids=["mel", "fixed"])
@pytest.mark.parametrize("flat", [0.0, float("nan")])
def test_chain_without_signal_is_finite(recipe: EegRecipe, value: float, flat: float) -> None:
    eeg = noise_windows()
    whole = make_windows(eeg, recipe)
    for electrode in ("Fp1", "F7", "T3", "T5", "O1"):
        eeg[..., ELECTRODES.index(electrode)] = flat
    made = make_windows(eeg, recipe)
    assert bool((made[0, 0] == value).all())
    assert bool(made.isfinite().all())
    assert torch.equal(made[:, 2:], whole[:, 2:])


def test_gaps_become_the_mean_as_in_the_widely_copied_recipe() -> None:
    eeg = wave_window()
    eeg[0, 3_000:3_500, ELECTRODES.index("F7")] = float("nan")
    eeg[0, :, ELECTRODES.index("C4")] = float("nan")
    made = make_windows(eeg, MEL)[0].numpy()
    np.testing.assert_allclose(made, librosa_image(eeg[0].numpy()), atol=1e-4, rtol=0)
