"""Which file holds a model's pretrained weights: given, in a folder, from timm's hub."""

import hashlib
import shutil
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import huggingface_hub.utils
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError

from hms_ray.config.experiment import ModelConfig
from hms_ray.errors import ModelError
from hms_ray.train import pretrained as module
from hms_ray.train.model import build_model
from hms_ray.train.pretrained import pretrained_weights, tagged_name, weights_fingerprint
from tests.refused import refusal

TINY = "test_efficientnet"
TAGGED = "test_efficientnet.r160_in1k"


class Offline:
    """A session of a machine without internet."""

    timeouts: ClassVar[list[float]] = []

    def head(self, url: str, timeout: float) -> None:
        self.timeouts.append(timeout)
        raise ConnectionError("Name or service not known")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Files in the cache of the hub by repository and name; the machine is offline."""
    files: dict[str, Path] = {}

    def cached(repository: str, name: str, revision: str | None) -> str | None:
        file = files.get(f"{repository}/{name}")
        return None if file is None else str(file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(huggingface_hub.utils, "get_session", Offline)
    return files


def test_fingerprint_is_of_the_content(weights_file: Path, tmp_path: Path) -> None:
    expected = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    copy = tmp_path / "copy.pth"
    copy.write_bytes(weights_file.read_bytes())
    for file in (weights_file, copy):
        assert weights_fingerprint(ModelConfig(name=TINY, weights_file=str(file))) == expected
    assert weights_fingerprint(ModelConfig(name=TINY)) is None


def test_unchanged_file_is_hashed_once(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept.pt"
    file.write_bytes(weights_file.read_bytes())
    config = ModelConfig(name=TINY, weights_file=str(file))
    fingerprint = weights_fingerprint(config)
    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", lambda *arguments: pytest.fail("read again"))
        assert weights_fingerprint(config) == fingerprint
    file.write_bytes(b"other")
    assert weights_fingerprint(config) == hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize("name", [TINY, TAGGED])
def test_cached_weights_of_the_hub_are_used_offline(
    name: str, hub: dict[str, Path], weights_file: Path
) -> None:
    hub[f"timm/{TAGGED}/pytorch_model.bin"] = weights_file
    weights = pretrained_weights(ModelConfig(name=name))
    assert weights is not None
    assert weights.name == TAGGED
    assert weights.file == weights_file
    assert weights.sha256 == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    model = build_model(ModelConfig(name=name), (64, 64))
    expected = torch.load(weights_file)["conv_head.weight"]
    assert torch.equal(model.conv_head.weight, expected)


def test_models_without_pretrained_weights_ask_no_hub(hub: dict[str, Path]) -> None:
    assert pretrained_weights(ModelConfig(name=TINY, pretrained=False)) is None


def test_the_file_that_timm_prefers_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, hub: dict[str, Path], weights_file: Path
) -> None:
    asked: list[str] = []

    def download(repository: str, name: str, revision: str | None) -> str:
        asked.append(f"{repository}/{name}")
        if name.endswith(".safetensors"):
            raise EntryNotFoundError("404")
        return str(weights_file)

    monkeypatch.setattr(module, "_require_online", lambda name, url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    weights = pretrained_weights(ModelConfig(name=TINY))
    assert weights is not None
    assert weights.file == weights_file
    assert asked == [f"timm/{TAGGED}/model.safetensors", f"timm/{TAGGED}/pytorch_model.bin"]


def test_unreachable_hub_fails_immediately(hub: dict[str, Path]) -> None:
    Offline.timeouts.clear()
    with pytest.raises(ModelError, match=r"timm's hub, got no answer .*not known.*weights_file"):
        build_model(ModelConfig(name=TINY), (64, 64))
    assert Offline.timeouts == [module.HUB_TIMEOUT_S]
    with refusal(ModelError, "timm's hub", got="no answer", where="gcvit_tiny"):
        pretrained_weights(ModelConfig(name="gcvit_tiny"))


def test_failed_download_names_model_weights_file(
    monkeypatch: pytest.MonkeyPatch, hub: dict[str, Path]
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("connection reset")

    monkeypatch.setattr(module, "_require_online", lambda name, url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(
        ModelError, match=r"got connection reset, in test_eff.* model\.weights_file"
    ):
        build_model(ModelConfig(name=TINY), (64, 64))


def test_a_model_without_any_weights_is_refused() -> None:
    with refusal(ModelError, "pretrained", got="davit_giant", fix="model.pretrained: false"):
        pretrained_weights(ModelConfig(name="davit_giant"))


def test_tags_are_resolved() -> None:
    assert tagged_name("efficientnet_b0") == "efficientnet_b0.ra_in1k"
    assert tagged_name("tf_efficientnet_b0.aa_in1k") == "tf_efficientnet_b0.aa_in1k"


@pytest.mark.parametrize("name", [TINY, TAGGED])
def test_a_folder_has_a_file_for_each_model(name: str, tmp_path: Path, weights_file: Path) -> None:
    shutil.copy(weights_file, tmp_path / f"{TAGGED}.pth")
    other = timm.create_model("test_resnet").state_dict()
    torch.save(other, tmp_path / "test_resnet.r160_in1k.pth")
    config: dict[str, Any] = {"weights_file": str(tmp_path)}
    model = build_model(ModelConfig(name=name, **config), (64, 64))
    assert torch.equal(model.conv_head.weight, torch.load(weights_file)["conv_head.weight"])
    fingerprints = [
        weights_fingerprint(ModelConfig(name=one, **config)) for one in (name, "test_resnet")
    ]
    assert fingerprints[0] == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert fingerprints[0] != fingerprints[1]
    assert build_model(ModelConfig(name="test_resnet", **config), (64, 64))


def test_a_folder_without_the_models_file_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(name="efficientnet_b2", weights_file=str(tmp_path))
    with refusal(
        ModelError, got="no weights files", where=str(tmp_path), fix="efficientnet_b2.ra_in1k"
    ):
        weights_fingerprint(config)
    for name in ("efficientnet_b0.ra_in1k.safetensors", "tf_efficientnet_b2.ns_jft_in1k.pth"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    with refusal(
        ModelError,
        "efficientnet_b2.ra_in1k.safetensors",
        got="efficientnet_b0.ra_in1k.safetensors, tf_efficientnet_b2.ns_jft_in1k.pth "
        "(did you mean efficientnet_b0.ra_in1k.safetensors?)",
        where=str(tmp_path),
        fix="efficientnet_b2.ra_in1k with one of the endings .safetensors, .pth",
    ):
        build_model(config, (64, 64))
