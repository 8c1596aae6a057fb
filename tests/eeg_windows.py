"""EEG windows for tests: noise, and a fixed mixture of waves without any generator."""

import numpy as np
import torch


def noise_windows(n_windows: int = 1, seed: int = 0, scale: float = 30.0) -> torch.Tensor:
    """Float32 (n_windows, 10000, 20) white noise, microvolts."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_windows, 10_000, 20, generator=generator) * scale


def wave_window() -> torch.Tensor:
    """Float32 (1, 10000, 20): three waves an electrode, an offset and a slow drift."""
    time, electrode = np.arange(10_000)[:, None] / 200, np.arange(20)
    waves = 40 * np.sin(2 * np.pi * (1 + 0.4 * electrode) * time + electrode)
    waves += 15 * np.sin(2 * np.pi * (11 + 0.3 * electrode) * time + 2 * electrode)
    waves *= 1 + 0.5 * np.sin(2 * np.pi * 0.07 * (1 + electrode) * time)
    offset = 300 * np.cos(electrode) + 50 * np.sin(2 * np.pi * 0.02 * time * (1 + electrode))
    return torch.from_numpy((waves + offset)[None].astype(np.float32))
