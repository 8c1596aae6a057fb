"""Models from elsewhere: built by a function that the user names, and checked before training."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from hms_ray.competition.schema import N_CLASSES
from hms_ray.config.experiment import ModelConfig
from hms_ray.config.import_path import INSTALL_FIX
from hms_ray.errors import ModelError, one_line
from hms_ray.text import shortened_list

_OPTIONAL: Final = ("drop_path", "dropout")
"""Values of the model that a function may accept."""
_SEEDS: Final = (0, 1)
_N_IMAGES: Final = 2
_WRONG_DEVICE: Final = ("same device", "expected device")
"""Texts of torch's errors about tensors on two devices."""


def build_imported(
    config: ModelConfig, image_size: tuple[int, int], n_channels: int = 1
) -> nn.Module:
    """Calls the function that ``config.name`` leads to.

    It gets those of ``image_size`` (height, width), ``channels``, ``n_classes``, ``drop_path`` and
    ``dropout`` that its signature accepts, by name. Its code runs in this process.

    Raises:
        ModelError: if the function cannot be imported or called, or returns no module from images
            to logits.
    """
    function = _imported(config.name)
    arguments = _arguments(function, config, image_size, n_channels)
    try:
        model = function(**arguments)
    except Exception as error:
        raise ModelError(
            "the function of model.name must build a model",
            got=one_line(error),
            where=f"{config.name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})",
            fix="Call it with these arguments in Python to see the whole error.",
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            "the function of model.name must return a torch.nn.Module",
            got=type(model).__name__,
            where=config.name,
            fix="Return the model itself.",
        )
    # Without inference mode, in which modules that make their weights late could not train.
    with torch.no_grad():
        images = torch.zeros(1, n_channels, *image_size)
        _logits(model.eval(), images, partial(_refusal, config.name))
    return model.train()


def _imported(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # Importing runs code, which can fail in any way.
        raise ModelError(
            "the module of model.name must be importable",
            got=one_line(error),
            where=name,
            fix=INSTALL_FIX,
        ) from error
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if function is None or not callable(function):
        raise ModelError(
            "model.name must lead to a function",
            got=f"no {function_name}" if function is None else type(function).__name__,
            where=name,
            fix=f"Define {function_name} in {module.__file__ or module_name}.",
        )
    return function


def _arguments(
    function: Callable[..., Any],
    config: ModelConfig,
    image_size: tuple[int, int],
    n_channels: int,
) -> dict[str, Any]:
    """What the function is called with."""
    given: dict[str, Any] = {
        "image_size": image_size,
        "channels": n_channels,
        "n_classes": N_CLASSES,
        **{name: getattr(config, name) for name in _OPTIONAL},
    }
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return given
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    accepted = {one.name for one in parameters if one.kind in named} & given.keys()
    foreign = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind is not one.VAR_POSITIONAL
        if one.name not in accepted
    ]
    if foreign:
        raise ModelError(
            f"the function of model.name may require only {', '.join(given)}",
            got=shortened_list(foreign),
            where=config.name,
            fix="Give its other parameters defaults.",
        )
    for name in _OPTIONAL:
        if name not in accepted and given[name] != ModelConfig.model_fields[name].default:
            raise ModelError(
                f"model.{name} needs a function that accepts it",
                got=given[name],
                where=config.name,
                fix=f"Add the parameter {name} to the function, or omit model.{name}.",
            )
    return {name: value for name, value in given.items() if name in accepted}


def check_imported(
    build: Callable[[], nn.Module], name: str, shape: tuple[int, int, int], workers: int = 1
) -> None:
    """Checks a model from elsewhere as far as that is possible before the run.

    Its shape and its weights, that it can be trained, stored, loaded back and moved to another
    device, and that a seed decides it. torch's global generator is restored.

    Args:
        build: makes a new model from torch's global generator, see ``build_model``.
        name: of the model, for messages.
        shape: channels, height and width of the images.
        workers: of a group; with several, every trained parameter must be used.

    Raises:
        ModelError: with what does not hold.
    """
    with torch.random.fork_rng(devices=[]):
        model, again, other = (_seeded(build, seed) for seed in (_SEEDS[0], *_SEEDS))
        torch.manual_seed(_SEEDS[0])
        images = torch.randn(_N_IMAGES, *shape)
        refuse = partial(_refusal, name)
        _check_weights(model, again, refuse)
        _check_device(model, images, refuse)
        _check_gradients(model, images, workers, refuse)
        _check_loading(model, other, images, refuse)


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build()


_Refuse = Callable[[str, str, str], ModelError]


def _refusal(name: str, rule: str, got: str, fix: str) -> ModelError:
    return ModelError(f"a model from elsewhere must {rule}", got=got, where=name, fix=fix)


