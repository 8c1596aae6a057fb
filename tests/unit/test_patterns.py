"""Patterns, their course in time, and what they look like in a spectrogram."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hms_ray.competition.schema import ELECTRODES, FREQUENCIES_HZ
from hms_ray.signal.montage import bipolar
from hms_ray.signal.spectrogram import competition_spectrogram
from hms_ray.simulate.artefacts import add_artefacts, draw_gaps, heart
from hms_ray.simulate.background import (
    BIPOLAR_SD_UV,
    Background,
    at_rest,
    background_signal,
    draw_background,
)
from hms_ray.simulate.noise import coloured, frequencies, slow_curve, to_samples
from hms_ray.simulate.patterns import Episode, Pattern, add_episode, draw_pattern, template
from hms_ray.simulate.scalp import N_SCALP, SCALP, SCALP_SCALE, hemisphere_field
from hms_ray.simulate.timeline import seizure_episodes, steady_episode

SECONDS = 120
HERTZ = np.array(FREQUENCIES_HZ)
STEADY = Pattern(
    frequency_hz=2.0,
    start_hz=2.0,
    sharpness=0.0,
    asymmetry=0.0,
    side=-1,
    evolution=0.0,
    amplitude_uv=100.0,
    jitter=0.05,
    duty=1.0,
    centre=(0.75, 0.45),
    width=0.5,
    lag_s=0.0,
)
QUIET = Background(1.0, 1.5, 9.0, 3.0, 5.0, 1.0, 0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def episode(pattern: Pattern) -> Episode:
    n = SECONDS * 5
    ones = np.ones(n)
    return Episode(pattern, 0, ones * pattern.frequency_hz, ones, ones * pattern.asymmetry)


def as_eeg(signal: np.ndarray) -> np.ndarray:
    """(n_samples, 20) EEG of a scalp signal."""
    eeg = np.zeros((signal.shape[1], 20), np.float32)
    eeg[:, [ELECTRODES.index(name) for name in SCALP]] = signal.T
    return eeg


def panels(signal: np.ndarray) -> np.ndarray:
    """(rows, 4, 100) spectrogram of a scalp signal without its edges."""
    return competition_spectrogram(as_eeg(signal)).reshape(-1, 4, 100)[3:-3]


def pattern_signal(pattern: Pattern, seed: int = 0) -> np.ndarray:
    signal = np.zeros((N_SCALP, SECONDS * 200), np.float32)
    add_episode(signal, episode(pattern), 1.0, rng(seed))
    return signal


def drawn(pattern: Pattern) -> np.ndarray:
    return panels(pattern_signal(pattern))


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("frequency_hz", [0.5, 1.5, 4.0, 12.0])
def test_template_has_unit_height_and_zero_mean(sharpness: float, frequency_hz: float) -> None:
    wave = template(replace(STEADY, sharpness=sharpness), frequency_hz)
    assert np.ptp(wave) == pytest.approx(1, rel=1e-5)
    assert wave.mean() == pytest.approx(0, abs=1e-6)


def test_rhythm_is_a_narrow_band_at_its_frequency() -> None:
    power = drawn(STEADY).mean(axis=(0, 1))
    assert HERTZ[power.argmax()] == pytest.approx(2.0, abs=0.25)
    assert power[(HERTZ > 1.2) & (HERTZ < 2.8)].sum() > 0.9 * power.sum()


def test_discharges_have_harmonics() -> None:
    power = drawn(replace(STEADY, sharpness=1.0)).mean(axis=(0, 1))
    for harmonic in (4.0, 6.0):
        at = np.abs(HERTZ - harmonic) < 0.3
        between = np.abs(HERTZ - harmonic - 1.0) < 0.15
        assert power[at].max() > 2 * power[between].max()
    assert power[HERTZ > 3].sum() > 0.2 * power.sum()


@pytest.mark.parametrize("side", [-1, 1])
def test_asymmetry_is_the_ratio_of_the_sides(side: int) -> None:
    power = drawn(replace(STEADY, side=side, asymmetry=0.8)).mean(axis=(0, 2))
    left, right = power[[0, 2]].sum(), power[[1, 3]].sum()
    lesser, greater = (right, left) if side < 0 else (left, right)
    # A fifth of the amplitude is a twenty-fifth of the power.
    assert greater / lesser == pytest.approx(25, rel=0.1)


def test_amplitude_is_measured_in_the_bipolar_montage() -> None:
    shape = hemisphere_field((0.75, 0.45), 0.5, -1)
    left = [("Fp1", "F7"), ("F7", "T3"), ("T3", "T5"), ("T5", "O1")]
    left += [("Fp1", "F3"), ("F3", "C3"), ("C3", "P3"), ("P3", "O1")]
    steps = [abs(shape[SCALP.index(a)] - shape[SCALP.index(c)]) for a, c in left]
    assert max(steps) == pytest.approx(1)
    assert shape[SCALP.index("T4")] == 0


@pytest.mark.parametrize(
    ("kind", "lowest", "highest"),
    [("LPD", 0.5, 2.5), ("GPD", 0.5, 2.5), ("LRDA", 0.5, 4.0), ("GRDA", 0.5, 4.0)],
)
def test_rates_are_within_the_definitions(kind, lowest: float, highest: float) -> None:
    generator = rng()
    rates = [draw_pattern(kind, generator).frequency_hz for _ in range(300)]
    assert lowest <= min(rates) < max(rates) <= highest


def test_kinds_differ_in_their_defining_features_and_overlap() -> None:
    generator = rng()
    points = {
        kind: [draw_pattern(kind, generator) for _ in range(300)]
        for kind in ("LPD", "GPD", "LRDA", "GRDA", "Seizure")
    }

    def middle(kind: str, feature: str) -> float:
        return float(np.median([getattr(point, feature) for point in points[kind]]))

    assert middle("LPD", "asymmetry") > 0.6 > 0.3 > middle("GPD", "asymmetry")
    assert middle("LPD", "sharpness") > 0.7 > 0.3 > middle("LRDA", "sharpness")
    assert middle("Seizure", "evolution") > 0.7 > 0.3 > middle("GRDA", "evolution")
    assert min(point.asymmetry for point in points["LPD"]) < 0.45
    assert max(point.asymmetry for point in points["GPD"]) > 0.45


def test_seizure_slows_down_and_suppresses_the_background_after_it() -> None:
    envelope = np.ones(600 * 5)
    pattern = replace(STEADY, frequency_hz=2.0, start_hz=10.0, evolution=1.0, sharpness=0.5)
    made = seizure_episodes(pattern, (0.0, 600.0), [300.0], envelope, rng(1))
    seizure = next(e for e in made if e.start <= 1500 < e.stop)
    assert seizure.frequency_hz[0] == pytest.approx(10.0)
    assert seizure.frequency_hz[-1] == pytest.approx(2.0)
    assert (np.diff(seizure.frequency_hz) < 0).all()
    assert seizure.strength[: len(seizure.strength) // 5].mean() < 0.5
    assert 20 <= len(seizure.strength) / 5 <= 180
    assert envelope[seizure.stop + 1] == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(8))
def test_seizures_do_not_overlap_and_cover_the_moment(seed: int) -> None:
    made = seizure_episodes(STEADY, (0.0, 800.0), [301.0, 480.0], np.ones(4000), rng(seed))
    assert all(a.stop <= b.start for a, b in pairwise(made))
    assert any(e.start <= 301 * 5 < e.stop for e in made)


def test_bouts_have_their_share_of_time_and_include_the_judged_moment() -> None:
    generator = rng()
    shares, shown = [], []
    for _ in range(40):
        made = steady_episode(replace(STEADY, duty=0.5), (0.0, 600.0), [301.0], generator)
        shares.append((made.strength > 0.1).mean())
        shown.append(made.strength[301 * 5] > 0.1)
    assert np.mean(shares) == pytest.approx(0.55, abs=0.1)
    assert np.mean(shown) > 0.8


@pytest.mark.parametrize("sharpness", [0.0, 1.0])
def test_pattern_has_its_amplitude_in_the_bipolar_montage(sharpness: float) -> None:
    heights = []
    for seed in range(8):
        signal = pattern_signal(replace(STEADY, sharpness=sharpness), seed)
        seconds = bipolar(as_eeg(signal)).reshape(16, SECONDS, 200)
        heights.append(np.median(np.ptp(seconds, axis=-1), axis=-1).max())
    # Single periods differ, and the second source adds to the main one or subtracts from it.
    assert np.mean(heights) == pytest.approx(100 * SCALP_SCALE, rel=0.2)


def test_single_periods_differ_in_height() -> None:
    signal = pattern_signal(replace(STEADY, jitter=0.0))
    heights = np.ptp(signal[SCALP.index("F7")].reshape(-1, 100), axis=-1)
    assert 0.1 < heights.std() / heights.mean() < 0.4


def test_evolving_patterns_have_fast_activity() -> None:
    steady, evolving = (drawn(replace(STEADY, evolution=e)).mean(axis=(0, 1)) for e in (0.1, 1.0))
    fast = (HERTZ > 12) & (HERTZ < 18)
    assert evolving[fast].mean() > 5 * steady[fast].mean()


def test_episode_beyond_the_end_is_cut_off() -> None:
    signal = np.zeros((N_SCALP, 30 * 200), np.float32)
    add_episode(signal, episode(STEADY), 1.0, rng())
    assert np.abs(signal[:, -200:]).max() > 10
    add_episode(signal, replace(episode(STEADY), start=30 * 5), 1.0, rng())


def test_noise_has_the_given_density() -> None:
    n_samples = 40_000
    hertz = frequencies(n_samples)
    signal = coloured(rng(), 4, n_samples, np.where((hertz > 5) & (hertz < 15), 2.0, 0.0))
    # Two-sided: 2 uV^2 / Hz over 10 Hz on either side.
    assert signal.var() == pytest.approx(40, rel=0.03)
    assert signal.dtype == np.float32


def test_noise_is_drawn_only_where_there_is_power() -> None:
    density = np.exp(-((frequencies(4_000) - 10) ** 2))
    spectrum = np.abs(np.fft.rfft(coloured(rng(), 1, 4_000, density)[0]))
    assert spectrum[400:].max() < 1e-3 * spectrum.max()
    np.testing.assert_array_equal(coloured(rng(), 2, 4_000, 0 * density), 0)


def test_curves_are_interpolated_linearly() -> None:
    curves = np.array([[0.0, 1.0, 4.0], [2.0, 2.0, 0.0]])
    out = to_samples(curves, 100)
    assert out.dtype == np.float32
    at = np.arange(100) / 40
    expected = [np.interp(at, np.arange(3), curve) for curve in curves]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_allclose(
        to_samples(curves[0], 15, 20), np.interp(np.arange(15) / 10, range(3), curves[0]), atol=1e-6
    )


def test_slow_curve_is_standard_normal_and_slow() -> None:
    curve = slow_curve(rng(), 200_000, 10.0)
    assert curve.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(curve[:-10], curve[10:])[0, 1] > 0.9
    assert abs(np.corrcoef(curve[:-150], curve[150:])[0, 1]) < 0.1


def test_background_resembles_scalp_eeg() -> None:
    signal = background_signal(QUIET, np.ones(SECONDS * 5), SECONDS * 200, rng())
    assert signal.dtype == np.float32
    near = np.corrcoef(signal[SCALP.index("F3")], signal[SCALP.index("C3")])[0, 1]
    far = np.corrcoef(signal[SCALP.index("F3")], signal[SCALP.index("O2")])[0, 1]
    assert 0.6 < near < 0.98
    assert far < near - 0.2
    power = panels(signal).mean(axis=(0, 1))
    band = (HERTZ > 2) & (HERTZ < 20)
    slope = np.polyfit(np.log(HERTZ[band]), np.log(power[band]), 1)[0]
    assert -2.2 < slope < -1.1


def test_background_has_the_deviation_that_visibility_uses() -> None:
    generator = rng()
    total = 0.0
    for _ in range(6):
        background = replace(draw_background(generator), gain=1.0)
        signal = background_signal(background, np.ones(300), 12_000, generator)
        spectrum = panels(signal).mean(axis=(0, 1))
        total += 2 * spectrum.sum() * (HERTZ[1] - HERTZ[0])
    assert np.sqrt(total / 6) == pytest.approx(SCALP_SCALE * BIPOLAR_SD_UV, rel=0.2)


def test_states_of_rest_change_their_rhythm() -> None:
    awake = at_rest(QUIET, "awake", rng())
    assert awake.alpha_uv > QUIET.alpha_uv
    power = panels(background_signal(awake, np.ones(SECONDS * 5), SECONDS * 200, rng()))
    mean = power.mean(axis=(0, 1))
    assert HERTZ[(HERTZ > 6) & (HERTZ < 14)][mean[(HERTZ > 6) & (HERTZ < 14)].argmax()] == (
        pytest.approx(9.0, abs=0.6)
    )
    suppressed = at_rest(QUIET, "suppressed", rng())
    flat = panels(background_signal(suppressed, np.ones(SECONDS * 5), SECONDS * 200, rng()))
    # Electrode drift below 3 Hz does not depend on the state.
    brain = HERTZ > 3
    spells, course = (np.log(p[..., brain].mean(axis=(1, 2))).std() for p in (flat, power))
    assert spells > 1.5 * course


def test_sides_have_the_given_ratio() -> None:
    lopsided = replace(QUIET, asymmetry=0.6, drift_uv=0.0)
    signal = background_signal(lopsided, np.ones(SECONDS * 5), SECONDS * 200, rng())
    power = panels(signal).mean(axis=(0, 2))
    assert power[[1, 3]].sum() / power[[0, 2]].sum() == pytest.approx(np.exp(2 * 0.6), rel=0.25)


def test_electrodes_drift_independently_below_one_hertz() -> None:
    still = replace(QUIET, drift_uv=0.0)
    calm, drifting = (
        background_signal(background, np.ones(600), 24_000, rng()) for background in (still, QUIET)
    )
    drift = drifting - calm
    assert 5 < drift.std() < 40
    low = np.abs(np.fft.rfft(drift, axis=1)[:, : 120 * 1]) ** 2
    assert low.sum() > 0.95 * (np.abs(np.fft.rfft(drift, axis=1)) ** 2)[:, 1:].sum()
    near = np.corrcoef(drift[SCALP.index("F3")], drift[SCALP.index("C3")])[0, 1]
    assert near < 0.95


def test_gain_is_a_factor() -> None:
    once = background_signal(QUIET, np.ones(300), 12_000, rng())
    twice = background_signal(replace(QUIET, gain=2.0), np.ones(300), 12_000, rng())
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-4, atol=1e-3)


def test_artefacts_are_at_their_electrodes() -> None:
    signal = np.zeros((N_SCALP, 60_000), np.float32)
    add_artefacts(signal, awake=True, rng=rng())
    assert np.isfinite(signal).all()
    deviation = dict(zip(SCALP, np.diff(signal, axis=1).std(axis=1), strict=True))
    assert deviation["T3"] > deviation["Cz"]
    assert np.abs(signal[SCALP.index("Fp1")]).max() > np.abs(signal[SCALP.index("O1")]).max()
    wave = heart(signal, rng())
    beats = (wave[1:] > 0.5 * wave.max()) & (wave[:-1] <= 0.5 * wave.max())
    assert 0.8 < beats.sum() / 300 < 2.2


def test_gaps_are_rare_and_not_at_the_ends() -> None:
    generator = rng()
    gaps = [draw_gaps(120_400, generator) for _ in range(500)]
    assert 0.02 < np.mean([bool(found) for found in gaps]) < 0.12
    for gap in (gap for found in gaps for gap in found):
        assert 4_000 <= gap.start < gap.stop <= 120_400
