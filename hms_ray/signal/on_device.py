"""NumPy arrays to tensors on a device, without making the host wait for it."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(
    values: NDArray[Any], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """Copies an array to a device.

    A GPU's copy from ordinary memory waits for all work that is queued on the GPU; one from
    pinned memory is queued itself. torch does not reuse the pinned block before that copy ends.

    Args:
        values: of any shape; on a CPU the tensor shares its memory if the dtype stays.
        device: of the tensor.
        dtype: of the tensor, converted before the copy. Default: that of ``values``.
    """
    tensor = torch.from_numpy(values)
    if dtype is not None:
        tensor = tensor.to(dtype)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
