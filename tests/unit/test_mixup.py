"""Mixup image by image against plain numpy."""

import numpy as np
import pytest
import torch

from hms_ray.augment.mixup import MixupPlan, apply_mixup, plan_mixup
from hms_ray.config.augmentation import MixupConfig


def plan(n_rows: int = 12, alpha: float = 1.0, seed: int = 0) -> MixupPlan:
    drawn = plan_mixup(n_rows, MixupConfig(alpha=alpha), np.random.default_rng(seed))
    assert drawn is not None
    return drawn


def test_mixed_images_targets_and_weights() -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(12, 1, 4, 30))
    targets, weights = rng.dirichlet(np.ones(6), size=12), rng.uniform(1, 20, size=12)
    for seed in range(4):
        drawn = plan(seed=seed)
        given_images = torch.from_numpy(images)
        out = apply_mixup(given_images, drawn)
        np.testing.assert_array_equal(given_images, images)
        for row, partner in enumerate(drawn.partners):
            for made, values in (
                (out.numpy(), images),
                (drawn.mixed(targets), targets),
                (drawn.mixed(weights), weights),
            ):
                expected = drawn.share * values[row] + (1 - drawn.share) * values[partner]
                np.testing.assert_allclose(made[row], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(drawn.mixed(targets).sum(1), 1.0, atol=1e-12)
        assert drawn.mixed(weights).mean() == pytest.approx(weights.mean(), rel=1e-12)
    assert apply_mixup(given_images.float(), drawn).dtype == torch.float32


def test_partners_are_a_permutation_and_shares_beta_distributed() -> None:
    drawn = [plan(12, 0.4, seed) for seed in range(2000)]
    assert all(np.array_equal(np.sort(mixup.partners), np.arange(12)) for mixup in drawn[:50])
    shares = np.array([mixup.share for mixup in drawn])
    assert ((shares >= 0) & (shares <= 1)).all()
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)


def test_share_of_mixed_batches_matches_the_probability() -> None:
    config, generator = MixupConfig(probability=0.25), np.random.default_rng(0)
    mixed = [plan_mixup(4, config, generator) is not None for _ in range(2000)]
    assert np.mean(mixed) == pytest.approx(0.25, abs=0.04)


def test_golden_plan() -> None:
    drawn = plan(6, 0.2, seed=42)
    assert drawn.partners.tolist() == [2, 4, 0, 1, 3, 5]
    assert drawn.share == pytest.approx(0.0337191, rel=1e-4)
