"""The row browser's EEG and spectrograms against plain NumPy."""

import numpy as np
import pytest

from hms_ray.competition.schema import (
    EEG_RATE_HZ,
    ELECTRODES,
    N_FREQUENCIES,
    PANELS,
    SPECTROGRAM_COLUMNS,
)
from hms_ray.errors import DataError
from hms_ray.report.rows_signal import (
    CHANNELS,
    Filters,
    bipolar_channels,
    cut_eeg,
    reduce_signals,
)
from hms_ray.report.rows_spectrogram import MISSING, eeg_images, kaggle_images
from tests.refused import refusal

OFF = Filters(0, 0, 0)
DOUBLE_BANANA = (
    "Fp1-F7 F7-T3 T3-T5 T5-O1 Fp2-F8 F8-T4 T4-T6 T6-O2 "
    "Fp1-F3 F3-C3 C3-P3 P3-O1 Fp2-F4 F4-C4 C4-P4 P4-O2 Fz-Cz Cz-Pz EKG"
)


def noise(seconds: int, seed: int = 0) -> np.ndarray:
    """Random signals, float32 (n, 20)."""
    generator = np.random.default_rng(seed)
    values = 30 * generator.standard_normal((seconds * EEG_RATE_HZ, len(ELECTRODES)))
    return values.astype(np.float32)


def sine(hz: float, seconds: int = 60) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(seconds * EEG_RATE_HZ) / EEG_RATE_HZ)


def with_sine(hz: float, seconds: int = 60) -> np.ndarray:
    """An EEG with a sine of 100 microvolts at Fp1 alone, float32 (n, 20)."""
    eeg = np.zeros((seconds * EEG_RATE_HZ, len(ELECTRODES)), np.float32)
    eeg[:, ELECTRODES.index("Fp1")] = 100 * sine(hz, seconds)
    return eeg


def test_channels_are_the_double_banana_and_the_ekg() -> None:
    assert " ".join(CHANNELS) == DOUBLE_BANANA
    eeg = noise(1)
    found = bipolar_channels(eeg)
    for channel, name in zip(found, CHANNELS, strict=True):
        parts = [eeg[:, ELECTRODES.index(one)].astype(np.float64) for one in name.split("-")]
        expected = parts[0] - parts[1] if len(parts) == 2 else parts[0]
        assert np.array_equal(channel, expected), name


def test_cut_without_filters_is_the_part_without_its_offset() -> None:
    eeg = noise(60) + 500
    found = cut_eeg(eeg, 2_000, 2_000, OFF)
    part = bipolar_channels(eeg)[:, 2_000:4_000]
    assert np.allclose(found, part - np.median(part, axis=1, keepdims=True), atol=1e-9)


@pytest.mark.parametrize(
    ("hz", "filters", "low", "high"),
    [
        (10, Filters(), 0.98, 1.01),
        (60, Filters(0, 0, 60), 0, 0.02),
        (50, Filters(0, 0, 60), 0.98, 1.01),
        (50, Filters(0, 0, 50), 0, 0.02),
        (0.1, Filters(1, 0, 0), 0, 0.02),
        (1, Filters(1, 0, 0), 0.48, 0.52),  # two runs leave a quarter of the power
        (90, Filters(0, 15, 0), 0, 0.02),
        (15, Filters(0, 15, 0), 0.48, 0.52),
    ],
)
def test_filters_leave_and_remove_what_they_say(
    hz: float, filters: Filters, low: float, high: float
) -> None:
    found = cut_eeg(with_sine(hz), 20 * EEG_RATE_HZ, 20 * EEG_RATE_HZ, filters)
    size = np.abs(found[CHANNELS.index("Fp1-F7")]).max() / 100
    assert low <= size <= high


def test_filters_have_no_delay_and_no_effect_of_the_cut() -> None:
    eeg = noise(60)
    whole = Filters().apply(bipolar_channels(eeg))
    found = cut_eeg(eeg, 25 * EEG_RATE_HZ, 10 * EEG_RATE_HZ, Filters())
    expected = whole[:, 25 * EEG_RATE_HZ : 35 * EEG_RATE_HZ]
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    rhythm = cut_eeg(with_sine(5), 4_000, 2_000, Filters())[0]
    assert np.allclose(rhythm, 100 * sine(5)[4_000:6_000], atol=1.5)


def test_missing_signal_is_a_gap_in_its_channels_alone() -> None:
    eeg = noise(60)
    eeg[5_000:5_200, ELECTRODES.index("F3")] = np.nan
    eeg[5_100, ELECTRODES.index("EKG")] = np.inf
    found = cut_eeg(eeg, 4_000, 2_000, Filters())
    expected = np.zeros(found.shape, bool)
    for name in ("Fp1-F3", "F3-C3"):
        expected[CHANNELS.index(name), 1_000:1_200] = True
    expected[-1, 1_100] = True
    assert np.array_equal(np.isnan(found), expected)
    silent = np.full((12_000, len(ELECTRODES)), np.nan, np.float32)
    assert np.isnan(cut_eeg(silent, 0, 2_000, Filters())).all()


