"""Optimiser and schedule of a stage."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from hms_ray.config.training import ResolvedStage, TrainingConfig
from hms_ray.errors import ModelError
from hms_ray.train.parameter_groups import parameter_groups
from hms_ray.train.stages import make_optimiser, make_schedule
from tests.refused import refusal


def stage() -> ResolvedStage:
    return TrainingConfig().resolved_stages()[0]


def rates(n_steps: int, **training: Any) -> tuple[list[float], list[float]]:
    config = TrainingConfig(**training)
    model = torch.nn.Linear(3, 2)
    optimiser = make_optimiser(model, config, stage())
    schedule = make_schedule(optimiser, config, stage(), n_steps)
    learning, beta = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(n_steps):
            model(torch.ones(1, 3)).sum().backward()
            learning.append(optimiser.param_groups[0]["lr"])
            beta.append(optimiser.param_groups[0]["betas"][0])
            optimiser.step()
            schedule.step()
    return learning, beta


def test_constant_rate_has_the_published_beta1() -> None:
    learning, beta = rates(7, schedule="constant")
    assert learning == [1e-3] * 7
    assert beta == [0.85] * 7


def test_published_schedule_is_a_cosine_to_a_tenth() -> None:
    learning, beta = rates(20)
    share = [(k + 1) / 20 for k in range(20)]
    cosine = [(1 + math.cos(math.pi * s)) / 2 for s in share]
    np.testing.assert_allclose(learning, [1e-4 + 9e-4 * c for c in cosine], rtol=1e-9)
    np.testing.assert_allclose(beta, [0.95 - 0.1 * c for c in cosine], rtol=1e-9)


def test_warmup_rises_to_the_learning_rate() -> None:
    learning, _ = rates(20, warmup=0.3, div_factor=10.0, final_div_factor=100.0)
    top = int(np.argmax(learning))
    assert top == 5
    assert learning[0] == pytest.approx(1e-4)
    assert learning[top] == pytest.approx(1e-3)
    assert learning[-1] == pytest.approx(1e-6)
    assert np.all(np.diff(learning[: top + 1]) > 0)
    assert np.all(np.diff(learning[top:]) < 0)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 10, 49])
@pytest.mark.parametrize("steps_of_warmup", [0, 0.5, 1, 1.5, 2])
def test_every_length_of_warmup_works(n_steps: int, steps_of_warmup: float) -> None:
    warmup = min(steps_of_warmup / n_steps, 0.99)
    learning, _ = rates(n_steps, warmup=warmup)
    assert all(0 < rate <= 1e-3 * (1 + 1e-9) for rate in learning)


def test_cosine_has_the_rates_of_one_cycle_and_a_fixed_beta1() -> None:
    learning, beta = rates(20, schedule="cosine", warmup=0.1)
    assert learning == rates(20, warmup=0.1)[0]
    assert beta == [0.9] * 20


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_head_and_layers_have_rates_of_their_own(schedule: Any) -> None:
    model = timm.create_model("test_efficientnet", in_chans=1, num_classes=6)
    plain, _ = rates(5, schedule=schedule)
    config = TrainingConfig(schedule=schedule, head_rate=4.0, layer_decay=0.5)
    optimiser = make_optimiser(model, config, stage())
    schedules = make_schedule(optimiser, config, stage(), 5)
    expected = {id(one): 1.0 for one in model.parameters()}
    for group in param_groups_layer_decay(model, layer_decay=0.5):
        expected |= {id(one): group["lr_scale"] for one in group["params"]}
    expected |= {id(one): 4.0 for one in model.classifier.parameters()}
    assert len(set(expected.values())) > 4
    for rate in plain:
        found = {
            id(one): group["lr"] for group in optimiser.param_groups for one in group["params"]
        }
        assert found == pytest.approx({name: scale * rate for name, scale in expected.items()})
        optimiser.step()
        schedules.step()


def test_adam_adds_the_decay_to_the_gradient() -> None:
    moved = {}
    for name in ("adam", "adamw"):
        layer = torch.nn.Linear(1, 1, bias=False).double()
        torch.nn.init.constant_(layer.weight, 2.0)
        config = TrainingConfig(optimiser=name, weight_decay=0.1, schedule="constant")  # type: ignore[arg-type]
        optimiser = make_optimiser(layer, config, stage())
        layer.weight.grad = torch.full_like(layer.weight, -0.1)
        optimiser.step()
        moved[name] = layer.weight.item() - 2.0
    # Adam's first step is the rate against the sign: of -0.1 + 0.1 x 2, and of -0.1.
    assert moved["adam"] == pytest.approx(-1e-3, rel=1e-4)
    assert moved["adamw"] == pytest.approx(1e-3 - 1e-3 * 0.1 * 2, rel=1e-4)


def test_models_without_a_head_or_layers_are_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    fix = "Set training.head_rate: 1"
    with refusal(ModelError, "head_rate needs", got="none", where="Sequential", fix=fix):
        parameter_groups(model, TrainingConfig(head_rate=2.0))
    model = timm.create_model("test_vit", num_classes=6)
    model.group_matcher = lambda coarse: {"all": ".*"}
    fix = "Set training.layer_decay: null"
    with refusal(ModelError, "layer_decay needs", got="one layer", where="Vision", fix=fix):
        parameter_groups(model, TrainingConfig(layer_decay=0.5))


def test_optimiser_decays_all_parameters() -> None:
    model = torch.nn.Linear(3, 2)
    optimiser = make_optimiser(model, TrainingConfig(weight_decay=0.05), stage())
    assert isinstance(optimiser, torch.optim.AdamW)
    (group,) = optimiser.param_groups
    assert group["weight_decay"] == 0.05
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}
