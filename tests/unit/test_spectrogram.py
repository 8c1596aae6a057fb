"""The competition's spectrogram recipe compared with a direct computation and known signals."""

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt
from scipy.signal.windows import dpss

from hms_ray.competition.schema import ELECTRODES, PANELS
from hms_ray.config.electrodes import CHAINS
from hms_ray.errors import DataError
from hms_ray.signal.spectrogram import competition_spectrogram


def noise(n_samples: int, seed: int = 0, scale: float = 20.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n_samples, 20)) * scale).astype(np.float32)


def direct(eeg: np.ndarray) -> np.ndarray:
    """The recipe word by word, in float64, by a Fourier transform of each window."""
    sections = butter(4, 0.5, "highpass", fs=200, output="sos")
    tapers = dpss(800, 2.0, 3)
    panels = []
    for panel in PANELS:
        powers = []
        for anode, cathode in CHAINS[panel]:
            signal = eeg[:, ELECTRODES.index(anode)] - eeg[:, ELECTRODES.index(cathode)]
            signal = sosfiltfilt(sections, signal.astype(np.float64))
            starts = range(0, len(signal) - 799, 400)
            windows = np.stack([signal[start : start + 800] for start in starts])
            transform = np.fft.rfft(windows[:, None] * tapers, 1024)[..., 3:103]
            powers.append((np.abs(transform) ** 2 / 200).mean(axis=1))
        panels.append(np.mean(powers, axis=0))
    return np.round(np.concatenate(panels, axis=1), 2)


def test_equals_the_direct_computation() -> None:
    eeg = np.cumsum(noise(6_150, scale=2.0), axis=0).astype(np.float32)
    made = competition_spectrogram(eeg)
    assert made.shape == (6_150 // 400 - 1, 400)
    assert made.dtype == np.float32
    # A value at a rounding border may fall to either side.
    np.testing.assert_allclose(made, direct(eeg), rtol=1e-4, atol=0.0101)


def test_white_noise_density_is_variance_over_rate() -> None:
    made = competition_spectrogram(noise(40_000))
    # A difference of two channels has twice their variance; above the high-pass it is flat.
    assert made[:, 20:100].mean() == pytest.approx(2 * 20.0**2 / 200, rel=0.02)


def test_gap_makes_only_its_own_windows_and_panel_missing() -> None:
    eeg = noise(8_000)
    whole = competition_spectrogram(eeg)
    eeg[4_000:4_100, ELECTRODES.index("F7")] = np.nan
    gapped = competition_spectrogram(eeg)
    missing = np.isnan(gapped)
    eeg[4_050, ELECTRODES.index("F7")] = np.inf  # no measurement either
    np.testing.assert_array_equal(competition_spectrogram(eeg), gapped)
    assert missing[9:11, :100].all()
    assert missing.sum() == 2 * 100
    # Interpolated gaps change their neighbours only by ringing of the filter.
    far = np.r_[:7, 13 : len(whole)]
    np.testing.assert_allclose(gapped[far], whole[far], rtol=0.05, atol=0.3)


def test_channel_without_values_leaves_other_panels_unchanged() -> None:
    eeg = noise(4_000)
    whole = competition_spectrogram(eeg)
    eeg[:, ELECTRODES.index("C4")] = np.nan
    gapped = competition_spectrogram(eeg)
    assert np.isnan(gapped[:, 300:]).all()
    np.testing.assert_array_equal(gapped[:, :300], whole[:, :300])


def test_float64_input_gives_the_same() -> None:
    eeg = noise(4_000)
    np.testing.assert_allclose(
        competition_spectrogram(eeg.astype(np.float64)),
        competition_spectrogram(eeg),
        rtol=1e-4,
        atol=0.0101,
    )


def test_one_window_is_enough_and_less_is_refused() -> None:
    assert competition_spectrogram(noise(800)).shape == (1, 400)
    with pytest.raises(DataError, match="at least 800 samples to make a spectrogram, got 799"):
        competition_spectrogram(noise(799))
