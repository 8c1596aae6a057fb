"""Weights files that do not fit are explained: prefixes, other models, pickled objects."""

from pathlib import Path

import pytest
import timm
import torch

from hms_ray.config.experiment import ModelConfig
from hms_ray.errors import ModelError
from hms_ray.train import weights_misfit
from hms_ray.train.model import build_model
from hms_ray.train.weights_misfit import misfit
from tests.refused import refusal

TINY = "test_efficientnet"


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_misfit, "COMMON_MODELS", ("test_resnet", "test_vit"))
    monkeypatch.setattr(weights_misfit, "N_NEAREST", 3)


def saved(folder: Path, state: object) -> ModelConfig:
    torch.save(state, folder / "weights.pth")
    return ModelConfig(name=TINY, weights_file=str(folder / "weights.pth"))


@pytest.mark.parametrize("prefix", ["model.", "encoder.backbone."])
def test_prefix_is_named_with_the_line_that_removes_it(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{key}": v for key, v in timm.create_model(TINY).state_dict().items()}
    config = saved(tmp_path, {**state, "loss.weight": torch.ones(6)})
    with refusal(
        ModelError,
        f"weights of {TINY}",
        got=f"prefix '{prefix}', such as {prefix}conv_stem.weight",
        where="weights.pth",
        fix=f"k.removeprefix('{prefix}')",
    ):
        build_model(config, (64, 64))


@pytest.mark.parametrize("other", ["test_resnet", "test_efficientnet_gn", "test_vit"])
def test_another_model_is_named(tmp_path: Path, other: str) -> None:
    config = saved(tmp_path, timm.create_model(other, num_classes=7).state_dict())
    with refusal(ModelError, got=other, where="weights.pth", fix=other):
        build_model(config, (64, 64))


def test_missing_unknown_and_reshaped_weights_are_counted() -> None:
    state = timm.create_model(TINY).state_dict()
    del state["conv_stem.weight"]
    state["extra"] = torch.ones(1)
    state["conv_head.weight"] = torch.ones(2, 2)
    got, fix = misfit(TINY, state)
    assert "1 weight missing: conv_stem.weight" in got
    assert "1 unknown: extra" in got
    assert "1 of another shape: conv_head.weight (2, 2), not (" in got
    assert TINY in fix


def test_pickled_model_is_refused_with_what_to_save(tmp_path: Path) -> None:
    config = saved(tmp_path, timm.create_model(TINY))
    with refusal(
        ModelError,
        "readable file",
        got="pickled objects such as t",
        where="weights.pth",
        fix="torch.save(model.state_dict(), FILE)",
    ):
        build_model(config, (64, 64))
