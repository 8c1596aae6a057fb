"""Seeds: every random draw of a fold derives from (seed, fold, stage, epoch)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

from hms_ray.augment.draws import Augmentation

Purpose = (
    Literal["model", "order", "label row", "shift", "dropout", "second dropout"] | Augmentation
)


def seed_sequence(
    seed: int, fold: int, stage: int, epoch: int, purpose: Purpose, rank: int = 0
) -> np.random.SeedSequence:
    """The seed sequence of all draws for one purpose in one epoch.

    Args:
        seed: ``training.seed``, any integer.
        fold: validation fold.
        stage: index of the stage, from 0.
        epoch: index of the epoch within its stage, from 0.
        purpose: what is drawn; purposes are independent of each other.
        rank: for draws that must differ between ranks; 0 for draws that must agree.
    """
    name = zlib.crc32(purpose.encode())
    # Modulo 2^64, because a SeedSequence refuses negative integers.
    return np.random.SeedSequence(seed % 2**64, spawn_key=(fold, stage, epoch, name, rank))


def derive_seed(
    seed: int, fold: int, stage: int, epoch: int, purpose: Purpose, rank: int = 0
) -> int:
    """A seed for torch, from 0 to 2^63 - 1; for arguments see ``seed_sequence``."""
    state = seed_sequence(seed, fold, stage, epoch, purpose, rank).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


@contextmanager
def own_torch_generator(device: torch.device) -> Iterator[None]:
    """Restores the state of torch's global generators on exit.

    timm's layers draw initial weights and dropout from them, so they are seeded inside.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
