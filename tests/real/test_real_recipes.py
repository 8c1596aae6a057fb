"""EEG recipes on the real sample: librosa's values, and the competition's files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hms_ray.competition.read import read_eeg, read_spectrogram
from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.signal.spectrogram import (
    EEG_START_IN_SPECTROGRAM_S,
    LOG_HIGH,
    LOG_LOW,
    recording_spectrogram,
)
from hms_ray.signal.strip import make_strip
from hms_ray.signal.windows import make_windows
from tests.librosa_recipe import librosa_image
from tests.real.test_competition_spectrogram import MEDIAN_RESIDUAL, SMALLEST, pairs

pytestmark = pytest.mark.real


def window_starts(n_samples: int) -> list[int]:
    """First, middle and last window of 50 s."""
    spare = n_samples - 10_000
    return sorted({0, spare // 2, spare})


@pytest.mark.parametrize("centre_s", [50, 10])
def test_mel_equals_librosa_at_every_point(real_data: Path, centre_s: int) -> None:
    files = sorted((real_data / "competition").glob("*_eegs/*.parquet"))
    assert len(files) >= 4
    first = (10_000 - 200 * centre_s) // 2
    for file in files:
        eeg = read_eeg(file)
        eegs = np.stack([eeg[start : start + 10_000] for start in window_starts(len(eeg))])
        made = make_windows(torch.from_numpy(eegs), EegRecipe(centre_s=centre_s)).numpy()
        for image, window in zip(made, eegs, strict=True):
            expected = librosa_image(window[first : 10_000 - first])
            assert np.abs(image - expected).max() <= 1e-4, file.name


@pytest.mark.parametrize("kind", ["mel_fixed", "stft"])
def test_shifted_window_equals_the_window_cut_there(real_data: Path, kind: str) -> None:
    recipe = EegRecipe.model_validate({"kind": kind, "margin_s": 3})
    n_moved = 0
    for file in sorted((real_data / "competition").glob("train_eegs/*.parquet")):
        eeg = torch.from_numpy(read_eeg(file))
        for start in window_starts(len(eeg)):
            strip = make_strip(eeg, start, recipe)
            for by in {-strip.before, strip.after} - {0}:
                first = start + by * recipe.frame_hop
                (cut,) = make_windows(eeg[None, first : first + 10_000], recipe)
                moved = strip.values[..., strip.before + by :][..., 2 : recipe.n_frames - 2]
                torch.testing.assert_close(moved, cut[..., 2:-2], rtol=0, atol=1e-4)
                n_moved += 1
    assert n_moved >= 4


def test_multitaper_reproduces_the_competition_file(real_data: Path) -> None:
    for eeg_file, spectrogram_file, lead in pairs(real_data / "competition"):
        eeg = read_eeg(eeg_file)
        # A window on an odd second of the spectrogram's time, so that frames meet rows.
        start_s = int(lead + EEG_START_IN_SPECTROGRAM_S + 1) % 2
        start_s = start_s if len(eeg) >= 10_000 + 200 * start_s else 0
        window = torch.from_numpy(eeg[200 * start_s :][:10_000])[None]
        made = make_windows(window, EegRecipe(kind="multitaper"))[0].numpy()
        row = int((lead + EEG_START_IN_SPECTROGRAM_S + start_s + 1) // 2)
        stored = read_spectrogram(spectrogram_file)[row : row + 24].reshape(24, 4, 100)
        stored = np.log(np.clip(stored.astype(float), np.exp(LOG_LOW), np.exp(LOG_HIGH)))
        inner = slice(1, -1)
        made, stored = made[..., inner], stored.transpose(1, 2, 0)[..., inner]
        told = np.minimum(made, stored) > np.log(SMALLEST)
        assert told.mean() > 0.7, eeg_file.name
        residual = np.abs(made - stored)[told]
        assert np.median(residual) <= MEDIAN_RESIDUAL, eeg_file.name
        assert np.quantile(residual, 0.9) <= 0.2, eeg_file.name


def test_spectrogram_of_a_recording_matches_the_stored_one(real_data: Path) -> None:
    for eeg_file, spectrogram_file, lead in pairs(real_data / "competition"):
        begin_s = int(lead) + EEG_START_IN_SPECTROGRAM_S
        skip_s = begin_s % 2  # where rows of the two would lie a second apart
        made = recording_spectrogram(read_eeg(eeg_file)[200 * skip_s :])
        stored = read_spectrogram(spectrogram_file)[(begin_s + skip_s) // 2 :][: len(made)]
        told = (made > SMALLEST) & (stored > SMALLEST)
        residual = np.abs(np.log(made[told]) - np.log(stored[told]))
        assert np.median(residual) <= MEDIAN_RESIDUAL, eeg_file.name
