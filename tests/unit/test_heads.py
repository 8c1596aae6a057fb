"""A head per tier of votes: its loss in numbers, and where it is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.loading import validate_space
from hms_ray.config.validation import validated
from hms_ray.config.values import replace_values
from hms_ray.errors import ConfigError
from hms_ray.experiment.preflight import preflight
from hms_ray.train.heads import by_tier, tier_targets
from hms_ray.train.loop import train_fold
from hms_ray.train.losses import DIVERGENCES
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from tests.fold_data import example_experiment, example_fold, open_images
from tests.refused import refusal

VOTES = np.array([1, 2, 3, 9, 10, 20])
RNG = np.random.default_rng(0)
TARGETS = RNG.dirichlet(np.ones(6), size=6)
LOGITS, WEIGHTS = RNG.normal(size=(6, 18)), RNG.uniform(0.5, 2, 6)
DATA = example_fold()


def kl(target: Any, logits: Any) -> Any:
    return np.sum(target * (np.log(target) - logits + np.log(np.exp(logits).sum())))


def binary_kl(target: Any, logits: Any) -> Any:
    yes = 1 / (1 + np.exp(-logits))
    terms = target * np.log(target / yes) + (1 - target) * np.log((1 - target) / (1 - yes))
    return terms.sum()


ROW = {"softmax": kl, "sigmoid": binary_kl}


def test_targets_are_those_of_the_head_of_the_row() -> None:
    found = tier_targets(TARGETS, VOTES).reshape(6, 3, 6)
    for row, tier in enumerate([0, 0, 1, 1, 2, 2]):
        for head in range(3):
            np.testing.assert_array_equal(found[row, head], TARGETS[row] * (head == tier))


@pytest.mark.parametrize("output", list(ROW))
def test_each_row_has_the_divergence_of_the_head_of_its_tier(output: str) -> None:
    given = torch.from_numpy(LOGITS).requires_grad_()
    goals = torch.from_numpy(tier_targets(TARGETS, VOTES))
    rows = by_tier(DIVERGENCES[output])(given, goals, torch.from_numpy(WEIGHTS))
    heads = LOGITS.reshape(6, 3, 6)
    expected = [
        WEIGHTS[row] * ROW[output](TARGETS[row], heads[row, tier])
        for row, tier in enumerate([0, 0, 1, 1, 2, 2])
    ]
    np.testing.assert_allclose(rows.detach().numpy(), expected, rtol=1e-10)
    rows.sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    touched = given.grad.reshape(6, 3, 6).abs().amax(2) > 0
    assert touched.int().argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
    assert touched.sum(1).tolist() == [1] * 6


@pytest.mark.parametrize("output", list(ROW))
def test_the_parts_of_a_mixed_image_train_their_own_heads(output: str) -> None:
    """0.7 of a row with 2 votes and 0.3 of one with 20; and two parts of one tier."""
    plain = tier_targets(TARGETS, VOTES)
    goals = torch.from_numpy(np.stack([0.7 * plain[1] + 0.3 * plain[5], (plain[2] + plain[3]) / 2]))
    logits, weights = torch.from_numpy(LOGITS[:2]), torch.from_numpy(WEIGHTS[:2])
    rows = by_tier(DIVERGENCES[output])(logits, goals, weights)
    heads = LOGITS.reshape(6, 3, 6)
    first = 0.7 * ROW[output](TARGETS[1], heads[0, 0]) + 0.3 * ROW[output](TARGETS[5], heads[0, 2])
    second = ROW[output]((TARGETS[2] + TARGETS[3]) / 2, heads[1, 1])
    np.testing.assert_allclose(rows.numpy(), WEIGHTS[:2] * [first, second], rtol=1e-10)


def test_equal_heads_have_the_loss_of_one_head() -> None:
    logits = torch.from_numpy(np.tile(LOGITS[:, :6], 3))
    found = by_tier(DIVERGENCES["softmax"])(
        logits, torch.from_numpy(tier_targets(TARGETS, VOTES)), torch.from_numpy(WEIGHTS)
    )
    one = DIVERGENCES["softmax"](
        logits[:, :6], torch.from_numpy(TARGETS), torch.from_numpy(WEIGHTS)
    )
    torch.testing.assert_close(found, one)


@pytest.mark.parametrize("output", list(ROW))
def test_the_head_of_the_experts_predicts(output: str) -> None:
    experiment = replace_values(
        example_experiment(epochs=2), {"model.head": "per_tier", "model.output": output}
    )
    result = train_fold(experiment, DATA, 0, Process())
    name = "kl by tier" if output == "softmax" else "binary kl by tier"
    assert {record["loss"] for record in result.history} == {name}
    model = build_model(experiment.model, (64, 64))
    model.load_state_dict(result.weights)
    heads: list[torch.Tensor] = []
    model.get_classifier().register_forward_hook(lambda *call: heads.append(call[2]))  # type: ignore[operator, func-returns-value]
    (image,) = open_images(DATA, experiment.input).for_rows([DATA.valid])
    with torch.inference_mode():
        model.eval()(image)
    experts = heads[0].double()[:, 12:]
    shares = torch.softmax(experts, 1) if output == "softmax" else torch.sigmoid(experts)
    expected = shares / shares.sum(1, keepdim=True)
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-4, atol=1e-6)


def test_heads_learn_what_differs_between_tiers() -> None:
    """Low tiers always vote for one class; the head of the experts does not."""
    data = example_fold(n_train=80, n_valid=30)
    few = data.total_votes < 10
    data.targets[few] = np.eye(6)[0]
    experiment = example_experiment(epochs=3, batch_size=8, learning_rate=3e-3)
    scores = {
        head: train_fold(
            replace_values(experiment, {"model.head": head}), data, 0, Process()
        ).history[-1]["kl_10"]
        for head in ("one", "per_tier")
    }
    # 0.29 to 0.56 of it with three seeds.
    assert scores["per_tier"] < 0.7 * scores["one"]


def test_the_default_has_the_key_of_before() -> None:
    plain = Experiment()
    assert "head" not in canonical(plain)["model"]
    assert canonical(replace_values(plain, {"model.head": "per_tier"})) != canonical(plain)


def test_models_from_elsewhere_are_refused() -> None:
    given = {"model": {"name": "my_nets:small", "head": "per_tier"}}
    with refusal(ConfigError, "head needs a model of timm, got my_nets:small", where="here"):
        validated(Experiment, given, "here")


@pytest.mark.parametrize(
    ("votes", "stage", "got"),
    [
        ([3, 9, 5, 9], {}, "at most 9 votes"),
        ([3, 12, 11, 9], {"rows": "below_threshold"}, "at most 9 votes"),
        ([3, 9, 12, 9], {}, "at most 9 votes"),
    ],
)
def test_a_head_of_experts_that_is_not_trained_is_refused(
    votes: list[int], stage: dict[str, Any], got: str
) -> None:
    rows = pd.DataFrame(np.eye(6)[[0, 1, 2, 3]], columns=list(TARGET_COLUMNS))
    rows = rows.assign(total_votes=votes, fold=[0, 0, 1, 1])
    experiment = {
        "model": {"name": "test_resnet", "pretrained": False, "drop_path": 0, "head": "per_tier"},
        "training": {"stage_threshold": 10, "stages": [stage]},
    }
    space = validate_space({"experiment": experiment}, "test")
    rule = "model.head: per_tier needs training rows with >= 10 votes, whose head predicts"
    with refusal(ConfigError, rule, got=got, where="all stages", fix="set model.head: one"):
        preflight(space, rows)
    one = {**experiment, "model": {**experiment["model"], "head": "one"}}
    preflight(validate_space({"experiment": one}, "test"), rows)
