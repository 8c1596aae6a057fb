"""Seeds: every draw of a fold derives from (seed, fold, stage, epoch)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

from hms_ray.augment.draws import Kind

Purpose = Literal["model", "order", "dropout"] | Kind


def seed_sequence(
    seed: int, fold: int, stage: int, epoch: int, purpose: Purpose, rank: int = 0
) -> np.random.SeedSequence:
    """The source of all draws of one purpose in one epoch.

    Args:
        seed: ``training.seed``, any whole number.
        fold: validation fold.
        stage: number of the stage, from 0.
        epoch: number of the epoch within its stage, from 0.
        purpose: what is drawn; purposes are independent of each other.
        rank: where ranks must differ; 0 where they must agree.
    """
    name = zlib.crc32(purpose.encode())
    # Seeds are taken modulo 2^64, since a SeedSequence takes none below 0.
    return np.random.SeedSequence(seed % 2**64, spawn_key=(fold, stage, epoch, name, rank))


def derive_seed(
    seed: int, fold: int, stage: int, epoch: int, purpose: Purpose, rank: int = 0
) -> int:
    """A seed for torch, from 0 to 2^63 - 1; arguments as in ``seed_sequence``."""
    state = seed_sequence(seed, fold, stage, epoch, purpose, rank).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


@contextmanager
def own_torch_generator(device: torch.device) -> Iterator[None]:
    """Gives torch's global generators back as they were.

    timm's layers draw initial weights and dropout from them, so they are seeded
    within; nothing outside notices.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
