"""One error for a device whose memory is full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from hms_ray.errors import DeviceMemoryError, one_line

TRAINING_FIX: Final = (
    "Use a smaller training.batch_size; keep recordings off the device (resources.windows: "
    "streamed); or train fewer folds on it at once (a larger resources.gpus_per_worker, or fewer "
    "resources.max_concurrent_trials)."
)

_FULL: Final = re.compile(r"out of memory|_ALLOC_FAILED")
"""What CUDA, and the libraries that allocate for themselves, write if memory is full."""
_REQUESTED: Final = re.compile(r"Tried to allocate ([\d.]+ \w+)")


@contextmanager
def device_memory(where: str, fix: str = TRAINING_FIX) -> Iterator[None]:
    """Translates the errors of a full device; the original one is the cause.

    Args:
        where: fold and stage, or model.
        fix: what can be done.

    Raises:
        DeviceMemoryError: if the block runs out of the device's memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not _FULL.search(str(error)):
            raise
        requested = _REQUESTED.search(str(error))
        raise DeviceMemoryError(
            "a fold must fit into the memory of its device",
            got=f"a request for {requested[1]} more" if requested else one_line(error),
            where=where,
            fix=fix,
        ) from error
