"""Contract of every loss."""

from typing import get_args

import numpy as np
import pytest
import torch

from hms_ray.config.training import Loss
from hms_ray.evaluate.metric import kl_rows
from hms_ray.train.losses import LOSSES, row_weights, weighted_kl

VOTES = np.array([1, 2, 3, 9, 10, 11, 28])
every_loss = pytest.mark.parametrize("loss", list(LOSSES))
both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def example(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    targets = np.array([rng.multinomial(5, np.ones(6) / 6) for _ in VOTES]) / 5
    return (
        torch.from_numpy(rng.normal(size=(len(VOTES), 6))).to(dtype),
        torch.from_numpy(targets).to(dtype),
    )


def test_every_configurable_loss_exists() -> None:
    assert set(LOSSES) == set(get_args(Loss))


def test_weights_by_votes() -> None:
    np.testing.assert_array_equal(row_weights("kl", VOTES), np.ones(7))
    np.testing.assert_allclose(row_weights("kl_votes", VOTES), VOTES / 20)
    np.testing.assert_allclose(row_weights("kl_log_votes", VOTES), np.log(VOTES + 1.0))
    np.testing.assert_array_equal(row_weights("kl_capped_votes", VOTES), [1, 2, 3, 9, 10, 10, 10])
    np.testing.assert_array_equal(
        row_weights("kl_floored_votes", VOTES), [10, 10, 10, 10, 10, 11, 28]
    )


@every_loss
def test_weights(loss: Loss) -> None:
    before = VOTES.copy()
    weights = row_weights(loss, VOTES)
    assert weights.dtype == np.float64
    assert weights.shape == VOTES.shape
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert (np.diff(weights) >= 0).all(), "more votes never count less"
    np.testing.assert_array_equal(VOTES, before)
    np.testing.assert_array_equal(row_weights(loss, VOTES[::-1])[::-1], weights)


@every_loss
@both
def test_losses_are_weighted_divergences_of_rows(loss: Loss, dtype: torch.dtype) -> None:
    logits, targets = example(dtype)
    weights = torch.from_numpy(row_weights(loss, VOTES)).to(dtype)
    before = [values.clone() for values in (logits, targets, weights)]
    rows = weighted_kl(logits, targets, weights)
    assert rows.shape == (len(VOTES),)
    assert rows.dtype == dtype
    assert (rows >= 0).all()
    assert torch.equal(rows, weighted_kl(logits, targets, weights))
    for values, kept in zip((logits, targets, weights), before, strict=True):
        assert torch.equal(values, kept)
    expected = kl_rows(example()[1].numpy(), torch.softmax(logits.double(), 1).numpy())
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(rows, expected * row_weights(loss, VOTES), rtol=tolerance)


@every_loss
@both
def test_loss_at_the_target_is_zero(loss: Loss, dtype: torch.dtype) -> None:
    logits, _ = example(dtype)
    weights = torch.from_numpy(row_weights(loss, VOTES)).to(dtype).requires_grad_()
    logits.requires_grad_()
    rows = weighted_kl(logits, torch.softmax(logits.detach(), 1), weights)
    limit = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(rows.detach(), torch.zeros_like(rows), rtol=0, atol=limit)
    rows.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=limit)


@every_loss
@both
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_gradients_are_finite_and_point_at_the_target(
    loss: Loss, dtype: torch.dtype, scale: float
) -> None:
    logits, targets = example(dtype)
    logits = (scale * logits).requires_grad_()
    weights = torch.from_numpy(row_weights(loss, VOTES)).to(dtype)
    rows = weighted_kl(logits, targets, weights)
    assert torch.isfinite(rows).all()
    rows.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    excess = torch.softmax(logits.detach(), 1) - targets
    torch.testing.assert_close(logits.grad, weights[:, None] * excess, rtol=1e-4, atol=1e-4)
