"""A GPU without a GPU: torch's fake tensors, and a guard over what the host may do.

Fake tensors have shapes, dtypes and a device, but no values: an operation that needs a value on
the host (``.item()``, ``nonzero``, a boolean index) fails as it is called, and so does one that
mixes devices. The guard adds what torch allows but what makes the host wait for a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hms_ray.transforms import normalise

GPU = torch.device("cuda", 0)
aten = torch.ops.aten
COPIES = {aten._to_copy, aten.to}
PREPARES_A_COPY = {*COPIES, aten.lift_fresh, aten.detach}
"""What may be done to a tensor on the CPU: an array becomes one, and its dtype changes."""


class OnlyOnDevice(TorchDispatchMode):
    """Refuses operations on or to the CPU; and copies from ordinary memory, which wait."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func.namespace == "prim":
            return made
        packet = func.overloadpacket
        came = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        went = {x.device.type for x in tree_leaves(made) if isinstance(x, Tensor)}
        if "cpu" in went:
            assert packet in PREPARES_A_COPY, f"{func}: a tensor made on the CPU"
            assert came <= {"cpu"}, f"{func}: a tensor copied to the CPU"
        elif "cpu" in came:
            assert packet in COPIES, f"{func}: a CPU tensor in device work"
            assert kwargs.get("non_blocking"), f"{func}: a copy for which the host waits"
            assert getattr(args[0], "pinned_here", False), f"{func}: a copy from ordinary memory"
        return made


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Tensors are fake, and those made for ``GPU`` are CUDA tensors.

    Nothing may require gradients: the graph of autograd asks for a CUDA stream, and a machine
    without a driver aborts.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "pin_memory", _pinned)
        # Constants on the device are kept between calls, and fake ones must not be.
        normalise._columns.cache_clear()
        try:
            with FakeTensorMode(allow_non_fake_inputs=False), torch.no_grad():
                yield
        finally:
            normalise._columns.cache_clear()


def _pinned(tensor: Tensor) -> Tensor:
    copy = tensor.detach()
    copy.pinned_here = True  # type: ignore[attr-defined]
    return copy


def fake_model(model: nn.Module) -> nn.Module:
    """Replaces the weights of a model by fake ones on ``GPU``, in place."""
    for module in model.modules():
        for group, made in ((module._parameters, nn.Parameter), (module._buffers, Tensor.detach)):
            for name, value in list(group.items()):
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype, device=GPU)
                    group[name] = made(fake)
    return model


def gradients_of(model: nn.Module) -> Any:
    """A stand-in for ``Tensor.backward``: every parameter gets a gradient."""

    def backward(loss: Tensor) -> None:
        assert loss.device == GPU
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)

    return backward
