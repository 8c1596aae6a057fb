"""timm models for one-channel images and six classes, and their pretrained weights."""

from __future__ import annotations

import difflib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import timm
import torch
from torch import nn

from hms_ray.competition.schema import N_CLASSES
from hms_ray.config.experiment import ModelConfig
from hms_ray.errors import ModelError
from hms_ray.storage.hashing import file_sha256

HUB_TIMEOUT_S: Final = 5.0
"""Time that the hub has to answer a first request; its client would retry for 50 s."""

HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")
"""Names of weights files in timm's hub."""

OFFLINE_FIX: Final = (
    "Set model.weights_file to a local timm checkpoint of this model (download it on a machine "
    "that reaches the hub), or set model.pretrained: false."
)


def build_model(config: ModelConfig, image_size: tuple[int, int]) -> nn.Module:
    """Builds a timm model for training.

    Initial weights are drawn from torch's global generator. timm sums the first layer of
    pretrained weights over its three input channels.

    Args:
        config: name, weights and dropout.
        image_size: height and width of the images; models of a fixed input size are built
            for it.

    Returns:
        A module from (B, 1, H, W) to (B, 6) logits, float32, on the CPU.

    Raises:
        ModelError: if the name is unknown, ``drop_path`` is set for a model without
            stochastic depth, the model does not accept the image size, or pretrained weights
            are not available or do not fit.
    """
    pretrained = _pretrained_config(config.name)
    options: dict[str, Any] = {"in_chans": 1, "drop_rate": config.dropout}
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    if pretrained.fixed_input_size:
        options["img_size"] = image_size
    if config.weights_file is not None:
        overlay = _overlay(config, pretrained, Path(config.weights_file))
        # Built once with the file's number of classes: only then does timm require that the
        # file has every weight of the model.
        _create(config, {**options, "pretrained_cfg_overlay": overlay}, overlay["num_classes"])
        options["pretrained_cfg_overlay"] = overlay
    elif config.pretrained:
        _require_hub(config.name, pretrained)
    model = _create(config, options, N_CLASSES)
    _check_forward(model, config.name, image_size)
    return model


def weights_fingerprint(config: ModelConfig) -> str | None:
    """SHA-256 (hex) of ``weights_file``; None if it is not set.

    Raises:
        ModelError: if the file cannot be read.
    """
    if config.weights_file is None:
        return None
    try:
        status = os.stat(config.weights_file)
        return _cached_sha256(config.weights_file, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise _unreadable(config.weights_file, error.strerror) from None


@lru_cache(maxsize=64)
def _cached_sha256(path: str, size: int, mtime_ns: int) -> str:
    """Cached while size and time stay: a search needs it at every point of its space."""
    return file_sha256(path)


def _pretrained_config(name: str) -> Any:
    """Timm's ``PretrainedCfg`` of a model: input size, classes, location of weights."""
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise ModelError(
            "model.name must be a timm model",
            got=name,
            fix=f"Did you mean {', '.join(close)}?" if close else "See timm.list_models().",
        )
    try:
        pretrained = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [
            tag
            for tag in timm.list_pretrained(f"{architecture}*")
            if tag.split(".")[0] == architecture
        ]
        raise ModelError(
            f"model.name must have a tag of timm ({error})".replace(".)", ")"),
            got=name,
            fix=f"Use one of: {', '.join(tags)}." if tags else "Use the name without a tag.",
        ) from None
    return pretrained or timm.models.PretrainedCfg()


def _create(config: ModelConfig, options: dict[str, Any], n_classes: int) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(
            config.name, pretrained=config.pretrained, num_classes=n_classes, **options
        )
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise ModelError(
            "model.drop_path must be 0 for a model without stochastic depth",
            got=config.drop_path,
            where=config.name,
            fix="Set model.drop_path: 0.",
        ) from None
    except (AssertionError, ValueError) as error:
        raise _wrong_size(config.name, options.get("img_size"), error) from None
    except Exception as error:
        # Hub clients and file formats each have exceptions of their own.
        if config.weights_file is not None:
            raise _unfit(config, _first_line(error)) from error
        if config.pretrained:
            raise _hub_failed(config.name, _first_line(error)) from error
        raise
    return model


def _overlay(config: ModelConfig, pretrained: Any, file: Path) -> dict[str, Any]:
    """Overrides of timm's ``PretrainedCfg`` for a local file: its path and classes."""
    if not file.is_file():
        raise _unreadable(file, "no such file")
    if pretrained.custom_load:
        return {"file": str(file), "num_classes": pretrained.num_classes}
    try:
        state = timm.models.load_state_dict(str(file), device="cpu")
    except Exception as error:
        # Every file format that timm reads has exceptions of its own.
        raise _unreadable(file, _first_line(error)) from None
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise _unfit(config, "a file without a state dict")
    layer = pretrained.classifier
    layer = layer[0] if isinstance(layer, (list, tuple)) else layer
    weight = state.get(f"{layer}.weight")
    return {"file": str(file), "num_classes": 0 if weight is None else weight.shape[0]}


def _require_hub(name: str, pretrained: Any) -> None:
    """Fails within seconds if weights are neither cached nor available online."""
    if pretrained.hf_hub_id is None:
        return
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    files = [pretrained.hf_hub_filename] if pretrained.hf_hub_filename else HUB_FILES
    if any(isinstance(try_to_load_from_cache(pretrained.hf_hub_id, file), str) for file in files):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:
        # The classes of exceptions depend on the client's version.
        reason = f"no answer from {constants.ENDPOINT} ({_first_line(error)})"
        raise _hub_failed(name, reason) from None


def _check_forward(model: nn.Module, name: str, image_size: tuple[int, int]) -> None:
    model.eval()
    try:
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(1, 1, *image_size)).shape)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise _wrong_size(name, image_size, error) from None
    if shape != (1, N_CLASSES):
        raise ModelError(
            f"a model must return {N_CLASSES} logits per image", got=str(shape), where=name
        )
    model.train()


def _wrong_size(name: str, size: tuple[int, int] | None, error: BaseException) -> ModelError:
    return ModelError(
        f"the model must accept images of {size[0]} x {size[1]}" if size else "timm must build it",
        got=_first_line(error),
        where=name,
        fix="Set input.size to a size that the model accepts.",
    )


def _hub_failed(name: str, reason: str) -> ModelError:
    return ModelError(
        "pretrained weights must be available from timm's hub",
        got=reason,
        where=name,
        fix=OFFLINE_FIX,
    )


def _unreadable(file: object, reason: str | None) -> ModelError:
    return ModelError("model.weights_file must be a readable file", got=reason, where=file)


def _unfit(config: ModelConfig, reason: str) -> ModelError:
    return ModelError(
        f"model.weights_file must contain weights of {config.name}",
        got=reason,
        where=config.weights_file,
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
