"""Models by name, weights from a file, and their errors."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from hms_ray.config.experiment import ModelConfig
from hms_ray.errors import ModelError
from hms_ray.train.model import build_model
from hms_ray.train.pretrained import weights_fingerprint

TINY = "test_efficientnet"


def untrained(name: str, **options: Any) -> ModelConfig:
    return ModelConfig(name=name, pretrained=False, **options)


@pytest.mark.parametrize("name", [TINY, "test_convnext", "test_resnet", "test_vit"])
def test_models_map_one_channel_to_six_logits(name: str) -> None:
    model = build_model(untrained(name), (64, 48))
    assert model.training
    assert model(torch.randn(2, 1, 64, 48)).shape == (2, 6)


def test_initial_weights_come_from_the_global_generator() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build_model(untrained(TINY), (64, 64)).conv_stem.weight.detach()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_dropout_and_drop_path_reach_the_model() -> None:
    model = build_model(untrained("test_resnet", drop_path=0.25, dropout=0.125), (64, 64))
    assert model.drop_rate == 0.125
    rates = [layer.drop_prob for layer in model.modules() if type(layer).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.25)
    plain = build_model(untrained("test_resnet", drop_path=0.0, dropout=0.0), (64, 64))
    assert not [layer for layer in plain.modules() if type(layer).__name__ == "DropPath"]


def test_unknown_name_suggests_close_names() -> None:
    with pytest.raises(ModelError, match=r"tf_eficientnet_b0.* mean tf_efficientnet_b0\b"):
        build_model(untrained("tf_eficientnet_b0"), (64, 64))
    with pytest.raises(ModelError, match=r"test_resnet\.bogus.*test_resnet\.r160_in1k"):
        build_model(untrained("test_resnet.bogus"), (64, 64))


def test_drop_path_is_refused_without_stochastic_depth() -> None:
    with pytest.raises(ModelError, match=r"got 0\.2, in densenet121\. Set model\.drop_path: 0\."):
        build_model(untrained("densenet121"), (64, 64))
    assert build_model(untrained("densenet121", drop_path=0.0), (64, 64))


@pytest.mark.parametrize("name", ["test_vit", "test_coatnet"])
def test_unsupported_image_size_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=rf"images of 50 x 75, got .*, in {name}. Set input.size"):
        build_model(untrained(name), (50, 75))


def test_weights_come_from_a_local_file_summed_to_one_channel(weights_file: Path) -> None:
    state = torch.load(weights_file)
    torch.manual_seed(9)
    model = build_model(ModelConfig(name=TINY, weights_file=str(weights_file)), (64, 64))
    stem = state["conv_stem.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(model.conv_stem.weight.detach(), stem)
    for name, value in model.state_dict().items():
        if not name.startswith(("conv_stem", "classifier")):
            assert torch.equal(value, state[name]), name
    assert model.classifier.weight.shape == (6, state["classifier.weight"].shape[1])


def test_vision_transformer_is_resized_to_the_image(tmp_path: Path) -> None:
    source = timm.create_model("test_vit")
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    config = ModelConfig(name="test_vit", weights_file=str(tmp_path / "vit.pth"))
    model = build_model(config, (64, 48))
    assert model.pos_embed.shape[1] == 1 + 4 * 3
    torch.testing.assert_close(model.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)


def test_backbone_without_head_is_accepted(tmp_path: Path) -> None:
    state = timm.create_model(TINY, num_classes=0).state_dict()
    torch.save(state, tmp_path / "backbone.pth")
    config = ModelConfig(name=TINY, weights_file=str(tmp_path / "backbone.pth"))
    model = build_model(config, (64, 64))
    torch.testing.assert_close(model.conv_head.weight.detach(), state["conv_head.weight"])


def test_incomplete_weights_are_refused(
    tmp_path: Path, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hms_ray.train.weights_misfit._candidates", lambda _: ["test_resnet"])
    state = torch.load(weights_file)
    del state["blocks.1.0.conv_exp.weight"]
    torch.save(state, tmp_path / "part.pth")
    config = ModelConfig(name=TINY, weights_file=str(tmp_path / "part.pth"))
    with pytest.raises(ModelError, match=r"got .*blocks\.1\.0\.conv_exp\.weight"):
        build_model(config, (64, 64))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_unreadable_files_are_named(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights.{suffix}"
    config = ModelConfig(name=TINY, weights_file=str(file))
    with pytest.raises(ModelError, match=rf"readable file, got no such file, in .*{suffix}"):
        build_model(config, (64, 64))
    with pytest.raises(ModelError, match=r"readable file, got no such file"):
        weights_fingerprint(config)
    file.write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match=rf"readable file, got .+, in .*{suffix}"):
        build_model(config, (64, 64))
