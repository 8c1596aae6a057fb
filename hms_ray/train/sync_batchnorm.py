"""Batch statistics of the whole group instead of each rank's own rows."""

from __future__ import annotations

from timm.layers import convert_sync_batchnorm
from torch import nn

from hms_ray.train.process import Process


def with_group_statistics(model: nn.Module, process: Process) -> nn.Module:
    """A model whose BatchNorm layers use the rows of all ranks (torch's ``SyncBatchNorm``).

    Parameters, buffers and their names stay, so weights fit the model as it was. A process
    alone has all rows already: its model is returned unchanged.

    Args:
        model: on the GPU of ``process``; may be changed in place.
        process: a rank of a group of GPUs, or alone.
    """
    if not process.grouped:
        return model
    # timm's own conversion keeps the activations that it has joined with BatchNorm.
    converted: nn.Module = convert_sync_batchnorm(model)
    return converted
