"""Models of timm, or from elsewhere, for images of one or three channels and six classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from hms_ray.config.branches import Branches
from hms_ray.config.experiment import ModelConfig
from hms_ray.config.import_path import is_import_path
from hms_ray.errors import ModelError
from hms_ray.train.heads import n_outputs, score_by_experts
from hms_ray.train.imported_model import build_imported
from hms_ray.train.joined_encoders import JoinedEncoders
from hms_ray.train.model_images import ImageSizes, each_size
from hms_ray.train.pooling import set_pooling
from hms_ray.train.pretrained import (
    first_line,
    given_file,
    hub_failed,
    pretrained_config,
    pretrained_weights,
    unreadable_weights,
)
from hms_ray.train.weights_misfit import misfit, unpickled


def build_model(config: ModelConfig, image_size: ImageSizes, n_channels: int = 1) -> nn.Module:
    """Builds a model of timm, of several of them, or from elsewhere, for training.

    Initial weights are drawn from torch's global generator. timm sums the first layer of
    pretrained weights over its three input channels if images have one.

    Args:
        config: name, weights and dropout.
        image_size: height and width of the images, or of the image of each branch; models of a
            fixed input size are built for it.
        n_channels: channels of the images.

    Returns:
        A module from (B, C, H, W), or one such image per branch in a tuple, to (B, 6) logits,
        float32, on the CPU; with a head per tier to (B, 18) in training mode. In evaluation mode
        the softmax of its output is the prediction, whatever ``output`` and ``head`` are.

    Raises:
        ModelError: if the name is unknown, ``drop_path`` is set for a model without
            stochastic depth, the model does not accept the image size or has no pooling to
            change, or pretrained weights
            are not available or do not fit; see also ``build_imported``.
    """
    sizes = each_size(image_size)
    model: nn.Module
    if config.branches is not None:
        model = _joined_encoders(config, config.branches, sizes, n_channels)
    elif is_import_path(config.name):
        model = build_imported(config, sizes[0], n_channels)
    else:
        model = _timm_model(config, sizes[0], n_channels, n_outputs(config))
        _check_forward(model, config, (n_channels, *sizes[0]))
    if config.head == "per_tier":
        score_by_experts(model)
    if config.output == "sigmoid":
        # Not a layer around the model, so that its weights keep their names.
        model.register_forward_hook(_log_sigmoid)
    return model


def _joined_encoders(
    config: ModelConfig,
    branches: Branches,
    sizes: Sequence[tuple[int, int]],
    n_channels: int,
) -> JoinedEncoders:
    encoders, n_features = [], 0
    for number, (encoder, size) in enumerate(zip(config.encoders, sizes, strict=True)):
        with _in_branch(number):
            encoders.append(_timm_model(encoder, size, n_channels, 0))
            n_features += _n_features(encoders[-1], encoder.name, (n_channels, *size))
    frozen = [branch.frozen for branch in branches]
    return JoinedEncoders(encoders, frozen, n_features, config.dropout, n_outputs(config))


@contextmanager
def _in_branch(number: int) -> Iterator[None]:
    """Adds the branch to the place of an error and to the fields that it names."""
    branch = f"model.branches.{number}"

    def named(text: str) -> str:
        return re.sub(r"\bmodel\.(?=[a-z_]+\b)", f"{branch}.", text)

    try:
        yield
    except ModelError as error:
        where = f"{error.where}, {branch}"
        raise ModelError(
            named(error.rule), got=error.got, where=where, fix=error.fix and named(error.fix)
        ) from error


def _timm_model(
    config: ModelConfig, image_size: tuple[int, int], n_channels: int, n_classes: int
) -> nn.Module:
    """A model of timm; with 0 classes, its pooled features."""
    pretrained = pretrained_config(config.name)
    options: dict[str, Any] = {"in_chans": n_channels, "drop_rate": config.dropout}
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    if pretrained.fixed_input_size:
        options["img_size"] = image_size
    if config.weights_file is not None:
        overlay = _overlay(config, pretrained, given_file(config))
        # Built once with the file's number of classes: only then does timm require that the
        # file has every weight of the model.
        _create(config, {**options, "pretrained_cfg_overlay": overlay}, overlay["num_classes"])
        options["pretrained_cfg_overlay"] = overlay
    elif (weights := pretrained_weights(config)) is not None:
        # The file whose content is in the cache key, whatever the hub has by now.
        options["pretrained_cfg_overlay"] = _source(pretrained, weights.file)
    model = _create(config, options, n_classes)
    set_pooling(model, config.pooling, config.name)
    return model


def _log_sigmoid(model: nn.Module, images: object, logits: torch.Tensor) -> torch.Tensor | None:
    """For scoring, logarithms of sigmoids: their softmax is the sigmoids divided by their sum."""
    if model.training:
        return None
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return torch.nn.functional.logsigmoid(exact)


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
            file = Path(options["pretrained_cfg_overlay"]["file"])
            raise _unfit(config, file, error) from error
        if config.pretrained:
            raise hub_failed(config.name, first_line(error)) from error
        raise
    return model


def _overlay(config: ModelConfig, pretrained: Any, file: Path) -> dict[str, Any]:
    """Overrides of timm's ``PretrainedCfg`` for a local file: its path and classes."""
    source = _source(pretrained, file)
    if source["custom_load"]:
        return {**source, "num_classes": pretrained.num_classes}
    try:
        state = timm.models.load_state_dict(str(file), device="cpu")
    except Exception as error:
        # Every file format that timm reads has exceptions of its own.
        got, fix = unpickled(error) or (first_line(error), "Use another copy of the file.")
        raise unreadable_weights(file, got, fix) from None
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise ModelError(
            f"model.weights_file must contain weights of {config.name}",
            got="a file without a state dict",
            where=file,
            fix="Save it with torch.save(model.state_dict(), FILE).",
        )
    layer = pretrained.classifier
    layer = layer[0] if isinstance(layer, (list, tuple)) else layer
    weight = state.get(f"{layer}.weight")
    return {**source, "num_classes": 0 if weight is None else weight.shape[0]}


