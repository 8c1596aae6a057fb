"""Contract of every kind of model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hms_ray.config.experiment import ModelConfig
from hms_ray.train.checkpoint import cpu_weights, load_weights, save_weights
from hms_ray.train.model import build_model
from hms_ray.train.model_images import ImageSizes, ModelImages, as_tuple, each_size, for_model

SIZES = ((48, 64), (64, 32))
ONE: dict[str, Any] = {"name": "test_resnet", "pretrained": False}
BRANCHES: list[dict[str, Any]] = [
    {"views": ["panels"], **ONE},
    {
        "views": ["statistics"],
        "name": "test_efficientnet",
        "pretrained": False,
        "pooling": "gem",
        "drop_path": 0.1,
    },
]
KINDS: dict[str, dict[str, Any]] = {
    "convolutional": ONE,
    "transformer": {"name": "test_vit", "pretrained": False},
    "gem": {**ONE, "pooling": "gem"},
    "sigmoid": {**ONE, "output": "sigmoid"},
    "elsewhere": {"name": "tests.contract.tiny_net:net"},
    "head per tier": {**ONE, "head": "per_tier"},
    "branches": {"branches": BRANCHES},
    "branches, head per tier": {"branches": BRANCHES, "head": "per_tier"},
    "branches, sigmoid": {"branches": BRANCHES, "output": "sigmoid"},
    "one frozen": {"branches": [{**BRANCHES[0], "name": "test_efficientnet"}, BRANCHES[1]]},
}
every_kind = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture
def config(kind: str, weights_file: Path) -> ModelConfig:
    made = KINDS[kind]
    if kind == "one frozen":
        frozen = {"pretrained": True, "weights_file": str(weights_file), "frozen": True}
        made = {"branches": [{**made["branches"][0], **frozen}, made["branches"][1]]}
    return ModelConfig.model_validate(made)


def size_of(config: ModelConfig) -> ImageSizes:
    return SIZES[0] if config.branches is None else SIZES


def images_of(config: ModelConfig, n: int = 5, channels: int = 1) -> ModelImages:
    generator = torch.Generator().manual_seed(n)
    sizes = each_size(size_of(config))
    made = (torch.randn(n, channels, *size, generator=generator) for size in sizes)
    return for_model(made, branched=config.branches is not None)


def built(config: ModelConfig, seed: int = 0, channels: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config, size_of(config), channels)


@torch.inference_mode()
def predicted(model: nn.Module, images: ModelImages) -> Tensor:
    logits: Tensor = model.eval()(images)
    return logits


@every_kind
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_of_six_classes_per_row(config: ModelConfig, channels: int) -> None:
    model = built(config, channels=channels)
    assert model.training
    for n in (1, 5):
        logits = predicted(model, images_of(config, n, channels))
        assert logits.shape == (n, 6)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


@every_kind
def test_predictions_depend_on_every_image_and_repeat(config: ModelConfig) -> None:
    model, images = built(config), images_of(config)
    first = predicted(model, images)
    assert torch.equal(predicted(model, images), first)
    for number in range(len(as_tuple(images))):
        changed = list(as_tuple(images))
        changed[number] = changed[number] + 1
        other = predicted(model, for_model(changed, branched=config.branches is not None))
        assert not torch.equal(other, first), number


@every_kind
def test_a_state_dict_on_disk_is_the_whole_model(config: ModelConfig, tmp_path: Path) -> None:
    model, images = built(config), images_of(config)
    model.train()
    model(images)
    save_weights(tmp_path / "weights.pt", cpu_weights(model))
    again = built(config.without_weights(), seed=1)
    again.load_state_dict(load_weights(tmp_path / "weights.pt"))
    assert torch.equal(predicted(again, images), predicted(model, images))


@every_kind
def test_a_seed_decides_the_first_weights(config: ModelConfig) -> None:
    first, second, other = (built(config, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@every_kind
def test_gradients_of_all_trained_parameters_are_finite(config: ModelConfig) -> None:
    model = built(config)
    torch.log_softmax(model(images_of(config)), dim=1)[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    for name, value in model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, name
            assert value.grad.isfinite().all(), name
        else:
            assert config.branches is not None, name
            assert value.grad is None, name


@every_kind
def test_float64_and_the_last_memory_format(config: ModelConfig) -> None:
    model = built(config).to(torch.float64).to(memory_format=torch.channels_last)
    wide = [image.double() for image in as_tuple(images_of(config))]
    logits = predicted(model, for_model(wide, branched=config.branches is not None))
    assert logits.dtype == torch.float64
