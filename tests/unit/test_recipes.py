"""Recipes of EEG windows: what they promise and what they make."""

import subprocess
import sys

import pytest
import torch

from hms_ray.config import EegRecipe, RawRecipe
from hms_ray.signal.recipes import Layout, layout_of, make_windows


def eeg(n_windows: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_windows, 10_000, 20, generator=generator) * 30


@pytest.mark.parametrize(
    ("recipe", "layout"),
    [
        (EegRecipe(), Layout(("LL", "LP", "RL", "RP"), 128, 256, 0.195)),
        (EegRecipe(centre_s=10), Layout(("LL", "LP", "RL", "RP"), 128, 256, 0.035)),
        (
            EegRecipe(kind="mel_fixed", hop_samples=50),
            Layout(("LL", "LP", "RL", "RP"), 128, 200, 0.25),
        ),
        (EegRecipe(kind="multitaper"), Layout(("LL", "RL", "LP", "RP"), 100, 24, 2.0)),
        (EegRecipe(kind="stft"), Layout(("LL", "RL", "LP", "RP"), 100, 241, 0.2)),
    ],
    ids=str,
)
def test_layout(recipe: EegRecipe, layout: Layout) -> None:
    assert layout_of(recipe) == layout


def test_layout_of_signals_names_their_pairs() -> None:
    layout = layout_of(RawRecipe())
    assert (layout.n_frequencies, layout.n_times, layout.step_s) == (1, 5_000, 0.01)
    assert layout.panels[:5] == ("Fp1-F7", "F7-T3", "T3-T5", "T5-O1", "Fp2-F8")
    assert layout.panels[16:] == ("Fz-Cz", "Cz-Pz")
    assert len(layout_of(RawRecipe(midline=False)).panels) == 16


def test_layouts_need_no_torch() -> None:
    program = "import sys, hms_ray.signal.recipes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_mel_has_its_layout() -> None:
    made = make_windows(eeg(2), EegRecipe())
    assert made.shape == (2, 4, 128, 256)
    assert made.dtype == torch.float32
    assert bool(made.isfinite().all())
