"""Weights by tier, smoothed targets, and sigmoids instead of a softmax."""

from typing import Any

import numpy as np
import pytest
import torch

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig, MixupConfig
from hms_ray.config.experiment import Experiment, ModelConfig, canonical
from hms_ray.config.row_targets import LabelSmoothing, TierWeights
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.config.validation import validated
from hms_ray.config.values import replace_values
from hms_ray.errors import ConfigError
from hms_ray.train.batches import Batch, plan_epoch
from hms_ray.train.loop import train_fold
from hms_ray.train.losses import smoothed, tier_factors, weighted_binary_kl
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from tests.fold_data import example_experiment, example_fold, open_images
from tests.refused import refusal

DATA = example_fold()
VOTES = np.array([1, 2, 3, 7, 9, 10, 20])


def plan(epoch: int = 0, **options: Any) -> list[Batch]:
    training = TrainingConfig(batch_size=12, stages=(StageConfig(epochs=4),), **options)
    (stage,) = training.resolved_stages()
    image = ((64, 64), (64,))
    return plan_epoch(DATA, DATA.train, training, stage, image, (0, 0, epoch), Process())


def test_tiers_have_weights_that_decay_to_the_floor() -> None:
    config = TierWeights(weights=(0.3, 0.5, 1.0), decay=(1.2, 1.0, 0.0), floor=0.02)
    np.testing.assert_allclose(tier_factors(config, VOTES, 0.0), [0.3] * 2 + [0.5] * 3 + [1.0] * 2)
    np.testing.assert_allclose(
        tier_factors(config, VOTES, 0.5), [0.3 * 0.4] * 2 + [0.25] * 3 + [1.0] * 2
    )
    np.testing.assert_allclose(tier_factors(config, VOTES, 0.9), [0.02] * 2 + [0.05] * 3 + [1] * 2)


def test_votes_are_added_and_shares_spread_by_number_of_votes() -> None:
    targets = np.eye(6)[[0, 1, 2, 3, 4, 5, 5]]
    added = smoothed(LabelSmoothing(added_votes=0.5), targets, VOTES)
    for row, votes, target in zip(added, VOTES, targets, strict=True):
        np.testing.assert_allclose(row, (votes * target + 0.5) / (votes + 3))
    spread = smoothed(LabelSmoothing(share=0.3, max_votes=3), targets, VOTES)
    np.testing.assert_allclose(spread[:3], 0.7 * targets[:3] + 0.05)
    np.testing.assert_array_equal(spread[3:], targets[3:])
    both = smoothed(LabelSmoothing(share=0.3, added_votes=0.5), targets, VOTES)
    np.testing.assert_allclose(both, 0.7 * added + 0.05)
    for result in (added, spread, both):
        assert result.dtype == np.float64
        np.testing.assert_allclose(result.sum(1), 1.0, atol=1e-12)


@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_have_the_weights_and_targets(epoch: int) -> None:
    tiers, smoothing = TierWeights(decay=(1.2, 0.4, 0.1)), LabelSmoothing(share=0.2, max_votes=5)
    plain = plan(epoch, loss="kl_votes")
    for before, batch in zip(
        plain,
        plan(epoch, loss="kl_votes", tier_weights=tiers, label_smoothing=smoothing),
        strict=True,
    ):
        np.testing.assert_array_equal(batch.rows, before.rows)
        votes = DATA.total_votes[batch.rows]
        np.testing.assert_allclose(before.weights, votes / 20)
        np.testing.assert_allclose(
            batch.weights, votes / 20 * tier_factors(tiers, votes, epoch / 4)
        )
        np.testing.assert_allclose(
            batch.targets, smoothed(smoothing, DATA.targets[batch.rows], votes)
        )


def test_cutmix_still_chooses_partners_by_votes_and_mixtures_are_of_smoothed_targets() -> None:
    augment = AugmentConfig(
        cutmix=CutMixConfig(probability=1.0), mixup=MixupConfig(probability=1.0)
    )
    smoothing, n_mixed = LabelSmoothing(added_votes=1.0), 0
    plain = plan(augment=augment)
    for before, batch in zip(plain, plan(augment=augment, label_smoothing=smoothing), strict=True):
        assert batch.plan.cutmix is not None
        assert before.plan.cutmix is not None
        swaps = [
            [(swap.rows.tolist(), swap.donors.tolist(), swap.bands) for swap in made.swaps]
            for made in (before.plan.cutmix, batch.plan.cutmix)
        ]
        assert swaps[0] == swaps[1]
        n_mixed += len(swaps[0])
        np.testing.assert_allclose(batch.targets.sum(1), 1.0, atol=1e-12)
        assert batch.targets.min() > 0
    assert n_mixed


