"""Spectrograms per electrode pair by librosa and SciPy, independent of the package's own."""

from typing import Any

import librosa
import numpy as np
import scipy.signal

from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.pair_recipes import PairsRecipe

CHAINS = [
    "Fp1-F7",
    "F7-T3",
    "T3-T5",
    "T5-O1",
    "Fp2-F8",
    "F8-T4",
    "T4-T6",
    "T6-O2",
    "Fp1-F3",
    "F3-C3",
    "C3-P3",
    "P3-O1",
    "Fp2-F4",
    "F4-C4",
    "C4-P4",
    "P4-O2",
]
INTERLEAVED = [
    "Fp1-F7",
    "Fp2-F8",
    "F7-T3",
    "F8-T4",
    "T3-T5",
    "T4-T6",
    "T5-O1",
    "T6-O2",
    "Fp1-F3",
    "Fp2-F4",
    "F3-C3",
    "F4-C4",
    "C3-P3",
    "C4-P4",
    "P3-O1",
    "P4-O2",
]
MIDLINE = ["Fz-Cz", "Cz-Pz"]


def pair_names(recipe: PairsRecipe) -> list[str]:
    if not isinstance(recipe.order, str):
        return list(recipe.order)
    named = CHAINS if recipe.order == "chains" else INTERLEAVED
    return named + (MIDLINE if recipe.midline else [])


def pair_signals(eeg: np.ndarray, recipe: PairsRecipe) -> np.ndarray:
    """(P, n) of the middle ``centre_s`` of an EEG (10000, 20) without gaps and filters."""
    columns = [[ELECTRODES.index(name) for name in pair.split("-")] for pair in pair_names(recipe)]
    n = round(200 * recipe.centre_s)
    first = (10_000 - n) // 2
    used = eeg[first : first + n]
    return np.stack([used[:, a] - used[:, c] for a, c in columns]) / recipe.scale_uv


def by_library(eeg: np.ndarray, recipe: PairsRecipe) -> np.ndarray:
    """(P, F, T) of an EEG (10000, 20); in the precision of ``eeg``."""
    signals = pair_signals(eeg, recipe)
    power = mel_power(signals, recipe) if recipe.kind == "mel" else density(signals, recipe)
    skipped = (power.shape[-1] - (recipe.n_frames or power.shape[-1])) // 2
    power = power[..., skipped : power.shape[-1] - skipped][..., : recipe.n_frames]
    power = power / recipe.reference_power
    scale = recipe.scale or {"mel": "db", "stft": "log1p"}[recipe.kind]
    if scale == "log1p":
        values = np.log1p(power)
    elif scale == "db":
        values = librosa.power_to_db(power, ref=1.0, amin=recipe.smallest_power, top_db=None)
    else:
        values = np.log(np.maximum(power, recipe.smallest_power))
    if recipe.clip_values is not None:
        values = np.clip(values, *recipe.clip_values)
    return (values - recipe.subtract) / recipe.divide


def mel_power(signals: np.ndarray, recipe: PairsRecipe) -> np.ndarray:
    window = recipe.window_samples or 128
    as_torchaudio: dict[str, Any] = {"htk": True, "norm": None, "pad_mode": "reflect"}
    low, high = recipe.frequencies_hz or (0.53, 30)
    return librosa.feature.melspectrogram(
        y=signals,
        sr=200,
        n_fft=recipe.n_fft or max(512, window),
        hop_length=recipe.hop_samples or 32,
        win_length=window,
        n_mels=recipe.n_mels,
        fmin=low,
        fmax=high,
        **(as_torchaudio if recipe.mels == "torchaudio" else {}),
    )


def density(signals: np.ndarray, recipe: PairsRecipe) -> np.ndarray:
    window, hop = recipe.window_samples or 270, recipe.hop_samples or 19
    hertz, _, power = scipy.signal.spectrogram(
        signals, 200, nperseg=window, noverlap=window - hop, nfft=recipe.n_fft
    )
    low, high = recipe.frequencies_hz or (0.5, 20)
    return power[:, (hertz >= low) & (hertz <= high)]
