"""Losses against plain numpy."""

import numpy as np
import pytest
import torch

from hms_ray.train.losses import row_weights, weighted_kl

VOTES = np.array([1, 2, 3, 9, 10, 11, 28])


def example(n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    targets = np.array([rng.multinomial(5, np.ones(6) / 6) for _ in range(n)]) / 5
    return torch.from_numpy(rng.normal(size=(n, 6))), torch.from_numpy(targets)


def test_weights_by_votes() -> None:
    np.testing.assert_array_equal(row_weights("kl", VOTES), np.ones(7))
    np.testing.assert_allclose(row_weights("kl_log_votes", VOTES), np.log(VOTES + 1.0))
    np.testing.assert_array_equal(row_weights("kl_capped_votes", VOTES), [1, 2, 3, 9, 10, 10, 10])
    np.testing.assert_array_equal(
        row_weights("kl_floored_votes", VOTES), [10, 10, 10, 10, 10, 11, 28]
    )


def test_perfect_prediction_has_zero_loss() -> None:
    targets = torch.tensor([[0.5, 0.5, 0, 0, 0, 0]], dtype=torch.float64)
    logits = torch.tensor([[3.0, 3.0, -60, -60, -60, -60]], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    assert weighted_kl(logits, targets, one).item() == pytest.approx(0.0, abs=1e-12)
    assert weighted_kl(-logits, targets, one).item() > 50


def test_gradient_equals_that_of_cross_entropy() -> None:
    logits, targets = example()
    logits.requires_grad_()
    weights = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    weighted_kl(logits, targets, weights).sum().backward()
    expected = weights[:, None] * (torch.softmax(logits.detach(), 1) - targets)
    torch.testing.assert_close(logits.grad, expected)
