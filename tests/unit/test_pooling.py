"""Pooling of the last feature map, by name."""

from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import SelectAdaptivePool2d
from torch import nn

from hms_ray.config.experiment import ModelConfig
from hms_ray.config.values import replace_values
from hms_ray.errors import ModelError
from hms_ray.train.loop import train_fold
from hms_ray.train.model import build_model
from hms_ray.train.pooling import GeneralisedMean
from hms_ray.train.process import Process
from tests.fold_data import example_experiment, example_fold
from tests.refused import refusal


def untrained(name: str, pooling: Any) -> nn.Module:
    torch.manual_seed(0)
    config = ModelConfig(name=name, pretrained=False, drop_path=0, dropout=0, pooling=pooling)
    return build_model(config, (64, 64)).eval()


def pooled(name: str, pooling: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Feature map and pooled features of a model."""
    model = untrained(name, pooling)
    seen: list[torch.Tensor] = []
    (layer,) = (one for one in model.modules() if isinstance(one, SelectAdaptivePool2d))
    layer.register_forward_hook(lambda module, images, out: seen.extend((images[0], out)))
    with torch.inference_mode():
        model(torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
    fmap, features = (one.double().numpy() for one in seen)
    return fmap, features.reshape(2, -1)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax", "gem"])
def test_features_are_those_of_the_map(name: str, pooling: str) -> None:
    x, features = pooled(name, pooling)
    expected = {
        "avg": x.mean((2, 3)),
        "max": x.max((2, 3)),
        "avgmax": (x.mean((2, 3)) + x.max((2, 3))) / 2,
        "gem": (np.maximum(x, 1e-6) ** 3).mean((2, 3)) ** (1 / 3),
    }[pooling]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def test_maps_with_channels_last_are_pooled_over_height_and_width() -> None:
    layer = GeneralisedMean((1, 2), keepdim=False)
    x = torch.rand(2, 3, 5, 7)
    found, expected = layer(x), (x**3).mean((1, 2)) ** (1 / 3)
    torch.testing.assert_close(found.detach(), expected)


def test_own_pooling_changes_nothing() -> None:
    own, avg = (untrained("test_efficientnet", pooling).state_dict() for pooling in ("own", "avg"))
    assert own.keys() == avg.keys()
    gem = untrained("test_efficientnet", "gem").state_dict()
    assert gem.keys() - own.keys() == {"global_pool.pool.p"}
    assert all(torch.equal(value, gem[name]) for name, value in own.items())


def test_exponent_is_trained_stored_and_finite_in_16_bits() -> None:
    experiment = replace_values(
        example_experiment(learning_rate=0.05, precision="bfloat16"), {"model.pooling": "gem"}
    )
    result = train_fold(experiment, example_fold(), 0, Process())
    assert abs(result.weights["global_pool.pool.p"].item() - 3) > 1e-3
    half = GeneralisedMean((2, 3), keepdim=False)(torch.full((1, 1, 2, 2), 100.0).half())
    torch.testing.assert_close(half.detach(), torch.tensor([[100.0]]))


def test_transformers_are_refused() -> None:
    with refusal(
        ModelError,
        "model.pooling needs a model that pools one feature map",
        got="none",
        where="test_vit",
        fix="Set model.pooling: own",
    ):
        untrained("test_vit", "gem")
