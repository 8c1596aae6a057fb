"""Log power density of tapered frames: the recipes ``multitaper`` and ``stft``.

Both use the frequencies of the competition's files (bins 3-102 of 1,024 points), their unit
(microvolts squared per hertz, one-sided and not doubled) and the clip of packed files.
``multitaper`` is ``spectrogram.competition_spectrogram`` for any window length: three Slepian
tapers after a high-pass, rounded to 0.01. ``stft`` has one Hann taper and subtracts the mean
of each frame, as ``scipy.signal.spectrogram`` does.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hms_ray.competition.schema import EEG_RATE_HZ, N_FREQUENCIES
from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.signal.montage import PAIRS_PER_CHAIN
from hms_ray.signal.spectrogram import (
    DECIMALS,
    FIRST_BIN,
    LOG_HIGH,
    LOG_LOW,
    N_FFT,
    N_TAPERS,
    TIME_BANDWIDTH,
)


def log_density_images(signals: Tensor, recipe: EegRecipe, n_frames: int) -> Tensor:
    """Natural log of the mean power density over tapers and the four signals of each chain.

    Args:
        signals: float32 (B, 4 P, n), microvolts, four signals per panel.
        recipe: of kind ``multitaper`` or ``stft``; samples not covered by frames are cut
            equally from both ends.
        n_frames: T, at most the number of frames that fit in n.

    Returns:
        float32 (B, P, 100, T), lowest frequency first, -4 to 8.
    """
    batch, n_signals, n = signals.shape
    window, hop = recipe.frame_samples, recipe.frame_hop
    basis = _basis(recipe.kind, window, str(signals.device))
    first = (n - window - (n_frames - 1) * hop) // 2
    flat = signals.reshape(-1, n)[:, first:]
    frames = flat.unfold(-1, window, hop)[:, :n_frames].transpose(1, 2)
    squared = torch.matmul(basis, frames).square_()
    panels = batch * n_signals // PAIRS_PER_CHAIN
    shape = (panels, PAIRS_PER_CHAIN, len(basis) // N_FREQUENCIES, N_FREQUENCIES, n_frames)
    density = squared.view(shape).sum((1, 2)).div_(PAIRS_PER_CHAIN)
    if recipe.kind == "multitaper":
        density = density.round(decimals=DECIMALS)
    low, high = float(np.exp(LOG_LOW)), float(np.exp(LOG_HIGH))
    return density.clamp_(low, high).log_().view(batch, -1, N_FREQUENCIES, n_frames)


@lru_cache(maxsize=16)
def _basis(kind: str, window: int, device: str) -> Tensor:
    """Float32 (2 x tapers x 100, window); squared products with a frame sum to its density.

    Rows are tapered cosines and sines, ordered by taper, function and frequency.
    """
    # Imported late: it takes most of a second, and other recipes do not need it.
    from scipy.signal.windows import dpss, hann

    if kind == "multitaper":
        tapers = dpss(window, TIME_BANDWIDTH, N_TAPERS)
    else:
        tapers = hann(window, sym=False)[None]
    tapers = tapers / np.linalg.norm(tapers, axis=1, keepdims=True)
    bins = np.arange(FIRST_BIN, FIRST_BIN + N_FREQUENCIES)
    angle = 2 * np.pi * np.outer(bins, np.arange(window) - (window - 1) / 2) / N_FFT
    waves = np.stack([np.cos(angle), np.sin(angle)])
    basis = (tapers[:, None, None] * waves).reshape(-1, window)
    if kind == "stft":
        # Products with zero-mean rows equal products with zero-mean frames.
        basis -= basis.mean(axis=1, keepdims=True)
    basis /= np.sqrt(EEG_RATE_HZ * len(tapers))
    return torch.from_numpy(basis.astype(np.float32)).to(device)
