"""Mel recipes compared with librosa, a direct computation and known signals."""

import math

import librosa
import numpy as np
import pytest
import torch

from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.signal.mel import mel_power, mel_weights
from hms_ray.signal.montage import CHAINS
from hms_ray.signal.recipes import MEL_PANELS
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


def test_weights_equal_librosa() -> None:
    expected = librosa.filters.mel(sr=200, n_fft=1024, n_mels=128, fmin=0, fmax=20)
    np.testing.assert_allclose(mel_weights(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("panel", "mel", "frame"), [(0, 5, 0), (1, 40, 100), (3, 127, 255)])
def test_points_equal_a_direct_computation(panel: int, mel: int, frame: int) -> None:
    eeg = wave_window()[0].double().numpy()
    values = []
    for anode, cathode in CHAINS[MEL_PANELS[panel]]:
        signal = eeg[:, ELECTRODES.index(anode)] - eeg[:, ELECTRODES.index(cathode)]
        padded = np.pad(signal, 512)
        hann = np.zeros(1024)
        hann[448:576] = np.sin(np.pi * np.arange(128) / 128) ** 2
        frames = np.stack([padded[39 * t : 39 * t + 1024] * hann for t in range(256)])
        power = np.abs(np.fft.rfft(frames)) ** 2
        corners = np.arange(130) * 20 / 129
        weights = np.zeros((128, 513))
        for m in range(128):
            for k in range(513):
                rise = (k * 200 / 1024 - corners[m]) / (20 / 129)
                weights[m, k] = max(0, min(rise, 2 - rise)) * 2 / (corners[m + 2] - corners[m])
        mels = power @ weights.T
        db = 10 * math.log10(mels[frame, mel] / mels.max())
        values.append((max(db, -80) + 40) / 40)
    made = make_windows(wave_window(), MEL)[0, panel, mel, frame].item()
    assert made == pytest.approx(np.mean(values), abs=2e-5)


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


@pytest.mark.parametrize("mel", [10, 60, 120])
def test_wave_appears_at_its_mel_in_its_chain_only(mel: int) -> None:
    eeg = torch.zeros(1, 10_000, 20)
    time = torch.arange(10_000, dtype=torch.float64) / 200
    eeg[0, :, ELECTRODES.index("T4")] = 50 * torch.sin(2 * torch.pi * (mel + 1) * 20 / 129 * time)
    made = make_windows(eeg, FIXED)[0]
    right = MEL_PANELS.index("RL")
    assert bool(((made[right, :, 4:-4].argmax(0) - mel).abs() <= 2).all())
    others = [panel for panel in range(4) if panel != right]
    assert bool((made[others] == -6).all())


def test_gaps_become_the_mean_as_in_the_widely_copied_recipe() -> None:
    eeg = wave_window()
    eeg[0, 3_000:3_500, ELECTRODES.index("F7")] = float("nan")
    eeg[0, :, ELECTRODES.index("C4")] = float("nan")
    made = make_windows(eeg, MEL)[0].numpy()
    np.testing.assert_allclose(made, librosa_image(eeg[0].numpy()), atol=1e-4, rtol=0)
