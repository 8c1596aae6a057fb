"""Contract of every head: outputs, losses, draws, and models that load back."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.experiment import Experiment, ModelConfig
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.config.values import replace_values
from hms_ray.train import compiled as compiled_module
from hms_ray.train.batches import Batch, plan_epoch
from hms_ray.train.compiled import compiled
from hms_ray.train.heads import n_outputs, score_by_experts
from hms_ray.train.loop import train_fold
from hms_ray.train.model import build_model
from hms_ray.train.parameter_groups import parameter_groups
from hms_ray.train.process import Process
from tests.augmentations import EACH
from tests.fold_data import example_experiment, example_fold, predicted_again

DATA = example_fold()
HEADS = get_args(ModelConfig.model_fields["head"].annotation)
OUTPUTS = get_args(ModelConfig.model_fields["output"].annotation)
MIXED = ["mosaic", "mixup", "signal_mixup", "cutmix"]
every_head = pytest.mark.parametrize("head", HEADS)
every_output = pytest.mark.parametrize("output", OUTPUTS)


def made(head: str, output: str = "softmax", **training: object) -> Experiment:
    experiment = example_experiment(epochs=2, **training)
    return replace_values(experiment, {"model.head": head, "model.output": output})


def planned(augment: AugmentConfig, process: Process | None = None) -> list[Batch]:
    training = TrainingConfig(batch_size=12, augment=augment, stages=(StageConfig(epochs=4),))
    (stage,) = training.resolved_stages()
    image = ((64, 64), (64,))
    return plan_epoch(DATA, DATA.train, training, stage, image, (0, 0, 0), process or Process())


@every_head
@every_output
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_in_training_and_in_scoring(head: str, output: str, dtype: torch.dtype) -> None:
    config = made(head, output).model
    model = build_model(config, (64, 64)).to(dtype)
    image = torch.randn(3, 1, 64, 64, dtype=dtype)
    trained = model.train()(image)
    assert trained.shape == (3, n_outputs(config)) == (3, 6 if head == "one" else 18)
    assert trained.dtype == dtype
    trained.pow(2).sum().backward()
    assert all(value.grad is not None for value in model.parameters())
    with torch.inference_mode():
        scored = model.eval()(image)
    assert scored.shape == (3, 6)
    assert scored.dtype == dtype


@every_head
@every_output
def test_folds_repeat_their_bits_and_load_back(head: str, output: str) -> None:
    experiment = made(head, output, ema=0.5, accumulate=2, head_rate=3.0, layer_decay=0.8)
    first, second = (train_fold(experiment, DATA, 0, Process()) for _ in range(2))
    assert np.array_equal(first.probabilities, second.probabilities)
    np.testing.assert_allclose(first.probabilities.sum(1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(predicted_again(experiment, first, DATA), first.probabilities)


@every_head
def test_the_last_layer_alone_has_the_rate_of_the_head(head: str) -> None:
    model = build_model(made(head).model, (64, 64))
    last = parameter_groups(model, TrainingConfig(head_rate=4.0))[-1]
    assert last["lr_scale"] == 4
    assert {value.shape[0] for value in last["params"]} == {6 if head == "one" else 18}


def test_compiled_models_have_all_heads_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_module, "BACKEND", "eager")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 18))
    score_by_experts(model)
    image = torch.randn(4, 1, 8, 8)
    expected = model(image)
    found = compiled(model, "default", deterministic=True)(image)
    torch.testing.assert_close(found, expected)
    assert torch.equal(model.eval()(image), expected[:, 12:])
    torch.compiler.reset()


@pytest.mark.parametrize("augment", ["none", *MIXED])
def test_targets_by_tier_are_parts_of_the_targets(augment: str) -> None:
    for batch in planned(EACH.get(augment, AugmentConfig())):
        by_tier = batch.tier_targets.reshape(-1, 3, 6)
        assert by_tier.dtype == np.float64
        assert by_tier.min() >= 0
        np.testing.assert_allclose(by_tier.sum(1), batch.targets, atol=1e-12)
        n_tiers = (by_tier.sum(2) > 0).sum(1)
        assert (n_tiers > 1).any() is np.bool_(augment not in ("none", "cutmix"))


@pytest.mark.parametrize("augment", ["none", *MIXED])
def test_ranks_together_have_the_targets_of_one_process(augment: str) -> None:
    config = EACH.get(augment, AugmentConfig())
    ranks = [planned(config, Process(rank, 3)) for rank in range(3)]
    for whole, *parts in zip(planned(config), *ranks, strict=True):
        joined = np.concatenate([part.tier_targets for part in parts])
        np.testing.assert_array_equal(joined, whole.tier_targets)


@every_output
def test_only_rows_of_its_tier_train_a_head(output: str) -> None:
    few = replace(DATA, total_votes=DATA.total_votes.clip(1, 2))
    # Without a step, decay or momentum, what is not trained keeps its bits.
    experiment = made("per_tier", output, weight_decay=0.0, stages=(StageConfig(epochs=1),))
    still = replace_values(experiment, {"training.learning_rate": 1e-30})
    start, of_few, of_all = (
        train_fold(one, data, 0, Process()).weights["classifier.weight"].reshape(3, -1)
        for one, data in ((still, DATA), (experiment, few), (experiment, DATA))
    )
    assert (of_all != start).any(1).tolist() == [True, True, True]
    assert (of_few != start).any(1).tolist() == [True, False, False]