def _source(pretrained: Any, file: Path) -> dict[str, Any]:
    """Overrides of timm's ``PretrainedCfg`` for a local file."""
    # timm's hub has all weights as state dicts, even those of models with a format of their own.
    own_format = bool(pretrained.custom_load) and file.suffix == ".npz"
    return {"file": str(file), "custom_load": own_format}


def _check_forward(model: nn.Module, config: ModelConfig, image: tuple[int, int, int]) -> None:
    name, n_logits = config.name, n_outputs(config)
    shape = _output_shape(model, name, image)
    if shape != (1, n_logits):
        raise ModelError(
            f"a model must return {n_logits} logits per image", got=str(shape), where=name
        )


def _n_features(model: nn.Module, name: str, image: tuple[int, int, int]) -> int:
    """Features per image of a model without a classifier."""
    shape = _output_shape(model, name, image)
    if len(shape) != 2:
        raise ModelError(
            "an encoder must return one vector of features per image",
            got=str(shape),
            where=name,
            fix="Use another model.",
        )
    return shape[1]


def _output_shape(model: nn.Module, name: str, image: tuple[int, int, int]) -> tuple[int, ...]:
    model.eval()
    try:
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(1, *image)).shape)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise _wrong_size(name, image[1:], error) from None
    model.train()
    return shape


def _wrong_size(name: str, size: tuple[int, int] | None, error: BaseException) -> ModelError:
    return ModelError(
        f"the model must accept images of {size[0]} x {size[1]}" if size else "timm must build it",
        got=first_line(error),
        where=name,
        fix="Set input.size to a size that the model accepts.",
    )


def _unfit(config: ModelConfig, file: Path, error: Exception) -> ModelError:
    if file.suffix == ".npz":
        got, fix = first_line(error), f"Use a timm checkpoint of {config.name}."
    else:
        got, fix = misfit(config.name, timm.models.load_state_dict(str(file), device="cpu"))
    return ModelError(
        f"model.weights_file must contain weights of {config.name}", got=got, where=file, fix=fix
    )
