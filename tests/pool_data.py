"""Simulated votes of clustered patients, and models that see the truth through noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PoolData(NamedTuple):
    """Targets (n, 6), models (M, n, 6), patients (n,) and votes (n,)."""

    targets: np.ndarray
    models: np.ndarray
    patients: np.ndarray
    votes: np.ndarray


def softmax(scores: np.ndarray) -> np.ndarray:
    odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def pool_data(
    n_models: int = 5,
    n_patients: int = 40,
    seed: int = 0,
    sharpness: float = 1.0,
    alike: bool = False,
) -> PoolData:
    """``sharpness`` above 1 makes every model too sure of itself; ``alike``: equally good."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), generator.integers(2, 15, size=n_patients))
    n_rows = len(patients)
    truth = 1.5 * generator.normal(size=(n_patients, 6))[patients]
    truth = truth + generator.normal(size=(n_rows, 6))
    noise = generator.uniform(0.5, 1.5, size=(n_models, 1, 1))
    if alike:
        noise = np.ones_like(noise)
    seen = truth + noise * generator.normal(size=(n_models, n_rows, 6))
    votes = generator.choice([1, 3, 5, 12, 15], size=n_rows)
    drawn = generator.multinomial(votes, softmax(truth))
    return PoolData(drawn / votes[:, None], softmax(sharpness * seen), patients, votes)
