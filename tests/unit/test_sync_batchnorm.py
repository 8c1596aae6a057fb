"""Batch statistics of a worker group: which layers change, and what stays."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hms_ray.config.experiment import ModelConfig
from hms_ray.config.values import replace_values
from hms_ray.train import fold_training
from hms_ray.train.loop import train_fold
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.sync_batchnorm import with_group_statistics
from tests.fold_data import example_experiment, example_fold

GROUP = Process(rank=0, world_size=2)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_all_batch_statistics_are_shared_and_weights_keep_their_names(name: str) -> None:
    config = ModelConfig(name=name, pretrained=False, drop_path=0, dropout=0)
    model = build_model(config, (64, 64)).eval()
    before, image = copy.deepcopy(model), torch.rand(2, 1, 64, 64)
    expected = before(image)
    assert with_group_statistics(model, Process()) is model
    assert not any(isinstance(one, nn.SyncBatchNorm) for one in model.modules())
    shared = with_group_statistics(model, GROUP)
    n_layers = sum(isinstance(one, nn.BatchNorm2d) for one in before.modules())
    assert sum(isinstance(one, nn.SyncBatchNorm) for one in shared.modules()) == n_layers > 3
    weights, plain = shared.state_dict(), before.state_dict()
    assert weights.keys() == plain.keys()
    assert all(torch.equal(value, plain[key]) for key, value in weights.items())
    torch.testing.assert_close(shared(image), expected)


def test_folds_share_them_only_if_they_are_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        fold_training,
        "with_group_statistics",
        lambda model, process: seen.append(process) or model,  # type: ignore[func-returns-value]
    )
    process = Process()
    plain = train_fold(example_experiment(), example_fold(), 0, process)
    assert not seen
    experiment = replace_values(example_experiment(), {"training.sync_batchnorm": True})
    result = train_fold(experiment, example_fold(), 0, process)
    assert seen == [process]
    assert all(torch.equal(value, plain.weights[key]) for key, value in result.weights.items())
