"""``torch.compile`` for the forward and backward pass of training.

Evaluations use the model as it is. They are a small part of the work and would compile a second
time: a ResNet on one core took 27 s for 17% more images per second (measured). So scores are
those of ``submit``, which compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hms_ray.config.training import Compile
from hms_ray.errors import TrainingError
from hms_ray.train.joined_encoders import JoinedEncoders
from hms_ray.train.model_images import ModelImages, as_tuple, for_model
from hms_ray.train.pretrained import first_line
from hms_ray.train.process import Process
from hms_ray.train.score import Precision, autocast, storage_dtype

BACKEND: str | Callable[..., Any] = "inductor"


@contextmanager
def compiling(mode: Compile, model: str) -> Iterator[None]:
    """Empties the compiler after a fold, and translates its errors.

    Args:
        mode: ``training.compile``; nothing is done for ``off``.
        model: name of the model, for the error.

    Raises:
        TrainingError: if the block's model cannot be compiled.
    """
    if mode == "off":
        yield
        return
    # Imported late, because it takes seconds.
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        # What a backend raised; the outer text is general advice.
        cause = getattr(error, "inner_exception", error)
        raise TrainingError(
            f"the model must compile (training.compile: {mode})",
            got=f"{type(cause).__name__}: {first_line(cause)}",
            where=model,
            fix="Set training.compile: off. On a CPU the compiler needs g++, on a GPU Triton and "
            "a C compiler.",
        ) from error
    finally:
        # CUDA graphs would keep their memory. What was compiled for a fold must not decide how
        # the next one is compiled, and after eight variants torch would stop compiling.
        torch.compiler.reset()


def compiled(model: nn.Module, mode: Compile, *, deterministic: bool) -> nn.Module:
    """The network to train; the model itself is not changed and keeps its names.

    DDP wraps the result: torch recommends to compile inside of DDP, divides the compiled
    backward pass by DDP's buckets, and compiles nothing again for a new DDP around it.

    Args:
        model: on its device.
        mode: ``training.compile``; for ``off`` the model itself is returned.
        deterministic: compile without choices that depend on timings.
    """
    return model if mode == "off" else _Compiled(model, mode, deterministic)


def compile_now(
    network: nn.Module,
    model: nn.Module,
    shapes: Sequence[tuple[int, int, int, int]],
    process: Process,
    precision: Precision,
) -> None:
    """Compiles a network by a step whose result is dropped; weights and buffers stay.

    The compiler takes its decisions for the first batch that it sees. If that were the first
    one trained, a fold that is resumed with a smaller batch could have other bits.

    Args:
        network: of ``compiled``.
        model: the network's model, in training mode.
        shapes: (B, C, H, W) of this rank's largest batch; with branches, of each image.
        process: wraps the network.
        precision: of the forward pass.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    options: Any = {"dtype": storage_dtype(precision), "device": process.device}
    images = for_model(
        (torch.zeros(shape, **options) for shape in shapes),
        branched=isinstance(model, JoinedEncoders),
    )
    with autocast(precision, process.device):
        logits = process.wrap(network)(images)
    logits.float().sum().backward()
    for buffer, value in before:
        buffer.copy_(value)


class _Compiled(nn.Module):
    """Calls the compiled form of a model for images of any batch size."""

    def __init__(self, model: nn.Module, mode: Compile, deterministic: bool) -> None:
        super().__init__()
        self.model, self._graphs = model, mode == "reduce-overhead"
        options = _options(mode, deterministic)
        # In a list, because a module in an attribute would be registered a second time.
        self._called = [torch.compile(model, backend=BACKEND, options=options)]

    def forward(self, images: ModelImages) -> Tensor:
        """(B, C, H, W) images to (B, 6) logits."""
        for image in as_tuple(images):
            # Batches of an epoch differ by one row.
            torch._dynamo.maybe_mark_dynamic(image, 0)
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits: Tensor = self._called[0](images)
        return logits


def _options(mode: Compile, deterministic: bool) -> dict[str, Any] | None:
    if BACKEND != "inductor":
        return None
    from torch import _inductor

    options = {} if mode == "default" else dict(_inductor.list_mode_options(mode))
    return options | {"deterministic": deterministic}
