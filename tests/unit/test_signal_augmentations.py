"""Pairs, bands, zoom, mixed signals, blocks and shifted centres against plain NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfiltfilt

from hms_ray.augment.blocks import hide_blocks, plan_blocks
from hms_ray.augment.draws import AUGMENTATIONS
from hms_ray.augment.mixup import SignalMixupPlan, mix_signals, plan_signal_mixup
from hms_ray.augment.narrow_band import band_limited, frequencies_of
from hms_ray.augment.plan import draw_plan
from hms_ray.augment.windows import WindowPlan, augment_windows, check_panels, plan_windows
from hms_ray.augment.zoom import plan_zooms, zoom_
from hms_ray.config.augment_checks import centre_sources
from hms_ray.config.augmentation import (
    AugmentConfig,
    BlockDropConfig,
    NarrowBandConfig,
    PairDropConfig,
    SignalMixupConfig,
    TimeZoomConfig,
)
from hms_ray.config.eeg_recipes import RawRecipe
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.inputs import InputConfig, PairsConfig, RawConfig
from hms_ray.config.training import TrainingConfig
from hms_ray.config.validation import validated
from hms_ray.errors import ConfigError
from hms_ray.signal.recipes import layout_of
from hms_ray.signal.windows import make_windows
from hms_ray.train.batches import plan_epoch
from hms_ray.train.process import Process
from tests.fold_data import PANELS, open_images, sources_of
from tests.refused import refusal

PAIRS = layout_of(RawRecipe()).panels
OTHER_ORDER = layout_of(RawRecipe(order="interleaved")).panels


def planned(n: int, **config: Any) -> WindowPlan:
    draws = {kind: np.random.default_rng(0) for kind in AUGMENTATIONS}
    plan = plan_windows(n, AugmentConfig(**config), draws)
    assert plan is not None
    return plan


@pytest.mark.parametrize("source", ["raw", "pairs.centre"])
def test_one_to_eight_pairs_are_not_recorded(source: str) -> None:
    plan = planned(600, pair_drop=PairDropConfig(probability=0.5))
    values = np.random.default_rng(1).normal(size=(600, 18, 2, 3))
    out = augment_windows(torch.from_numpy(values), plan, PAIRS, source).numpy()
    lost = np.isnan(out).all(axis=(2, 3))
    np.testing.assert_array_equal(out, np.where(lost[:, :, None, None], np.nan, values))
    shares = np.bincount(lost.sum(1), minlength=19) / 600
    np.testing.assert_allclose(shares[:9], [0.5, *8 * [0.5 / 8]], atol=0.06)
    assert not shares[9:].any()
    np.testing.assert_allclose(lost.mean(0), 0.5 * 4.5 / 18, atol=0.05)


def test_recipes_lose_the_same_pairs_and_chains_none() -> None:
    plan = planned(50, pair_drop=PairDropConfig(probability=1.0))
    rows = torch.zeros(50, 18, 1, 4)
    lost = {
        panels: augment_windows(rows, plan, panels, "raw").isnan().any(3)[..., 0].numpy()
        for panels in (PAIRS, OTHER_ORDER)
    }
    for row in range(50):
        names = [{panels[p] for p in np.flatnonzero(lost[panels][row])} for panels in lost]
        assert names[0] == names[1]
    chains = torch.zeros(50, 4, 1, 4)
    assert torch.equal(augment_windows(chains, plan, PANELS, "eeg"), chains)


def test_drops_of_all_pairs_are_refused() -> None:
    few = ("Fp1-F7", "Fp2-F8")
    with refusal(
        ConfigError,
        "pair_drop needs more than its 8 pairs",
        got="Fp1-F7 Fp2-F8",
        where="the pack of raw",
        fix="Set training.augment.pair_drop: null.",
    ):
        check_panels(AugmentConfig(pair_drop=PairDropConfig()), {"raw": few})
    check_panels(AugmentConfig(pair_drop=PairDropConfig(largest=1)), {"raw": few, "eeg": PANELS})


@pytest.mark.parametrize(("low", "high"), [(0.0, 12.0), (1.5, 15.0), (0.3, 20.0)])
@pytest.mark.parametrize("rate", [200, 50])
def test_filtered_signals_are_those_of_scipy(low: float, high: float, rate: int) -> None:
    """Far from the ends, where the ringing of an edge depends on the length of the extension."""
    rng = np.random.default_rng(2)
    time = np.arange(50 * rate) / rate
    tones = [(hz, rng.uniform(0, 6)) for hz in (0.1, 0.7, 3.0, 8.0, 11.0, 23.0)]
    signal = sum(np.sin(2 * np.pi * hz * time + phase) for hz, phase in tones)
    edges = torch.tensor([[low, high]], dtype=torch.float64)
    out = band_limited(torch.from_numpy(signal)[None], edges, rate)[0].numpy()
    sections = butter(4, high, "lowpass", fs=rate, output="sos")
    expected = sosfiltfilt(sections, signal)
    if low:
        sections = butter(4, low, "highpass", fs=rate, output="sos")
        expected = sosfiltfilt(sections, expected)
    inner = slice(10 * rate, -10 * rate)
    np.testing.assert_allclose(out[inner], expected[inner], rtol=0, atol=0.01)


def test_an_edge_above_half_of_the_rate_has_no_effect() -> None:
    signals = torch.randn(1, 400, dtype=torch.float64)
    out = band_limited(signals, torch.tensor([[0.0, 20.0]], dtype=torch.float64), 30.0)
    torch.testing.assert_close(out, signals)


def test_missing_samples_stay_missing() -> None:
    signals = torch.randn(2, 400, dtype=torch.float64)
    signals[0, 50:60] = float("nan")
    edges = torch.tensor([[1.0, 10.0], [0.0, 12.0]], dtype=torch.float64)
    out = band_limited(signals, edges, 100.0)
    assert torch.equal(out.isnan(), signals.isnan())
    filled = signals.nan_to_num(nan=0.0)
    kept = ~signals.isnan()
    assert torch.equal(out[kept], band_limited(filled, edges, 100.0)[kept])


def test_narrow_bands_of_raw_rows_filter_the_chosen_pairs_alone() -> None:
    plan = planned(40, narrow_band=NarrowBandConfig(probability=0.5))
    values = np.random.default_rng(3).normal(size=(40, 18, 1, 300))
    windows = torch.from_numpy(values)
    out = augment_windows(
        windows, plan, PAIRS, "raw", frequencies_of(RawConfig(rate_hz=100, downsample=(1, 2)))
    ).numpy()
    chosen = plan.narrowed.of(PAIRS)
    assert 0.3 < (chosen.sum(1) > 0).mean() < 0.7
    assert chosen.sum(1).max() == 8
    for row in range(40):
        for pair in range(18):
            expected = values[row, pair, 0]
            if chosen[row, pair]:
                edges = torch.from_numpy(plan.bands_hz[row : row + 1])
                expected = band_limited(windows[row, pair], edges, 50.0)[0].numpy()
                assert np.abs(expected - values[row, pair, 0]).max() > 0.1
            np.testing.assert_allclose(out[row, pair, 0], expected, rtol=0, atol=1e-12)
    low, high = plan.bands_hz.T
    assert (low.min(), low.max()) == pytest.approx((0, 2), abs=0.2)
    assert (high.min(), high.max()) == pytest.approx((10, 20), abs=1)


@pytest.mark.parametrize(
    "recipe",
    [
        {"kind": "stft", "window_samples": 145, "hop_samples": 500},
        {"kind": "stft", "scale": "log", "subtract": 1.5, "divide": 3, "downsample": (9, 1)},
        {"n_mels": 16, "hop_samples": 500, "clip_values": (-30, 40), "divide": 20},
    ],
)
def test_frequencies_outside_a_narrow_band_get_the_value_of_power_zero(
    recipe: dict[str, Any],
) -> None:
    config = PairsConfig.model_validate(recipe)
    found = frequencies_of(config)
    assert found is not None
    recipe_alone = PairsConfig.model_validate({**recipe, "downsample": (1, 1)})
    flat = make_windows(torch.zeros(1, 10_000, 20), recipe_alone)
    assert found.floor == pytest.approx(float(flat.min()), rel=1e-5)
    if config.kind == "stft":
        hz = np.fft.rfftfreq(config.transform_points, 1 / 200)
        hz = hz[(hz >= 0.5) & (hz <= 20)]
    else:
        mel = np.linspace(*(2595 * np.log10(1 + np.array([0.53, 30]) / 700)), 18)
        hz = 700 * (10 ** (mel[1:-1] / 2595) - 1)
    hz = hz.reshape(-1, config.downsample[0]).mean(1)
    np.testing.assert_allclose(found.hz, hz, rtol=1e-9)
    plan = planned(30, narrow_band=NarrowBandConfig(probability=1.0))
    values = np.random.default_rng(4).normal(size=(30, 18, len(hz), 4))
    values[:, 1, :, 2] = np.nan
    out = augment_windows(torch.from_numpy(values), plan, PAIRS, "pairs", found).numpy()
    chosen = plan.narrowed.of(PAIRS)
    assert chosen.any(1).all()
    expected = values.copy()
    for row in range(30):
        low, high = plan.bands_hz[row]
        for band in np.flatnonzero((hz < low) | (hz > high)):
            hidden = expected[row, chosen[row], band]
            hidden[~np.isnan(hidden)] = found.floor
            expected[row, chosen[row], band] = hidden
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)
    assert frequencies_of(InputConfig().eeg) is None


def test_zoom_stretches_and_compresses_around_the_middle() -> None:
    """A ramp of time shows where each position comes from; values beyond are missing."""
    n = 400
    ramp = torch.arange(n, dtype=torch.float64).expand(3, 2, 1, n).clone()
    spans = np.array([1.0, 0.75, 1.25])
    zoom_(ramp, spans)
    out = ramp.numpy()
    np.testing.assert_array_equal(out[0, 0, 0], np.arange(n))
    middle = (n - 1) / 2
    shown = 300
    expected = middle + (np.arange(n) - middle) * shown / n
    edge = slice(1, -1)
    np.testing.assert_allclose(out[1, 1, 0][edge], expected[edge], atol=1e-9)
    small = n - 2 * round(n * 0.2 / 2)
    missing = np.isnan(out[2, 0, 0])
    np.testing.assert_array_equal(np.flatnonzero(~missing), np.arange(40, 360))
    expected = middle + (np.arange(n) - middle) * n / small
    np.testing.assert_allclose(out[2, 0, 0][41:359], expected[41:359], atol=1e-9)


def test_zooms_are_uniform_and_rows_alone() -> None:
    spans = plan_zooms(4000, TimeZoomConfig(largest=0.25), np.random.default_rng(0))
    zoomed = spans != 1
    assert zoomed.mean() == pytest.approx(0.5, abs=0.03)
    assert (spans.min(), spans.max()) == pytest.approx((0.75, 1.25), abs=0.01)
    assert spans[zoomed].mean() == pytest.approx(1.0, abs=0.01)
    assert (plan_zooms(5, None, np.random.default_rng(0)) == 1).all()


def test_missing_values_spread_to_neighbours_only() -> None:
    windows = torch.zeros(1, 1, 1, 100)
    windows[..., 50] = float("nan")
    zoom_(windows, np.array([0.5]))
    missing = np.flatnonzero(windows[0, 0, 0].isnan().numpy())
    assert 2 <= len(missing) <= 4
    assert missing.min() >= 48


def test_mixed_signals_targets_and_weights() -> None:
    plan = plan_signal_mixup(400, SignalMixupConfig(), np.random.default_rng(0))
    rng = np.random.default_rng(0)
    rows, shares = rng.random(400) < 0.5, rng.beta(0.2, 0.2, 400)
    partners = rng.permutation(400)
    values = np.random.default_rng(5).normal(size=(400, 2, 1, 6))
    values[3, 1, 0, 2] = np.nan
    targets = np.random.default_rng(6).dirichlet(np.ones(6), 400)
    expected, expected_targets = values.copy(), targets.copy()
    for row in np.flatnonzero(rows):
        share, partner = shares[row], partners[row]
        expected[row] = share * values[row] + (1 - share) * values[partner]
        expected_targets[row] = share * targets[row] + (1 - share) * targets[partner]
    out = mix_signals(torch.from_numpy(values), plan)
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(plan.mixed(targets), expected_targets, rtol=0, atol=1e-12)
    np.testing.assert_allclose(plan.mixed(targets[:, 0]), expected_targets[:, 0], atol=1e-12)
    assert rows.mean() == pytest.approx(0.5, abs=0.08)
    assert np.isnan(expected).sum() in (1, 2)


def test_parts_of_mixed_rows_bring_their_partners() -> None:
    plan = SignalMixupPlan(np.array([2, 1, 0, 3]), np.array([0.25, 1.0, 0.5, 1.0]))
    needed, part = plan.part(np.array([2, 1]))
    assert needed.tolist() == [2, 1, 0]
    assert part.partners.tolist() == [2, 1]
    assert part.shares.tolist() == [0.5, 1.0]


def test_cutmix_goes_by_the_classes_of_mixed_rows() -> None:
    """A row that became mostly another class swaps bands with that class."""
    config = AugmentConfig.model_validate(
        {"signal_mixup": {"probability": 1.0, "alpha": 0.5}, "cutmix": {"probability": 1.0}}
    )
    draws = {kind: np.random.default_rng([3, n]) for n, kind in enumerate(AUGMENTATIONS)}
    targets = np.eye(6)[np.arange(24) % 6]
    plan = draw_plan(config, targets, ((40, 60), (60,)), 0, draws)
    assert plan.signals is not None
    assert plan.cutmix is not None
    mixed = plan.targets(targets)
    for swap in plan.cutmix.swaps:
        (column,) = np.flatnonzero((mixed[swap.rows] >= 0.5).all(0))
        np.testing.assert_array_equal(swap.rows, np.flatnonzero(mixed[:, column] >= 0.5))


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_of_an_image_are_zero_in_all_channels(channels: int) -> None:
    config = BlockDropConfig(largest=0.2)
    blocks = plan_blocks(200, config, np.random.default_rng(0))
    images = np.random.default_rng(7).normal(size=(200, channels, 40, 60)).astype(np.float32)
    expected = images.copy()
    for row in range(200):
        for (top, below), (left, right) in blocks[row]:
            for line in range(40):
                for column in range(60):
                    if (
                        top <= line / 40
                        and (line + 1) / 40 <= below
                        and left <= column / 60
                        and (column + 1) / 60 <= right
                    ):
                        expected[row, :, line, column] = 0
        if row == 12:
            break
    given = torch.from_numpy(images[:13]).contiguous(memory_format=torch.channels_last)
    out = hide_blocks(given, blocks[:13])
    np.testing.assert_array_equal(out.numpy(), expected[:13])
    np.testing.assert_array_equal(given.numpy(), images[:13])
    assert out.is_contiguous(memory_format=torch.channels_last)
    chosen = (blocks > 0).any(axis=(1, 2, 3))
    assert chosen.mean() == pytest.approx(0.5, abs=0.1)
    sizes = (blocks[..., 1] - blocks[..., 0])[chosen]
    assert sizes.max() < 0.2
    assert sizes.mean() == pytest.approx(0.1, abs=0.01)
    assert blocks.max() <= 1


CENTRES = {
    "views": ["pairs.wide over pairs.zoom panels"],
    "recipes": {
        "pairs": {
            "wide": {"kind": "stft", "hop_samples": 200, "window_samples": 50},
            "zoom": {
                "kind": "stft",
                "hop_samples": 40,
                "window_samples": 40,
                "n_fft": 50,
                "centre_s": 10,
                "margin_s": 6,
            },
        }
    },
}


def test_only_the_magnified_centre_is_shifted_and_within_the_recording() -> None:
    config = InputConfig.model_validate(CENTRES)
    assert centre_sources(config) == {"pairs.zoom"}
    data = sources_of(config, n_rows=40, margin=15)
    augment = AugmentConfig.model_validate({"centre_shift": {"probability": 0.6, "largest_s": 5}})
    training = TrainingConfig(batch_size=40, augment=augment)
    (stage,) = training.resolved_stages()
    images = open_images(data, config, torch.float64)
    (batch,) = plan_epoch(data, data.train, training, stage, images.joined, (0, 0, 0), Process())
    shifts = batch.centre_shifts_s
    assert shifts is not None
    assert batch.shifts_s is None
    assert (shifts == 0).any()
    assert np.abs(shifts).max() <= 5
    image = next(images.for_training([batch]))[:, 0].unflatten(1, (16, 10)).numpy()
    wide, zoom = data.sources["pairs.wide"], data.sources["pairs.zoom"]
    for number, row in enumerate(batch.rows):
        moved = int(np.clip(np.rint(shifts[number] / 0.2), -15, 15))
        for source, by, lines in ((wide, 0, slice(0, 5)), (zoom, moved, slice(5, 10))):
            start = source.starts[row] + by
            values = source.pack.values[start : start + source.pack.window]
            expected = values.reshape(-1, 16, 5).transpose(1, 2, 0)
            np.testing.assert_allclose(
                image[number][:, lines], np.nan_to_num(expected.astype(float)), atol=1e-6
            )
    assert np.abs(np.rint(shifts / 0.2)).max() > 15, "no shift met the end of a recording"


def experiment(inputs: dict[str, Any], **augment: Any) -> Experiment:
    return validated(Experiment, {"input": inputs, "training": {"augment": augment}}, "here")


@pytest.mark.parametrize(
    ("inputs", "augment", "rule"),
    [
        (
            {"views": ["eeg panels"]},
            {"pair_drop": {}},
            "augment.pair_drop needs a view of pairs or raw, since panels of other sources are me",
        ),
        (
            {"views": ["panels"]},
            {"narrow_band": {}},
            "augment.narrow_band needs a view of pairs or raw, since panels of other sources are",
        ),
        (
            {"views": ["pairs panels"], "pairs": {"order": ["Fp1-F7", "Fp2-F8"]}},
            {"pair_drop": {}},
            "augment.pair_drop needs more than its 8 pairs, got Fp1-F7 Fp2-F8 in the order of pa",
        ),
        (
            {"views": ["raw signals", "pairs panels"]},
            {"signal_mixup": {}},
            "augment.signal_mixup needs views of raw alone, since the spectrogram of a sum is not",
        ),
        (
            {"views": ["panels", "eeg panels"]},
            {"centre_shift": {}},
            "augment.centre_shift needs a recipe that uses fewer seconds than another one of inpu",
        ),
        (
            CENTRES,
            {"centre_shift": {}, "window_shift_s": 0.0, "time_zoom": {}}
            | {"centre_shift": {"largest_s": 7}},
            "input.recipes.pairs.zoom.margin_s must be at least the largest shift of the centre, ",
        ),
        (
            {"views": ["raw signals"]},
            {"narrow_band": {"low_hz": [0, 12]}},
            "low_hz must end below the start of high_hz, got 12 and 10 Hz",
        ),
    ],
)
def test_augmentations_that_an_input_cannot_have_are_refused_with_the_file(
    inputs: dict[str, Any], augment: dict[str, Any], rule: str
) -> None:
    with refusal(ConfigError, rule, where="here"):
        experiment(inputs, **augment)


@pytest.mark.parametrize(
    "field", ["pair_drop", "narrow_band", "time_zoom", "block_drop", "signal_mixup"]
)
def test_augmentations_that_are_never_applied_keep_the_key_of_before(field: str) -> None:
    inputs = {"views": ["raw signals"]}
    plain = canonical(experiment(inputs))
    assert canonical(experiment(inputs, **{field: {"probability": 0}})) == plain
    on = canonical(experiment(inputs, **{field: {}}))
    assert on["training"]["stages"][0]["augment"].pop(field)["probability"] > 0
    assert on == plain
