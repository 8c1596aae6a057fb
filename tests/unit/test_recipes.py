"""Recipes of EEG windows: layouts, descriptions and values."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.signal import butter, resample_poly, sosfiltfilt

from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe
from hms_ray.errors import DataError
from hms_ray.signal import windows
from hms_ray.signal.recipes import Layout, layout_of, recipe_description
from hms_ray.signal.windows import make_windows
from hms_ray.storage.hashing import digest
from tests.eeg_windows import noise_windows, wave_window

MEL_PANELS, PANELS = ("LL", "LP", "RL", "RP"), ("LL", "RL", "LP", "RP")
RECIPES = [
    EegRecipe(),
    EegRecipe(centre_s=10, gaps="interpolate", clip_uv=100, band_hz=(0.5, 20)),
    EegRecipe(kind="mel_fixed", gaps="zero"),
    EegRecipe(kind="multitaper"),
    EegRecipe(kind="stft"),
    PairsRecipe(scale="log", divide=10),
    PairsRecipe(kind="stft", centre_s=10, midline=True, band_hz=(0.5, 20), clip_uv=100),
    RawRecipe(),
    RawRecipe(rate_hz=64, centre_s=10, midline=False, band_hz=None, gaps="interpolate"),
]


@pytest.mark.parametrize(
    ("recipe", "layout"),
    [
        (EegRecipe(), Layout(MEL_PANELS, 128, 256, 0.195)),
        (EegRecipe(centre_s=10), Layout(MEL_PANELS, 128, 256, 0.035)),
        (EegRecipe(kind="mel_fixed", hop_samples=50), Layout(MEL_PANELS, 128, 200, 0.25)),
        (EegRecipe(kind="multitaper"), Layout(PANELS, 100, 24, 2.0)),
        (EegRecipe(kind="stft"), Layout(PANELS, 100, 241, 0.2)),
    ],
    ids=str,
)
def test_layout_of_recipes(recipe: EegRecipe, layout: Layout) -> None:
    assert layout_of(recipe) == layout


def test_layout_of_signals_names_their_pairs() -> None:
    layout = layout_of(RawRecipe())
    assert (layout.n_frequencies, layout.n_times, layout.step_s) == (1, 5_000, 0.01)
    assert layout.panels[:5] == ("Fp1-F7", "F7-T3", "T3-T5", "T5-O1", "Fp2-F8")
    assert layout.panels[16:] == ("Fz-Cz", "Cz-Pz")
    assert len(layout_of(RawRecipe(midline=False)).panels) == 16


def test_layouts_and_descriptions_need_no_torch() -> None:
    program = (
        "import sys; from hms_ray.config.eeg_recipes import EegRecipe; "
        "from hms_ray.signal import recipes; "
        "recipes.layout_of(EegRecipe()); recipes.recipe_description(EegRecipe()); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_arrays_have_the_layout_of_their_recipe(recipe: SignalRecipe) -> None:
    layout = layout_of(recipe)
    made = make_windows(noise_windows(2), recipe)
    assert made.shape == (2, len(layout.panels), layout.n_frequencies, layout.n_times)
    assert made.dtype == torch.float32
    assert bool(made.isfinite().all())
    assert float(made.std()) > 0.05
    assert make_windows(torch.empty(0, 10_000, 20), recipe).shape == (0, *made.shape[1:])


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_arrays_are_finite_with_gaps_of_every_kind(recipe: SignalRecipe) -> None:
    eeg = noise_windows(3)
    eeg[0, 100:4_000, :7] = float("nan")
    eeg[0, 9_000, 3] = float("inf")
    eeg[1] = float("nan")
    eeg[2, :, 5] = 3e38
    assert bool(make_windows(eeg, recipe).isfinite().all())


@pytest.mark.parametrize("at_once", [1, 64], ids=["as on a CPU", "as on a GPU"])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_window_does_not_depend_on_its_batch(
    recipe: SignalRecipe, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    eeg = torch.cat([noise_windows(1, seed=1) * 1e4, noise_windows(), wave_window()])
    eeg[0, 50:90, :] = float("nan")
    alone = torch.cat([make_windows(window[None], recipe) for window in eeg])
    monkeypatch.setattr(windows, "_CPU_WINDOWS", at_once)
    together = make_windows(eeg, recipe)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


def test_gpu_takes_fewer_windows_with_many_frames() -> None:
    assert windows._gpu_windows(EegRecipe()) == windows._gpu_windows(RawRecipe()) == 64
    assert windows._gpu_windows(EegRecipe(kind="stft", hop_samples=1)) == 4


def test_autocast_of_the_caller_changes_nothing() -> None:
    eeg = noise_windows()
    plain = make_windows(eeg, EegRecipe())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(make_windows(eeg, EegRecipe()), plain)


@pytest.mark.parametrize(
    ("eeg", "message"),
    [
        (
            torch.zeros(2, 9_999, 20),
            r"must have the shape \(B, 10000, 20\), got \(2, 9999, 20\)",
        ),
        (torch.zeros(10_000, 20), r"must have the shape \(B, 10000, 20\), got \(10000, 20\)"),
        (
            torch.zeros(1, 10_000, 20, dtype=torch.int16),
            r"must be floating point numbers, got torch\.int16",
        ),
    ],
)
def test_invalid_windows_are_refused(eeg: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_windows(eeg, EegRecipe())


def test_band_pass_comes_before_the_clip_and_the_centre() -> None:
    eeg = wave_window()
    recipe = EegRecipe(kind="stft", band_hz=(1, 15), clip_uv=40, centre_s=20)
    sections = butter(4, (1, 15), "bandpass", fs=200, output="sos")
    prepared = sosfiltfilt(sections, windows.bipolar_signals(eeg, EegRecipe(kind="stft")), axis=-1)
    made = windows.bipolar_signals(eeg, recipe).numpy()
    np.testing.assert_allclose(made, prepared.clip(-40, 40), atol=1e-3)
    assert (np.abs(made) == 40).any()


def test_raw_signals_are_filtered_clipped_scaled_and_resampled() -> None:
    eeg = wave_window()
    recipe = RawRecipe(clip_uv=60, scale_uv=20, centre_s=20, rate_hz=100)
    made = make_windows(eeg, recipe)[0, :, 0].numpy()
    sections = butter(4, (0.5, 20), "bandpass", fs=200, output="sos")
    channels = eeg[0].double().numpy()
    for panel, name in enumerate(layout_of(recipe).panels):
        anode, cathode = (channels[:, ELECTRODES.index(end)] for end in name.split("-"))
        signal = sosfiltfilt(sections, anode - cathode).clip(-60, 60) / 20
        expected = resample_poly(signal, 1, 2)[1_500:3_500]
        np.testing.assert_allclose(made[panel], expected, atol=1e-4, err_msg=name)


GOLDEN_POINTS = [(0, 0, 0), (1, 40, 7), (2, 60, -1), (3, 10, 100)]


@pytest.mark.parametrize(
    ("recipe", "values"),
    [
        (EegRecipe(), [0.769048, -0.401625, 0.153901, 0.719239]),
        (
            EegRecipe(centre_s=10, gaps="interpolate", clip_uv=100, band_hz=(0.5, 20)),
            [0.576074, 0.074101, 0.688698, 0.086466],
        ),
        (EegRecipe(kind="mel_fixed"), [3.699686, -0.835836, 1.086906, 3.233464]),
        (EegRecipe(kind="multitaper"), [4.863526, 4.931808, 3.054473, -1.89712]),
        (EegRecipe(kind="stft"), [3.679953, 4.95642, 1.08533, -2.916018]),
        (RawRecipe(), [0.478861, -2.605389, 0.624566, 0.388051]),
    ],
    ids=str,
)
def test_golden_values(recipe: SignalRecipe, values: list[float]) -> None:
    made = make_windows(wave_window(), recipe)[0]
    found = [made[p, f % made.shape[1], t % made.shape[2]].item() for p, f, t in GOLDEN_POINTS]
    assert found == pytest.approx(values, rel=1e-4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (EegRecipe(), EegRecipe(window_samples=128, hop_samples=39)),
        (EegRecipe(kind="multitaper"), EegRecipe(kind="multitaper", window_samples=800)),
        (EegRecipe(kind="stft"), EegRecipe(kind="stft", window_samples=400, hop_samples=40)),
        (EegRecipe(centre_s=10), EegRecipe(centre_s=10.001)),
        (EegRecipe(clip_uv=1024), EegRecipe(clip_uv=1024.0)),
        (RawRecipe(), RawRecipe(band_hz=(0.5, 20), scale_uv=32)),
    ],
)
def test_equal_recipes_have_equal_descriptions(one: SignalRecipe, other: SignalRecipe) -> None:
    assert recipe_description(one) == recipe_description(other)
    assert recipe_description(one)["version"] == 1


FRAMES = {"used_samples": 10_000, "gaps": "mean", "band": None, "clip_uv": None, "version": 1}
MELS = {"window_samples": 128, "hop_samples": 39, "n_frames": 256, "n_fft": 1024, "n_mels": 128}
DENSITY = {"n_fft": 1024, "first_bin": 3, "n_frequencies": 100, "log_low": -4.0, "log_high": 8.0}


@pytest.mark.parametrize(
    ("recipe", "numbers"),
    [
        (EegRecipe(), FRAMES | MELS | {"highest_hz": 20.0, "amin": 1e-10, "top_db": 80.0}),
        (
            EegRecipe(kind="mel_fixed"),
            FRAMES | MELS | {"highest_hz": 20.0, "scale_db": 10.0, "floor_db": -60.0},
        ),
        (
            EegRecipe(kind="multitaper"),
            {
                **FRAMES,
                **DENSITY,
                "window_samples": 800,
                "hop_samples": 400,
                "n_frames": 24,
                "decimals": 2,
                "time_bandwidth": 2.0,
                "n_tapers": 3,
                "highpass_hz": 0.5,
                "highpass_order": 4,
            },
        ),
        (
            EegRecipe(kind="stft"),
            FRAMES | DENSITY | {"window_samples": 400, "hop_samples": 40, "n_frames": 241},
        ),
        (
            RawRecipe(),
            {
                "version": 1,
                "gaps": "mean",
                "band": {"low_hz": 0.5, "high_hz": 20.0, "order": 4},
                "clip_uv": 1024.0,
                "rate_hz": 100,
                "scale_uv": 32.0,
                "n_samples": 5_000,
            },
        ),
    ],
    ids=str,
)
def test_descriptions_are_golden(recipe: SignalRecipe, numbers: dict[str, object]) -> None:
    found = recipe_description(recipe)
    pairs = found.pop("pairs")
    assert found.pop("recipe") == getattr(recipe, "kind", "raw")
    assert found == numbers
    assert len(pairs) == (18 if isinstance(recipe, RawRecipe) else 16)


def test_every_field_of_a_recipe_is_described() -> None:
    recipes: list[SignalRecipe] = [
        *(EegRecipe(kind=kind) for kind in ("mel", "mel_fixed", "multitaper", "stft")),
        *(EegRecipe(gaps=gaps) for gaps in ("interpolate", "zero")),
        EegRecipe(centre_s=10),
        EegRecipe(window_samples=200),
        EegRecipe(hop_samples=20),
        EegRecipe(clip_uv=1024),
        *(EegRecipe(band_hz=band) for band in ((0.5, 20), (0.5, 30), (1, 20))),
        RawRecipe(),
        RawRecipe(rate_hz=50),
        RawRecipe(centre_s=10),
        RawRecipe(clip_uv=500),
        RawRecipe(scale_uv=10),
        RawRecipe(midline=False),
        RawRecipe(gaps="zero"),
        RawRecipe(band_hz=None),
    ]
    assert len({digest(recipe_description(recipe)) for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        assert json.loads(json.dumps(recipe_description(recipe))) == recipe_description(recipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centre_s": 0.5}, "centre_s must hold a frame of 128 samples, at least 0.64 s"),
        ({"kind": "multitaper", "centre_s": 3.9}, "a frame of 800 samples, at least 4 s"),
        ({"kind": "stft", "centre_s": 1}, "a frame of 400 samples, at least 2 s"),
        ({"centre_s": 1.2}, r"centre_s must be at least 1\.28 s for 256 frames"),
        ({"window_samples": 1025}, "window_samples must be at most 1024 for mel"),
        ({"centre_s": 10, "hop_samples": 2001}, "hop_samples must not be longer than centre_s"),
        ({"kind": "stft", "window_samples": 2048, "centre_s": 10}, "a frame of 2048 samples"),
    ],
)
def test_frames_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EegRecipe.model_validate(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rate_hz": 33, "centre_s": 0.5},
            r"a whole number of samples at 33 Hz, got 16\.5",
        ),
        (
            {"rate_hz": 100, "centre_s": 0.0001},
            r"a whole number of samples at 100 Hz, got 0\.01",
        ),
    ],
)
def test_parts_of_samples_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RawRecipe.model_validate(options)