def _check_weights(model: nn.Module, again: nn.Module, refuse: _Refuse) -> None:
    """The state dict must be storable, and decided by the seed."""
    state, second = model.state_dict(), again.state_dict()
    if strange := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise refuse(
            "have a state dict of tensors",
            f"{type(state[strange[0]]).__name__} in {shortened_list(strange)}",
            "Register buffers instead of extra state.",
        )
    changed = [
        key
        for key in state.keys() | second.keys()
        if key not in state or key not in second or not _equal(state[key], second[key])
    ]
    if changed:
        raise refuse(
            "be the same for the same seed of torch",
            f"other values of {shortened_list(sorted(changed))}",
            "Draw initial weights from torch's global generator only.",
        )


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool((first == second).all())


def _check_device(model: nn.Module, images: Tensor, refuse: _Refuse) -> None:
    """All tensors must follow ``model.to``; tried on torch's device without values."""
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise refuse(
            "be copied by copy.deepcopy",
            one_line(error),
            "Keep only modules, tensors and plain data in it.",
        ) from None
    try:
        copied.to("meta").eval()(images.to("meta"))
    except Exception as error:
        # Other errors are those of values that do not exist there, such as in ``item()``.
        if any(text in str(error) for text in _WRONG_DEVICE):
            raise refuse(
                "follow its images to another device",
                one_line(error),
                "Register constant tensors with register_buffer, and make others with "
                "device=x.device.",
            ) from None


def _check_gradients(model: nn.Module, images: Tensor, workers: int, refuse: _Refuse) -> None:
    """Logits must be finite and train every parameter that they depend on."""
    model.train()
    logits = _logits(model, images, refuse)
    if logits.requires_grad:
        # Any target; its gradient reaches all logits.
        torch.log_softmax(logits.double(), dim=1)[:, 0].sum().neg().backward()  # type: ignore[no-untyped-call]
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    unused = [key for key, value in trained.items() if value.grad is None]
    if len(unused) == len(trained):
        raise refuse(
            "have trained parameters that its logits depend on",
            "none",
            "Compute the logits with gradients, without detach or no_grad.",
        )
    used = {key: value.grad for key, value in trained.items() if value.grad is not None}
    if broken := [key for key, value in used.items() if not value.isfinite().all()]:
        raise refuse(
            "have finite gradients",
            f"others in {shortened_list(broken)}",
            "Avoid logarithms, roots and divisions of zero.",
        )
    if unused and workers > 1:
        raise refuse(
            "use every trained parameter if several workers train it",
            f"unused {shortened_list(unused)}",
            "Remove them, call requires_grad_(False) on them, or set resources.workers: 1.",
        )
    model.zero_grad(set_to_none=True)


def _check_loading(model: nn.Module, other: nn.Module, images: Tensor, refuse: _Refuse) -> None:
    """The state dict must be all that its predictions depend on."""
    try:
        other.load_state_dict(model.state_dict())
    except (RuntimeError, KeyError) as error:
        raise refuse(
            "load the state dict of another one that was built alike",
            one_line(error),
            "Build the same layers in each call, and give each tensor one name.",
        ) from None
    with torch.inference_mode():
        first, second = (_logits(model.eval(), images, refuse) for _ in range(2))
        loaded = _logits(other.eval(), images, refuse)
    if not _equal(first, second):
        raise refuse(
            "be deterministic in evaluation mode",
            "other logits in a second pass",
            "Use nn.Dropout, or test self.training before random operations.",
        )
    if not _equal(first, loaded):
        raise refuse(
            "predict from its state dict alone",
            "other logits after it was loaded into a second model",
            "Register tensors that the logits depend on as parameters or buffers.",
        )


def _logits(model: nn.Module, images: Tensor, refuse: _Refuse) -> Tensor:
    try:
        logits = model(images)
    except Exception as error:
        size = " x ".join(map(str, images.shape[1:]))
        raise refuse(
            f"accept images of {size}", one_line(error), "Change the model or the input."
        ) from error
    shape = _shape(logits)
    if shape != (len(images), N_CLASSES):
        raise refuse(
            f"return (B, {N_CLASSES}) logits",
            f"{shape} for {len(images)} images",
            f"Return one tensor with {N_CLASSES} logits per image.",
        )
    if not logits.isfinite().all():
        raise refuse("return finite logits", "others", "Check its first weights.")
    assert isinstance(logits, Tensor)
    return logits


def _shape(logits: object) -> object:
    if isinstance(logits, Tensor):
        return tuple(logits.shape)
    if isinstance(logits, Iterable):
        parts = [type(one).__name__ for one in logits]
        return f"{type(logits).__name__} of {shortened_list(parts)}"
    return type(logits).__name__
