"""Groups of a model's parameters with learning rates of their own: head, backbone, layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import nn

from hms_ray.config.training import TrainingConfig
from hms_ray.errors import ModelError
from hms_ray.train.joined_encoders import JoinedEncoders


def parameter_groups(model: nn.Module, training: TrainingConfig) -> list[dict[str, Any]]:
    """The parameters of a model by learning rate.

    Args:
        model: of timm if ``layer_decay`` is set; with ``head_rate``, one whose
            ``get_classifier()`` returns its last layer.
        training: with a ``layer_decay`` of d, layer k of n has the rate ``d ** (n - k)``, by
            timm's division into layers (Bao et al., BEiT, 2021); the classifier is in the last
            one and its rate is multiplied by ``head_rate``.

    Returns:
        Each parameter once: groups of ``params`` and ``lr_scale``, the multiple of the stage's
        learning rate, by rising scale. One group of scale 1 by default.

    Raises:
        ModelError: if the model has no classifier for ``head_rate``, or only one layer.
    """
    if training.head_rate == 1 and training.layer_decay is None:
        return [{"params": list(model.parameters()), "lr_scale": 1.0}]
    scales = dict.fromkeys(model.parameters(), 1.0)
    if training.layer_decay is not None:
        encoders, after = [model], 1.0
        if isinstance(model, JoinedEncoders):
            # The head of several encoders is the layer after the last one of each.
            encoders, after = list(model.encoders), training.layer_decay
        for encoder in encoders:
            if not hasattr(encoder, "group_matcher"):
                raise _one_layer(encoder, "a model that is not of timm")
            for group in param_groups_layer_decay(encoder, layer_decay=training.layer_decay):
                scales.update(dict.fromkeys(group["params"], group["lr_scale"] * after))
        if len(set(scales.values())) == 1:
            raise _one_layer(model, "one layer")
    if training.head_rate != 1:
        for parameter in _head(model):
            scales[parameter] *= training.head_rate
    return [
        {
            "params": [parameter for parameter, own in scales.items() if own == scale],
            "lr_scale": scale,
        }
        for scale in sorted(set(scales.values()))
    ]


def _one_layer(model: nn.Module, got: str) -> ModelError:
    return ModelError(
        "training.layer_decay needs a model that timm divides into layers",
        got=got,
        where=type(model).__name__,
        fix="Set training.layer_decay: null, or use another model.",
    )


def _head(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of the classifier."""
    get: Callable[[], Any] = getattr(model, "get_classifier", tuple)
    found = get()
    heads = found if isinstance(found, tuple) else (found,)
    parameters = [one for head in heads if head is not None for one in head.parameters()]
    if not parameters:
        raise ModelError(
            "training.head_rate needs a model with a classifier of its own",
            got="none",
            where=type(model).__name__,
            fix="Set training.head_rate: 1, or use another model.",
        )
    return parameters
