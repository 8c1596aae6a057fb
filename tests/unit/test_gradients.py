"""Clipping and accumulation of gradients."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hms_ray.config.experiment import Experiment
from hms_ray.config.training import TrainingConfig
from hms_ray.config.validation import validated
from hms_ray.errors import ConfigError
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.step import Step, stage_step
from tests.fold_data import example_experiment, example_fold
from tests.refused import refusal

DATA = example_fold()


def gradient_of(
    precision: Any = "float64", size: float = 1.0, **training: Any
) -> tuple[np.ndarray[Any, Any], Step]:
    """The gradient that an optimiser step of four images uses, and the step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    step_of = Process(), precision, Experiment(training=TrainingConfig(**training))
    (stage,) = step_of[2].training.resolved_stages()
    step = stage_step(model, model, *step_of, stage, 8)
    model.to(step.dtype)
    image = size * torch.linspace(-1, 1, 64, dtype=step.dtype).reshape(4, 1, 4, 4)
    batch: Any = SimpleNamespace(targets=np.eye(6)[[0, 1, 1, 5]], weights=np.ones(4), n_global=4)
    step(batch, image, measured=True)
    gradients = [parameter.grad.numpy().ravel() for parameter in model.parameters()]  # type: ignore[union-attr]
    return np.concatenate(gradients), step


def test_longer_gradients_are_scaled_down_and_shorter_ones_stay() -> None:
    plain, _ = gradient_of()
    norm = np.linalg.norm(plain)
    clipped, step = gradient_of(clip_norm=norm / 4)
    np.testing.assert_allclose(clipped, plain / 4, rtol=1e-5)
    assert step.gradient_norm == pytest.approx(norm), "of the gradient before it is clipped"
    short, _ = gradient_of(clip_norm=2 * norm)
    np.testing.assert_array_equal(short, plain)


def test_gradients_of_float16_are_clipped_without_the_scale_of_the_loss() -> None:
    plain, _ = gradient_of("float32")
    norm = np.linalg.norm(plain)
    clipped, step = gradient_of("float16", clip_norm=norm / 4)
    np.testing.assert_allclose(clipped, plain / 4, atol=2e-3 * norm)
    assert step.gradient_norm == pytest.approx(norm, rel=1e-2)
    scale = step.scaler.get_scale()
    _, skipped = gradient_of("float16", size=40.0, clip_norm=norm)
    assert skipped.scaler.get_scale() == scale / 2, "an overflow still skips the step"
    assert skipped.gradient_norm is None


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_a_batch_have_its_gradient(parts: int) -> None:
    whole, _ = gradient_of()
    summed, _ = gradient_of(accumulate=parts, batch_size=4)
    np.testing.assert_allclose(summed, whole, rtol=1e-12, atol=1e-15)


def test_a_fold_trained_in_parts_equals_one_of_whole_batches() -> None:
    passes: list[int] = []

    def fold(**training: Any) -> Any:
        experiment = example_experiment("test_vit", precision="float64", **training)
        handle = nn.modules.module.register_module_forward_hook(
            lambda module, images, out: (
                passes.append(len(images[0]))
                if module.training and images[0].ndim == 4 and out.ndim == 2
                else None
            )
        )
        try:
            return train_fold(experiment, DATA, 0, Process())
        finally:
            handle.remove()

    whole = fold()
    assert passes == [12, 11, 11, 11]
    passes.clear()
    parts = fold(accumulate=5)
    assert passes[:5] == [3, 3, 2, 2, 2]
    assert len(passes) == 20
    assert [line["step"] for line in parts.history] == [line["step"] for line in whole.history]
    assert [line["learning_rate"] for line in parts.history] == [
        line["learning_rate"] for line in whole.history
    ]
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, rtol=0, atol=1e-9)
    for name, value in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], value, rtol=0, atol=1e-9)


def test_more_parts_than_rows_are_refused() -> None:
    rule = (
        "accumulate must be at most batch_size, the rows that it divides, got 33 parts of 32 rows; "
        "use a smaller accumulate"
    )
    with refusal(ConfigError, rule, where="here"):
        validated(Experiment, {"training": {"accumulate": 33}}, "here")