def test_binary_divergence_is_that_of_six_yes_or_no_questions() -> None:
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(size=(5, 6)), rng.uniform(0.5, 2, 5)
    targets = rng.multinomial(4, np.ones(6) / 6, size=5) / 4
    yes = 1 / (1 + np.exp(-logits))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(targets > 0, targets * np.log(targets / yes), 0.0)
        terms += np.where(targets < 1, (1 - targets) * np.log((1 - targets) / (1 - yes)), 0.0)
    given = torch.from_numpy(logits).requires_grad_()
    rows = weighted_binary_kl(given, torch.from_numpy(targets), torch.from_numpy(weights))
    np.testing.assert_allclose(rows.detach().numpy(), terms.sum(1) * weights, rtol=1e-10)
    rows.sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    np.testing.assert_allclose(given.grad.numpy(), (yes - targets) * weights[:, None], atol=1e-12)
    far = weighted_binary_kl(1e3 * given.detach(), torch.from_numpy(targets), torch.ones(5))
    assert torch.isfinite(far).all()


def test_sigmoids_are_divided_by_their_sum_for_scores_and_for_stored_weights() -> None:
    experiment = replace_values(example_experiment(epochs=2), {"model.output": "sigmoid"})
    result = train_fold(experiment, DATA, 0, Process())
    assert {record["loss"] for record in result.history} == {"binary kl"}
    np.testing.assert_allclose(result.probabilities.sum(1), 1.0, atol=1e-12)
    model = build_model(experiment.model, (64, 64))
    model.load_state_dict(result.weights)
    plain = build_model(
        ModelConfig(**{**experiment.model.model_dump(), "output": "softmax"}), (64, 64)
    )
    plain.load_state_dict(result.weights)
    (image,) = open_images(DATA, experiment.input).for_rows([DATA.valid])
    with torch.inference_mode():
        logits = plain.eval()(image).double()
        scored = torch.softmax(model.eval()(image).double(), dim=1)
    expected = torch.sigmoid(logits) / torch.sigmoid(logits).sum(1, keepdim=True)
    torch.testing.assert_close(scored, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(model.train()(image), plain.train()(image)), "logits in training"


def test_sigmoids_learn() -> None:
    data = example_fold(n_train=120, n_valid=30)
    experiment = example_experiment(epochs=4, batch_size=20, learning_rate=3e-3)
    result = train_fold(replace_values(experiment, {"model.output": "sigmoid"}), data, 0, Process())
    losses = [record["train_loss"] for record in result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert result.history[-1]["kl_all"] < result.history[0]["kl_all"]


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"label_smoothing": {}}, "share or added_votes must be above 0, got 0 for both; set one"),
        (
            {"tier_weights": {"weights": [0.01, 0.5, 1]}},
            "floor must be at most the smallest weight, 0.01, got 0.02; lower floor",
        ),
        ({"tier_weights": {"weights": [0.0, 0.5, 1]}}, "greater than 0, got 0.0"),
        ({"label_smoothing": {"share": 1}}, "less than 1, got 1"),
    ],
)
def test_bad_values_are_refused(given: dict[str, Any], rule: str) -> None:
    with refusal(ConfigError, rule, where="here"):
        validated(Experiment, {"training": given}, "here")


def test_unused_parts_change_no_key() -> None:
    def form(**training: Any) -> Any:
        return canonical(Experiment(training=TrainingConfig(**training)))

    steady = [TierWeights(floor=floor) for floor in (0.01, 0.02)]
    assert form(tier_weights=steady[0]) == form(tier_weights=steady[1]) != form()
    added = [LabelSmoothing(added_votes=1, max_votes=most) for most in (3, None)]
    assert form(label_smoothing=added[0]) == form(label_smoothing=added[1]) != form()