def test_a_window_outside_of_its_recording_is_refused() -> None:
    for first in (-1, 10_001):
        with refusal(DataError, "inside its recording", got="of 60 s", fix="--data"):
            cut_eeg(noise(60), first, 2_000, OFF)


def test_filters_that_cannot_be_chosen_are_refused() -> None:
    with refusal(DataError, "high-pass filter must be one of", got="0.7", fix="Use 0"):
        Filters(high_pass_hz=0.7)


def test_reduced_signals_keep_every_extreme_in_its_order() -> None:
    generator = np.random.default_rng(1)
    signals = generator.standard_normal((3, 1_003))
    signals[1, 517] = 1_000  # a spike of one sample
    reduced = reduce_signals(signals, width=100)
    assert reduced.per_point == 5
    assert reduced.values.shape == (3, 202)
    for channel in range(3):
        for number in range(101):
            samples = signals[channel, number * 10 : number * 10 + 10]
            pair = [samples.min(), samples.max()]
            if samples.argmax() < samples.argmin():
                pair.reverse()
            found = reduced.values[channel, 2 * number : 2 * number + 2]
            assert np.allclose(found, pair, rtol=1e-6), (channel, number)
    assert reduced.values.max() == 1_000
    assert reduced.gaps == []


def test_signals_of_few_samples_are_not_reduced() -> None:
    signals = np.random.default_rng(1).standard_normal((2, 500))
    signals[1, 7:9] = np.nan
    reduced = reduce_signals(signals, width=200)
    assert reduced.per_point == 1
    assert np.array_equal(reduced.values, signals.astype(np.float32), equal_nan=True)
    assert reduced.gaps == [[1, 7, 9]]


def test_reduced_gaps_are_shown_and_hide_no_other_sample() -> None:
    signals = np.zeros((2, 1_000))
    signals[0, 100:123] = np.nan
    signals[1, 995] = np.nan
    reduced = reduce_signals(signals, width=100)
    assert reduced.gaps == [[0, 100, 130], [1, 990, 1_000]]
    assert np.flatnonzero(np.isnan(reduced.values[0])).tolist() == [20, 21, 22, 23]
    assert not np.isnan(reduced.values[1]).any()


def test_spectrogram_of_the_file_is_cut_and_turned_as_it_is_shown() -> None:
    values = np.ones((400, len(SPECTROGRAM_COLUMNS)), np.float32)
    values[150, 2 * N_FREQUENCIES + 30] = 1e4
    values[60:70, :N_FREQUENCIES] = np.nan
    values[80, 5] = 0
    image = kaggle_images(values, 50)
    assert image.cells.shape == (len(PANELS), N_FREQUENCIES, 300)
    assert (image.start_s, image.end_s) == (100, 700)
    bright = np.argwhere(image.cells == 254)
    assert bright.tolist() == [[2, 30, 100]]
    missing = np.zeros(image.cells.shape, bool)
    missing[0, :, 10:20] = True
    assert np.array_equal(image.cells == MISSING, missing)
    assert image.cells[0, 5, 30] == 0
    with refusal(DataError, "inside its recording", got="rows 101 to 401 of 400", fix="--data"):
        kaggle_images(values, 101)


def test_spectrogram_without_numbers_is_missing_throughout() -> None:
    silent = np.full((300, len(SPECTROGRAM_COLUMNS)), np.nan, np.float32)
    assert (kaggle_images(silent, 0).cells == MISSING).all()


def test_eeg_spectrogram_has_the_power_of_its_frames() -> None:
    eeg = noise(70)
    eeg[5_000:5_001, ELECTRODES.index("Fp2")] = np.nan
    image = eeg_images(eeg, 2_000)
    assert image.cells.shape == (4, 40, 193)
    assert (image.start_s, image.end_s) == (11, 59)
    # Frame 40 starts at 40 * 50 samples; the chain LL has the first four channels.
    frame = bipolar_channels(eeg)[:4, 2_000 + 2_000 : 2_000 + 2_400]
    frame = frame - frame.mean(axis=1, keepdims=True)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    spectrum = np.abs(np.fft.rfft(frame * window)) ** 2 * 2 / (EEG_RATE_HZ * (window**2).sum())
    expected = 10 * np.log10(spectrum[:, 1:41].mean(axis=0))
    low, high = image.decibels
    found = low + image.cells[0, :, 40] / 254 * (high - low)
    step = (high - low) / 254
    assert np.abs(found - np.clip(expected, low, high)).max() <= step
    # The missing sample is 3,000 after the start: in the frames that start at 2,650 to 3,000.
    missing = image.cells == MISSING
    assert np.flatnonzero(missing[1].all(axis=0)).tolist() == list(range(53, 61))
    assert not missing[0].any()
