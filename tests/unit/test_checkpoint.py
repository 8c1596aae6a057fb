"""Weights on disk are whole or absent."""

from pathlib import Path

import pytest
import torch

from hms_ray.errors import ModelError
from hms_ray.train.checkpoint import cpu_weights, load_weights, save_weights


def test_weights_survive_a_round_trip(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    model = model.to(memory_format=torch.channels_last)
    weights = cpu_weights(model)
    with torch.no_grad():
        model[0].weight.zero_()
    assert weights["0.weight"].any(), "a copy, not a view"
    save_weights(tmp_path / "weights.pt", weights)
    read = load_weights(tmp_path / "weights.pt")
    assert set(read) == set(weights)
    assert all(torch.equal(read[name], weights[name]) for name in read)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]
    model.load_state_dict(read)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pt"
    save_weights(file, {"a": torch.ones(2)})

    def full(data: object, target: object) -> None:
        target.write(b"half")  # type: ignore[attr-defined]
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space left"):
        save_weights(file, {"a": torch.zeros(2)})
    assert torch.equal(load_weights(file)["a"], torch.ones(2))
    assert [found.name for found in tmp_path.iterdir()] == ["weights.pt"]


def test_missing_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    with pytest.raises(ModelError, match=r"must exist, in .*weights\.pt"):
        load_weights(file)
    save_weights(file, {"a": torch.ones(20_000)})
    file.write_bytes(file.read_bytes()[:4000])
    with pytest.raises(ModelError, match=r"must be readable, got .*, in .*weights\.pt"):
        load_weights(file)
    torch.save({"a": 3}, file)
    with pytest.raises(ModelError, match="named tensors, got dict"):
        load_weights(file)
