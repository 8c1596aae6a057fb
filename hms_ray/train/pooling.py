"""Pooling of a model's last feature map, by name."""

from __future__ import annotations

from typing import Final

import torch
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from hms_ray.config.branches import Pooling
from hms_ray.errors import ModelError

GEM_START: Final = 3.0
"""Exponent at the start of training (Radenović et al., 2018, and the published recipe)."""
_SMALLEST: Final = 1e-6


class GeneralisedMean(nn.Module):
    """GeM: ``mean(x ** p) ** (1 / p)`` over the map, with one trained exponent p.

    Radenović et al., "Fine-tuning CNN image retrieval with no human annotation", 2018. p = 1 is
    the mean, a large p the maximum; values below 1e-6 are raised to it.

    Args:
        dim: axes of height and width.
        keepdim: keep them, with length 1.
    """

    def __init__(self, dim: tuple[int, ...], *, keepdim: bool) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([GEM_START]))
        self._dim, self._keepdim = dim, keepdim

    def forward(self, x: Tensor) -> Tensor:
        """Pools (B, C, H, W) or (B, H, W, C)."""
        # Powers of 16-bit numbers would overflow; float64 stays.
        wide = x.to(torch.promote_types(x.dtype, self.p.dtype)).clamp(min=_SMALLEST)
        pooled: Tensor = wide.pow(self.p).mean(self._dim, keepdim=self._keepdim).pow(1 / self.p)
        return pooled


def set_pooling(model: nn.Module, pooling: Pooling, name: str) -> None:
    """Replaces the pooling of a timm model, in place; weights of other layers keep their names.

    Args:
        model: see above.
        pooling: ``own`` changes nothing.
        name: of the model, for the message.

    Raises:
        ModelError: if the model does not pool one map in timm's selectable layer, such as a
            vision transformer.
    """
    if pooling == "own":
        return
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, SelectAdaptivePool2d) and not layer.is_identity()
    ]
    if len(layers) != 1:
        raise ModelError(
            "model.pooling needs a model that pools one feature map",
            got=f"{len(layers)} poolings" if layers else "none",
            where=name,
            fix="Set model.pooling: own, or use a convolutional model.",
        )
    (layer,) = layers
    # timm's fast poolings know their axes; the others are of channels first.
    dim = tuple(getattr(layer.pool, "dim", (2, 3)))
    flat = isinstance(layer.flatten, nn.Flatten) or bool(getattr(layer.pool, "flatten", False))
    layer.flatten = nn.Identity()
    if pooling == "gem":
        layer.pool = GeneralisedMean(dim, keepdim=not flat)
        return
    form = "NCHW" if dim == (2, 3) else "NHWC"
    layer.pool = SelectAdaptivePool2d(pool_type=f"fast{pooling}", flatten=flat, input_fmt=form).pool
